"""Sizes of LingBot-Map, and what its weights do not tell."""

from dataclasses import dataclass

from xsvggt_ros.model.config import ModelConfig

TIME_CHANNELS, ROW_CHANNELS, COLUMN_CHANNELS = 20, 22, 22  # of an attention head
MAX_KEYFRAMES, TRAINED_KEYFRAMES = 1024, 320  # positions in time: there are, and training had


@dataclass(frozen=True)
class LingBotConfig(ModelConfig):
    """
    Everything that decides which LingBot-Map is to be built.

    time_rope: the global blocks know when a frame was seen, as in all published use; False: they
    have the positions of the frame blocks.
    """

    time_rope: bool = True

    def __post_init__(self) -> None:
        """Check the values."""
        super().__post_init__()
        channels = TIME_CHANNELS + ROW_CHANNELS + COLUMN_CHANNELS
        if self.time_rope and self.head_dim != channels:
            raise ValueError(
                f'model config: the attention heads of LingBot-Map have {channels} channels, got '
                f'embed_dim {self.embed_dim} / num_heads {self.num_heads} = {self.head_dim}')

    @property
    def special_tokens(self) -> int:
        """Return the number of a frame's tokens that are no patches: camera, registers, scale."""
        return super().special_tokens + 1
