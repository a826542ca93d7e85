"""
Draws a coloured point cloud from any viewpoint into an image. Numpy only.

Points become squares as large as the gaps between them, nearer ones hide farther ones, and
pixels behind a depth edge are darkened (eye-dome lighting), which shows the shape without normals.
"""

from dataclasses import dataclass

import numpy as np

_SUPERSAMPLING = 2
_EDGE_STRENGTH = 2.2     # of the darkening behind depth edges
_FILL = 0.93             # of the picture's width or height that the points span
_MAX_RADIUS = 3          # pixels of the supersampled image


@dataclass(frozen=True)
class Viewpoint:
    """A pinhole camera that looks from `eye` to `target`; world z is up."""

    eye: np.ndarray        # [3]
    target: np.ndarray     # [3]
    focal: float           # pixels
    width: int
    height: int

    def view_from_world(self) -> np.ndarray:
        """Return the rotation [3, 3] to right, down, ahead."""
        ahead = (self.target - self.eye) / np.linalg.norm(self.target - self.eye)
        right = np.cross(ahead, (0.0, 0.0, 1.0))
        right /= np.linalg.norm(right)
        return np.stack([right, np.cross(ahead, right), ahead])

    def project(self, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return pixel positions [N, 2] and depths [N] of world `points` [N, 3]."""
        local = (np.asarray(points, np.float64) - self.eye) @ self.view_from_world().T
        depth = local[:, 2]
        with np.errstate(divide='ignore', invalid='ignore'):
            pixels = local[:, :2] / depth[:, None] * self.focal
        return pixels + (self.width / 2, self.height / 2), depth


def viewpoint_around(points: np.ndarray, azimuth: float, elevation: float, width: int,
                     height: int) -> Viewpoint:
    """
    Return a view in which `points` [N, 3] fill the picture; angles in radians.

    At azimuth 0 it looks along world x, from behind; positive angles move it to the left.
    """
    target = (points.min(axis=0) + points.max(axis=0)) / 2
    towards = np.array([-np.cos(azimuth) * np.cos(elevation), np.sin(azimuth) * np.cos(elevation),
                        np.sin(elevation)])
    focal = 1.5 * height
    distance = 2.0 * max(float(np.linalg.norm(points - target, axis=1).max()), 1e-6)
    for _ in range(30):    # moves aside and nearer until the outline fits
        view = Viewpoint(target + towards * distance, target, focal, width, height)
        pixels, depth = view.project(points)
        if depth.min() <= 0.05 * distance:
            distance *= 1.3
            continue
        low, high = pixels.min(axis=0), pixels.max(axis=0)
        right, down, _ = view.view_from_world()
        shift = ((low + high) / 2 - (width / 2, height / 2)) / focal * distance
        target = target + right * shift[0] + down * shift[1]
        reach = float(((high - low) / (width, height)).max())
        distance *= 1 + 0.7 * (reach / _FILL - 1)
    return Viewpoint(target + towards * distance, target, focal, width, height)


def draw_cloud(points: np.ndarray, colours: np.ndarray, view: Viewpoint, spacing: float,
               background: tuple[int, int, int]) -> np.ndarray:
    """
    Return an image [H, W, 3] uint8 of `points` [N, 3] with `colours` [N, 3] uint8.

    spacing: the typical distance of neighbouring points, in the points' unit.
    """
    scale = _SUPERSAMPLING
    width, height = view.width * scale, view.height * scale
    pixels, depth = view.project(points)
    pixels = pixels * scale
    seen = ((depth > 1e-9) & (pixels[:, 0] >= 0) & (pixels[:, 0] < width)
            & (pixels[:, 1] >= 0) & (pixels[:, 1] < height))
    pixels, depth, colours = pixels[seen].astype(np.int64), depth[seen], colours[seen]
    radius = np.clip(np.rint(0.5 * spacing * view.focal * scale / depth), 1, _MAX_RADIUS)
    index, owner = _squares(pixels, radius.astype(np.int64), width, height)

    order = np.argsort(-depth[owner].astype(np.float32), kind='stable')   # farthest first
    index, owner = index[order], owner[order]
    flat = np.full((height * width, 3), background, np.float32)
    distance = np.full(height * width, np.inf, np.float32)
    flat[index] = colours[owner]       # the last, nearest one stays
    distance[index] = depth[owner]
    nearest = distance.reshape(height, width)
    image = flat.reshape(height, width, 3)
    drawn = np.isfinite(nearest)
    image[drawn] *= _edge_shade(nearest)[drawn][:, None]
    image = image.reshape(view.height, scale, view.width, scale, 3).mean(axis=(1, 3))
    return np.clip(image, 0, 255).astype(np.uint8)


def _squares(pixels: np.ndarray, radius: np.ndarray, width: int,
             height: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the pixel indices that points cover, and which point covers each of them."""
    indices, owners = [], []
    everyone = np.arange(len(pixels))
    for down in range(-_MAX_RADIUS, _MAX_RADIUS + 1):
        for right in range(-_MAX_RADIUS, _MAX_RADIUS + 1):
            # Radius 1 covers 2 x 2 pixels, 2 covers 4 x 4 and so on.
            wide = everyone[(radius > max(right, -right - 1)) & (radius > max(down, -down - 1))]
            column, row = pixels[wide, 0] + right, pixels[wide, 1] + down
            inside = (column >= 0) & (column < width) & (row >= 0) & (row < height)
            indices.append(row[inside] * width + column[inside])
            owners.append(wide[inside])
    return np.concatenate(indices), np.concatenate(owners)


def _edge_shade(depth: np.ndarray) -> np.ndarray:
    """Return the brightness [H, W] of every pixel: less where neighbours are much nearer."""
    logarithm = np.log2(np.where(np.isfinite(depth), depth, np.float32(1e9)))
    behind = np.zeros_like(logarithm)
    reach = _SUPERSAMPLING
    for down, right in ((0, reach), (0, -reach), (reach, 0), (-reach, 0)):
        neighbour = np.roll(logarithm, (down, right), axis=(0, 1))
        behind += np.clip(logarithm - neighbour, 0.0, 0.5)
    return np.exp(-_EDGE_STRENGTH * behind)
