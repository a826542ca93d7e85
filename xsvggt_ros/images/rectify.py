"""From a lens's image to a pinhole camera's: a map that is made once, applied to every frame."""

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import grid_sample

from xsvggt_ros.geometry.camera_model import CameraModel
from xsvggt_ros.images.preprocess import Resize

MOST_DEPTH_VIEWS = 4
_OUTSIDE = -2.0  # in grid_sample's coordinates, where the image spans -1..1
_VALID = 250  # of 255: what a mask must have left after resizing


class CameraView:
    """
    A calibrated camera's images on their way to the network.

    intrinsics: fp32 [3, 3], of the model image, on the device.
    valid: which of the model image's pixels show something, bool [height, width], on the device;
    None where all do. A pixel to which the outside contributes is not valid.
    """

    def __init__(
        self, camera: CameraModel, resize: Resize, device: torch.device | str = 'cpu',
    ) -> None:
        """Make the map; for 1920x1080 it takes 17 MB on the device."""
        matrix = resize.model_from_source() @ torch.from_numpy(camera.rectified_matrix)
        self.intrinsics = matrix.to(device, torch.float32)
        self.valid: Tensor | None = None
        self._grid: Tensor | None = None  # None: the image is a pinhole camera's as it is
        if camera.needs_rectification:
            grid, inside = _sampling(camera)
            self._grid = grid.to(device)
            mask = (inside.to(device).byte() * 255)[..., None].expand(-1, -1, 3)
            valid = resize(mask)[..., 0] >= _VALID
            self.valid = None if valid.all() else valid

    @torch.inference_mode()
    def rectify(self, frame: Tensor) -> Tensor:
        """Return a raw frame, uint8 [H, W, 3], rectified: bilinear, black outside."""
        if self._grid is None:
            return frame
        planes = frame.permute(2, 0, 1)[None].float()
        planes = grid_sample(planes, self._grid, mode='bilinear', padding_mode='zeros',
                             align_corners=True)
        return planes[0].round_().byte().permute(1, 2, 0)


class DepthView:
    """
    A raw camera's depth images as the rectified camera would see them: the nearest pixel.

    What lies between two depths is none, so nothing is interpolated.
    """

    def __init__(self, camera: CameraModel) -> None:
        """Make the map; for 1920x1080 it takes 10 MB."""
        self._nearest = np.empty((camera.height, camera.width), np.int32)
        self._outside = np.empty((camera.height, camera.width), bool)
        corner = np.array((camera.width - 1, camera.height - 1))
        for top, sources in camera.rectification_rows():
            rows = slice(top, top + len(sources))
            self._outside[rows] = ~camera.is_inside(sources)
            columns, lines = np.moveaxis(np.rint(np.nan_to_num(sources).clip(0, corner)), -1, 0)
            self._nearest[rows] = lines * camera.width + columns

    def rectify(self, depth: np.ndarray) -> np.ndarray:
        """Return a raw depth image [H, W], float, rectified; NaN where the lens shows nothing."""
        rectified = depth.ravel()[self._nearest]
        rectified[self._outside] = np.nan
        return rectified


class DepthViews:
    """The maps of the last MOST_DEPTH_VIEWS cameras and sizes that depth images came in."""

    def __init__(self) -> None:
        """Begin without any."""
        self._views: dict[tuple[CameraModel, int, int], DepthView] = {}

    def rectify(self, depth: np.ndarray, camera: CameraModel | None) -> np.ndarray:
        """
        Return a depth image [H, W] as the rectified camera would see it, of the same size.

        camera: of the images that it is registered to, which may have another size. Raises
        CameraError if they have another aspect.
        """
        if camera is None or not camera.needs_rectification:
            return depth
        height, width = depth.shape
        key = camera, width, height
        view = self._views.pop(key, None)
        if view is None:
            view = DepthView(camera.for_images(width, height))
            if len(self._views) == MOST_DEPTH_VIEWS:
                del self._views[next(iter(self._views))]  # the one not needed for longest
        self._views[key] = view
        return view.rectify(depth)


def _sampling(camera: CameraModel) -> tuple[Tensor, Tensor]:
    """Return grid_sample's grid, fp32 [1, H, W, 2], and which pixels are seen, bool [H, W]."""
    grid = np.empty((camera.height, camera.width, 2), np.float32)
    seen = np.empty((camera.height, camera.width), bool)
    corner = np.array((camera.width - 1, camera.height - 1))
    for top, sources in camera.rectification_rows():
        rows = slice(top, top + len(sources))
        inside = camera.is_inside(sources)
        # The outermost half pixel lies beyond the centres: there the border pixel's value goes on.
        np.clip(sources, 0, corner, out=sources)
        grid[rows] = sources * (2 / corner.clip(1)) - 1
        grid[rows][~inside] = _OUTSIDE
        seen[rows] = inside
    return torch.from_numpy(grid)[None], torch.from_numpy(seen)
