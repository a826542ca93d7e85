"""What an engine is built with, all choices made."""

from dataclasses import dataclass, field

import torch

from xsvggt_ros.kernels.availability import CHOICES
from xsvggt_ros.kv_cache.config import CacheConfig
from xsvggt_ros.model.error_table import ErrorTable


@dataclass(frozen=True)
class EngineConfig:
    """
    Settings of a `StreamEngine`; `engine.factory` makes them of what people choose.

    cache: of both caches. device: where the network runs. dtype, head_dtype: precision of the
        network, and of the heads that predict from its tokens.
    image_size: width of the model image in pixels, a multiple of the patch size; None uses frames
        as they are, which then must have sides that are multiples of it.
    tracking_size: width at which the network sees frames that are not to be remembered, a multiple
        of the patch size; their maps are brought to the size of the others. None, or the stream's
        width: as the others.
    kernels: one of `kernels.availability.CHOICES`.
    depth_errors: what the network's confidences mean; None if that was not measured.
    first_frames: how many frames a stream begins with together, see `engine.first_frames`; only
        some networks can have more than one.
    """

    cache: CacheConfig = field(default_factory=CacheConfig)
    device: torch.device | str = 'cpu'
    dtype: torch.dtype = torch.float32
    head_dtype: torch.dtype = torch.float32
    image_size: int | None = None
    tracking_size: int | None = None
    kernels: str = 'portable'
    depth_errors: ErrorTable | None = None
    first_frames: int = 1

    def __post_init__(self) -> None:
        """Check what can be checked without a network."""
        if self.kernels not in CHOICES:
            raise ValueError(
                f"kernels must be one of {', '.join(CHOICES)}; got '{self.kernels}'")
        if self.first_frames < 1:
            raise ValueError(f'first_frames must be at least 1, got {self.first_frames}')

    def check(self, patch_size: int) -> None:
        """Raise ValueError unless both widths suit a network with patches of so many pixels."""
        for name, width in (('image_size', self.image_size),
                            ('tracking_size', self.tracking_size)):
            if width is not None and (width < 1 or width % patch_size):
                raise ValueError(
                    f'{name} must be a multiple of the patch size {patch_size}, for '
                    f'example {max(1, round(width / patch_size)) * patch_size}; '
                    f'got {width}')
        if (self.image_size is not None and self.tracking_size is not None
                and self.tracking_size > self.image_size):
            raise ValueError(f'tracking_size must not be above image_size, {self.image_size}; '
                             f'got {self.tracking_size}')

    def is_keyframe(self, number: int, stride: int, cameras: int = 1) -> bool:
        """
        Return whether frame ``number`` of a stream is to be remembered, if every n-th one is.

        Those that begin it are, and they count as one; cameras: of a rig, whose images count as
        one, too.
        """
        together = self.first_frames if self.first_frames > 1 else 0
        return number < together or (number - together) // cameras % stride == 0
