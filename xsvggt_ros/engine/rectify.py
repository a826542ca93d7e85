"""From a lens's image to a pinhole camera's: a map that is made once, applied to every frame."""

import torch
from torch import Tensor
from torch.nn.functional import grid_sample

from xsvggt_ros.engine.camera_model import CameraModel
from xsvggt_ros.engine.preprocess import Resize

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


def _sampling(camera: CameraModel) -> tuple[Tensor, Tensor]:
    """Return grid_sample's grid, fp32 [1, H, W, 2], and which pixels are seen, bool [H, W]."""
    corner = torch.tensor((camera.width - 1, camera.height - 1), dtype=torch.float64)
    sources = camera.rectification_map()
    inside = torch.from_numpy(camera.is_inside(sources))
    # The outermost half pixel lies beyond the centres: there the border pixel's value goes on.
    source = torch.from_numpy(sources).nan_to_num().clamp(torch.zeros_like(corner), corner)
    grid = torch.where(inside[..., None], 2 * source / corner.clamp_min(1) - 1, _OUTSIDE)
    return grid.float()[None], inside
