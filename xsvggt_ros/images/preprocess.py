"""From a camera's image to the network's input size."""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import interpolate


@dataclass(frozen=True)
class Resize:
    """
    How source images of one size become model images: scale, then cut the rows' middle out.

    The public checkpoints were trained on images ``image_size`` wide, with a height that keeps
    the aspect ratio, rounded to whole patches, and never more than ``image_size`` rows.
    """

    source_height: int
    source_width: int
    scaled_height: int
    height: int  # of the model image
    width: int

    @classmethod
    def plan(
        cls, source_height: int, source_width: int, image_size: int | None, patch_size: int,
    ) -> 'Resize':
        """Choose the model's image size for a source; image_size None takes the source as is."""
        if image_size is None:
            return cls(source_height, source_width, source_height, source_height, source_width)
        # The factor first, as the public preprocessing does: of sizes that are half-way between
        # two rows of patches, such as 222 x 435, some are rounded otherwise.
        factor = image_size / source_width
        scaled = round(source_height * factor / patch_size) * patch_size
        scaled = max(scaled, patch_size)
        return cls(source_height, source_width, scaled, min(scaled, image_size), image_size)

    def smaller(self, width: int, patch_size: int) -> 'Resize':
        """Choose a smaller size for this one's model images, of which nothing is cut off."""
        height = max(1, round(self.height * width / self.width / patch_size)) * patch_size
        return Resize(self.height, self.width, height, height, width)

    @property
    def crop_top(self) -> int:
        """Return how many rows of the scaled image are cut off above."""
        return (self.scaled_height - self.height) // 2

    def model_from_source(self) -> Tensor:
        """
        Return the map from source pixel coordinates to model pixel coordinates, [3, 3].

        Multiplied from the left to source intrinsics it gives the model image's. Pixel
        coordinates are integers at pixel centres, so scaling is about the corner at -0.5.
        """
        sx = self.width / self.source_width
        sy = self.scaled_height / self.source_height
        return torch.tensor((
            (sx, 0.0, 0.5 * sx - 0.5),
            (0.0, sy, 0.5 * sy - 0.5 - self.crop_top),
            (0.0, 0.0, 1.0),
        ), dtype=torch.float64)

    def __call__(self, frame: Tensor) -> Tensor:
        """
        Return the model image, uint8 [height, width, 3], of a source frame of the same type.

        Bicubic with antialiasing, first along rows, then along columns, rounded to 8 bits after
        each, as PIL resizes.
        """
        scaled = frame
        if (self.scaled_height, self.width) != tuple(frame.shape[:2]):
            planes = frame.permute(2, 0, 1)[None].float()
            for size in ((self.source_height, self.width), (self.scaled_height, self.width)):
                planes = interpolate(planes, size, mode='bicubic', antialias=True)
                planes = planes.round_().clamp_(0, 255)
            scaled = planes[0].byte().permute(1, 2, 0)
        return scaled[self.crop_top:self.crop_top + self.height]


def to_network_input(image: Tensor) -> Tensor:
    """Return float [3, H, W] in [0, 1] of a uint8 image [H, W, 3]."""
    return image.permute(2, 0, 1).float().div_(255)
