"""From a frame of the caller to the image that the network sees."""

import numpy as np
import torch
from torch import Tensor

from xsvggt_ros.engine.config import EngineConfig
from xsvggt_ros.engine.errors import FrameError
from xsvggt_ros.geometry.camera_model import CameraModel
from xsvggt_ros.images.preprocess import Resize
from xsvggt_ros.images.rectify import CameraView

MAX_VIEWS = 8  # cameras of which the maps are kept
MAX_HEIGHT_OVER_WIDTH = 20  # of a frame: it is scaled to the width before it is cut


def plan_resize(config: EngineConfig, height: int, width: int, patch_size: int) -> Resize:
    """Return how frames of this size are resized; raise FrameError if they do not suit."""
    if height > MAX_HEIGHT_OVER_WIDTH * width:
        raise FrameError(
            f'the frame is {width}x{height}; more than {MAX_HEIGHT_OVER_WIDTH} times as high '
            'as wide is no camera image')
    resize = Resize.plan(height, width, config.image_size, patch_size)
    if resize.height % patch_size or resize.width % patch_size:
        raise FrameError(
            f'the frame is {resize.width}x{resize.height}, but without image_size both sides '
            f'must be multiples of the patch size {patch_size}')
    return resize


class FrameInput:
    """How the frames of a stream, all of one size, become images of the network."""

    def __init__(self, config: EngineConfig, height: int, width: int, resize: Resize,
                 patch_size: int) -> None:
        """Take the size of the frames, and what `plan_resize` says of it."""
        self.height, self.width = height, width
        self.resize = resize
        self.shrink: Resize | None = None  # of images that are not remembered
        if config.tracking_size is not None and config.tracking_size < resize.width:
            self.shrink = resize.smaller(config.tracking_size, patch_size)
        self._device = torch.device(config.device)
        self._views: dict[CameraModel, CameraView] = {}

    @property
    def model_size(self) -> str:
        """Return the size of the network's image in words."""
        return f'{self.resize.width}x{self.resize.height}'

    def view(self, camera: CameraModel | None) -> CameraView | None:
        """Return how a camera's images are rectified; raise FrameError for one of another size."""
        if camera is None:
            return None
        if (camera.height, camera.width) != (self.height, self.width):
            raise FrameError(
                f'the calibration is for images of {camera.width}x{camera.height}, but the frame '
                f'is {self.width}x{self.height}')
        if camera not in self._views:
            if len(self._views) == MAX_VIEWS:
                del self._views[next(iter(self._views))]
            self._views[camera] = CameraView(camera, self.resize, self._device)
        return self._views[camera]

    def image(self, frame: Tensor, view: CameraView | None) -> Tensor:
        """Return the network's image, uint8 [H, W, 3] on the device, in memory of its own."""
        if view is None:
            return self.resize(frame.to(self._device, copy=True))
        return view.model_image(frame)


def as_tensor(frame: np.ndarray | Tensor) -> Tensor:
    """Return a frame, uint8 [H, W, 3]; raise FrameError for anything else."""
    if isinstance(frame, np.ndarray):
        if frame.dtype != np.uint8:
            raise FrameError(f'a frame must be uint8, got {frame.dtype}')
        # PyTorch warns of memory that may not be written, as that of Pillow's pictures.
        frame = torch.from_numpy(np.require(frame, requirements=('C', 'W')))
    if frame.dtype != torch.uint8:
        raise FrameError(f'a frame must be uint8, got {frame.dtype}')
    if frame.ndim != 3 or frame.shape[2] != 3 or 0 in frame.shape:
        raise FrameError(f'a frame must be [height, width, 3], got {list(frame.shape)}')
    return frame
