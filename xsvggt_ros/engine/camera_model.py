"""
A calibrated camera: its lens, and the pinhole camera that its rectified images belong to.

The meaning of the numbers is that of sensor_msgs/CameraInfo; the lens models are OpenCV's. Pixel
coordinates are integers at pixel centres.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

LENSES = {'plumb_bob': 5, 'rational_polynomial': 8, 'equidistant': 4}  # number of coefficients
_FOLD_SAMPLES = 4096  # radii at which it is tested whether a lens model still grows
_GRID = 9  # points in each direction at which two cameras are compared


class CameraError(ValueError):
    """A calibration that cannot be used; says why and what to do."""


@dataclass(frozen=True, eq=False)
class CameraModel:
    """
    A camera for images of one size; matrices are float64, in pixels of these images.

    width, height: of the raw image and of the rectified one.
    camera_matrix: [3, 3] of the raw image.
    lens: one of `LENSES`; coefficients: as many as it has. All zero is no distortion.
    rectified_from_raw: [3, 3], the rotation that rectification adds (stereo pairs).
    rectified_matrix: [3, 3] of the rectified image, which has no distortion.
    """

    width: int
    height: int
    camera_matrix: np.ndarray
    lens: str
    coefficients: tuple[float, ...]
    rectified_from_raw: np.ndarray
    rectified_matrix: np.ndarray

    @classmethod
    def calibrated(
        cls, size: tuple[int, int], k: Sequence[float], d: Sequence[float] = (),
        r: Sequence[float] = (), p: Sequence[float] = (), lens: str = 'plumb_bob',
        binning: tuple[int, int] = (1, 1), window: tuple[int, int, int, int] = (0, 0, 0, 0),
    ) -> 'CameraModel':
        """
        Return the camera that a calibration describes, by the fields of sensor_msgs/CameraInfo.

        size: width, height of the calibrated images. k: 9 numbers; d: the lens's coefficients,
        missing ones are 0; r: 9 numbers, p: 12 numbers, for both of which all zero or nothing
        means that rectification keeps the axes and k. The images are what is left of the
        calibrated ones after cutting out the window (left, top, width, height; all zero: nothing
        is cut off) and merging binning pixels (horizontally, vertically) into one.

        Raises CameraError if that is no camera.
        """
        width, height = size
        if width < 1 or height < 1:
            raise CameraError(f'the calibrated size is {width}x{height}; it must be given')
        k, r, p = (np.array(values, np.float64) for values in (k, r, p))
        camera_matrix = k.reshape(3, 3).copy()
        rotation = r.reshape(3, 3) if r.any() else np.eye(3)
        rectified = p.reshape(3, 4)[:, :3].copy() if p.any() else camera_matrix
        for name, matrix in (('K', camera_matrix), ('P', rectified)):
            matrix[2] = 0, 0, 1  # some drivers leave it empty
            if not (np.isfinite(matrix).all() and matrix[0, 0] > 0 and matrix[1, 1] > 0):
                raise CameraError(f'{name} has no positive focal lengths: {matrix.tolist()}')
        if not np.allclose(rotation @ rotation.T, np.eye(3), atol=1e-2):
            raise CameraError(f'R is not a rotation: {rotation.tolist()}')
        lens, coefficients = _checked_lens(lens, d)
        camera = cls(width, height, camera_matrix, lens, coefficients, rotation, rectified)
        left, top, columns, rows = window
        if columns and rows:
            if left + columns > width or top + rows > height:
                raise CameraError(
                    f'the region of interest, {columns}x{rows} at {left}, {top}, does not lie '
                    f'in the calibrated {width}x{height}')
            camera = camera._mapped(columns, rows, _scaling(1, 1, -left, -top))
        across, down = (max(1, count) for count in binning)
        if (across, down) != (1, 1):
            camera = camera._scaled(camera.width // across, camera.height // down,
                                    1 / across, 1 / down)
        if not camera.is_inside(camera.source_of(camera._sparse_pixels())).any():
            raise CameraError('with this lens, R and P the rectified image would show nothing')
        return camera

    def for_images(self, width: int, height: int) -> 'CameraModel':
        """
        Return the camera for images of another size that show the same.

        Raises CameraError unless the aspect is the same to within a pixel.
        """
        if (width, height) == (self.width, self.height):
            return self
        if abs(width * self.height / self.width - height) > 1:
            raise CameraError(
                f'the calibration is for images of {self.width}x{self.height}, but these are '
                f'{width}x{height}, another aspect; calibrate at this resolution')
        return self._scaled(width, height, width / self.width, height / self.height)

    def rectified(self) -> 'CameraModel':
        """Return the pinhole camera that rectified images belong to."""
        return replace(self, camera_matrix=self.rectified_matrix, lens='plumb_bob',
                       coefficients=(0.0,) * LENSES['plumb_bob'],
                       rectified_from_raw=np.eye(3))

    @property
    def is_distorted(self) -> bool:
        """Return whether the lens bends straight lines."""
        return any(self.coefficients)

    @property
    def needs_rectification(self) -> bool:
        """Return whether raw and rectified images differ."""
        return (self.is_distorted or not np.allclose(self.rectified_from_raw, np.eye(3))
                or not np.allclose(self.camera_matrix, self.rectified_matrix))

    def distort(self, points: np.ndarray) -> np.ndarray:
        """Return where the lens puts points [..., 2] of the plane at distance 1, float64."""
        if not self.is_distorted:
            return points
        radius = np.linalg.norm(points, axis=-1)
        scale = self._distorted_radius(radius) / radius.clip(1e-12)
        if self.lens == 'equidistant':
            return points * scale[..., None]
        p1, p2 = self.coefficients[2:4]
        x, y, square = points[..., 0], points[..., 1], radius * radius
        return np.stack((
            x * scale + 2 * p1 * x * y + p2 * (square + 2 * x * x),
            y * scale + p1 * (square + 2 * y * y) + 2 * p2 * x * y), -1)

    def source_of(self, pixels: np.ndarray) -> np.ndarray:
        """
        Return which pixels [..., 2] of the raw image show these pixels of the rectified one.

        (u, v), float64, also beyond its borders; NaN where no camera with this lens sees.
        """
        with np.errstate(all='ignore'):  # where numbers run away, nothing is seen
            raw, seen = self._distorted_pixels(pixels)
        return np.where(seen[..., None], raw, np.nan)

    def is_inside(self, pixels: np.ndarray) -> np.ndarray:
        """Return which pixels (u, v) [..., 2] lie in the image, NaN in none, bool [...]."""
        return ((pixels >= -0.5) & (pixels <= (self.width - 0.5, self.height - 0.5))).all(-1)

    def rectification_map(self) -> np.ndarray:
        """Return `source_of` all pixels of the rectified image, float64 [height, width, 2]."""
        return self.source_of(_pixels(np.arange(self.width), np.arange(self.height)))

    def shift_to(self, other: 'CameraModel') -> float:
        """
        Return how far apart this camera and another are: pixels, at the worst place of the image.

        That is how far what a rectified pixel shows and where it looks differ; infinite for
        cameras of another size.
        """
        if (self.width, self.height) != (other.width, other.height):
            return float('inf')
        pixels = self._sparse_pixels()
        there = _with_one(pixels) @ np.linalg.inv(other.rectified_matrix).T
        looks = (there @ self.rectified_matrix.T)[..., :2] - pixels
        shows = np.nan_to_num(other.source_of(pixels) - self.source_of(pixels))
        return float(max(np.linalg.norm(shift, axis=-1).max() for shift in (looks, shows)))

    # Parts ---------------------------------------------------------------------------------------

    def _sparse_pixels(self) -> np.ndarray:
        return _pixels(np.linspace(0, self.width - 1, _GRID),
                       np.linspace(0, self.height - 1, _GRID))

    def _distorted_pixels(self, pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return raw pixels of rectified ones, and which of them the lens model allows."""
        rays = _with_one(pixels) @ np.linalg.inv(self.rectified_matrix).T
        rays = rays @ self.rectified_from_raw  # the inverse rotation, of row vectors
        front = rays[..., 2:] > 0
        points = np.where(front, rays[..., :2] / np.where(front, rays[..., 2:], 1), 0)
        seen = front[..., 0] & (np.linalg.norm(points, axis=-1) < self._fold(points))
        raw = _with_one(self.distort(points)) @ self.camera_matrix.T
        return raw[..., :2], seen

    def _distorted_radius(self, radius: np.ndarray) -> np.ndarray:
        """Return the radial part of the lens: distance from the axis behind it."""
        k = self.coefficients
        if self.lens == 'equidistant':
            angle = np.arctan(radius)
            return angle * _polynomial(angle * angle, k)
        square = radius * radius
        scale = _polynomial(square, (k[0], k[1], k[4]))
        if self.lens == 'rational_polynomial':
            scale = scale / _polynomial(square, k[5:8])
        return radius * scale

    def _fold(self, points: np.ndarray) -> float:
        """
        Return the radius from which on the lens model is not to be believed.

        Its polynomial turns back there, far outside of the image it was fitted to, and would show
        the same raw pixels a second time.
        """
        farthest = np.linalg.norm(points, axis=-1).max()
        radii = np.linspace(0, farthest, _FOLD_SAMPLES)
        falls = np.diff(self._distorted_radius(radii)) <= 0
        if not self.is_distorted or not falls.any():
            return float('inf')
        return float(radii[falls.argmax()])

    def _scaled(self, width: int, height: int, across: float, down: float) -> 'CameraModel':
        """Return the camera of images scaled by these factors, about the corner at -0.5."""
        return self._mapped(
            width, height, _scaling(across, down, 0.5 * across - 0.5, 0.5 * down - 0.5))

    def _mapped(self, width: int, height: int, new_from_old: np.ndarray) -> 'CameraModel':
        """Return the camera of images whose pixels are mapped by `new_from_old`."""
        return replace(self, width=width, height=height,
                       camera_matrix=new_from_old @ self.camera_matrix,
                       rectified_matrix=new_from_old @ self.rectified_matrix)


def _checked_lens(lens: str, d: Sequence[float]) -> tuple[str, tuple[float, ...]]:
    """Return the lens model's name and all of its coefficients; raise CameraError."""
    numbers = tuple(float(value) for value in d)
    if not lens and not any(numbers):  # many simulators leave both empty
        lens = 'plumb_bob'
    if lens not in LENSES:
        raise CameraError(
            f"the distortion model '{lens}' is not supported; calibrate with one of "
            f'{", ".join(LENSES)}, or rectify the images elsewhere')
    count = LENSES[lens]
    if any(numbers[count:]) or not all(map(_is_finite, numbers)):
        raise CameraError(
            f'{lens} has {count} distortion coefficients, but D has {list(numbers)}; calibrate '
            f'with one of {", ".join(LENSES)}')
    return lens, (numbers + (0.0,) * count)[:count]


def _is_finite(number: float) -> bool:
    return abs(number) < float('inf')


def _polynomial(x: np.ndarray, coefficients: Sequence[float]) -> np.ndarray:
    """Return 1 + c0 x + c1 x^2 + ..."""
    total = np.zeros_like(x)
    for coefficient in reversed(coefficients):
        total = (total + coefficient) * x
    return 1 + total


def _pixels(columns: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Return the grid of pixel coordinates (u, v), float64 [rows, columns, 2]."""
    return np.stack(np.meshgrid(columns, rows), -1).astype(np.float64)


def _with_one(points: np.ndarray) -> np.ndarray:
    return np.concatenate((points, np.ones_like(points[..., :1])), -1)


def _scaling(across: float, down: float, right: float, below: float) -> np.ndarray:
    return np.array(((across, 0, right), (0, down, below), (0, 0, 1)), np.float64)
