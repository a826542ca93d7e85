"""From a lens's image to a pinhole camera's: a map that is made once, applied to every frame."""

from dataclasses import replace

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import grid_sample

from xsvggt_ros.geometry.camera_model import CameraModel
from xsvggt_ros.images.preprocess import Resize

MOST_DEPTH_VIEWS = 4
MAX_SAMPLES = 6  # of a lens's image along a side of a model pixel: more are not seen
_OUTSIDE = -2.0  # a place that is outside in any coordinates
_OPENCV_SIDE = 32767  # pixels, from which on OpenCV maps no image
_VALID = 250  # of 255: what a mask must have left after resizing


class Rectification:
    """
    A map from a lens's images to a pinhole camera's, of any size.

    inside: which of its pixels show something, bool [height, width], on the CPU.
    """

    def __init__(
        self, camera: CameraModel, width: int, height: int, device: torch.device | str = 'cpu',
    ) -> None:
        """
        Make the map for rectified images [height, width] that show what the camera's would.

        They are as large as the raw ones or smaller; the map's time and memory, 8 bytes a pixel,
        are theirs alone.
        """
        sampled = camera.for_images(width, height)
        scale = np.array((camera.width / width, camera.height / height))
        corner = np.array((camera.width - 1, camera.height - 1))
        sources = np.empty((height, width, 2), np.float32)
        inside = np.empty((height, width), bool)
        for top, places in sampled.rectification_rows():
            rows = slice(top, top + len(places))
            inside[rows] = sampled.is_inside(places)
            # The outermost half pixel lies beyond the centres: there the border's value goes on.
            sources[rows] = ((places + 0.5) * scale - 0.5).clip(0, corner)
        sources[~inside] = _OUTSIDE
        self.inside = torch.from_numpy(inside)
        self._maps: tuple[np.ndarray, np.ndarray] | None = None   # for OpenCV
        if torch.device(device).type == 'cpu' and max(camera.width, camera.height) < _OPENCV_SIDE:
            # Fixed-point maps: half the time of floating ones.
            self._maps = cv2.convertMaps(sources[..., 0], sources[..., 1], cv2.CV_16SC2)
        else:   # grid_sample's coordinates, where the image spans -1..1
            grid = torch.from_numpy(sources * (2 / corner.clip(1)) - 1)
            grid[~self.inside] = _OUTSIDE
            self._grid = grid.float()[None].to(device)

    @torch.inference_mode()
    def __call__(self, image: Tensor) -> Tensor:
        """Return a raw image, uint8 [H, W, 3], rectified: bilinear, black outside."""
        if self._maps is not None:
            return torch.from_numpy(cv2.remap(image.numpy(), *self._maps, cv2.INTER_LINEAR))
        planes = image.permute(2, 0, 1)[None].float()
        planes = grid_sample(planes, self._grid, mode='bilinear', padding_mode='zeros',
                             align_corners=True)
        return planes[0].round_().byte().permute(1, 2, 0)


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
        """Make the map: of a camera's own size, or of MAX_SAMPLES a pixel of the model image."""
        matrix = resize.model_from_source() @ torch.from_numpy(camera.rectified_matrix)
        self.intrinsics = matrix.to(device, torch.float32)
        self.valid: Tensor | None = None
        self._device = torch.device(device)
        self._rectify: Rectification | None = None  # None: it is a pinhole camera's as it is
        self._resize = resize
        if camera.needs_rectification:
            width = min(camera.width, MAX_SAMPLES * resize.width)
            height = round(camera.height * width / camera.width)
            self._resize = replace(resize, source_height=height, source_width=width)
            self._rectify = Rectification(camera, width, height, device)
            mask = (self._rectify.inside.to(device).byte() * 255)[..., None].expand(-1, -1, 3)
            valid = self._resize(mask)[..., 0] >= _VALID
            self.valid = None if valid.all() else valid

    def model_image(self, frame: Tensor) -> Tensor:
        """Return the model image, uint8 on the device, of a raw frame, uint8 [H, W, 3]."""
        if self._rectify is None:
            return self._resize(frame.to(self._device, copy=True))
        return self._resize(self._rectify(frame.to(self._device)))


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
