"""How much memory a network and its stream will take, told before anything is allocated."""

from dataclasses import dataclass

import torch

from xsvggt_ros.engine.config import EngineConfig
from xsvggt_ros.engine.stream_caches import META, StreamCaches, token_budget
from xsvggt_ros.images.preprocess import Resize
from xsvggt_ros.kernels import onednn
from xsvggt_ros.model.network import StreamNetwork
from xsvggt_ros.model.weight_quantization import weight_bytes

# Numbers that are there at once for each pixel of a map, beside one for each feature of a dense
# head, and how often; for each channel of a token; and bytes that libraries take and memory that
# is scattered, whatever the network. More than was measured.
PER_PIXEL, AT_ONCE, PER_CHANNEL, LIBRARIES = 80, 1.5, 24, 384 << 20
SCATTERED = 1.1  # of weights while they are read: one block of floats, and holes between them


@dataclass(frozen=True)
class MemoryNeed:
    """
    Bytes on the device, beside what the process has before.

    working: at most, while a frame is in the network.
    """

    weights: int
    caches: int
    working: int

    @property
    def peak(self) -> int:
        """Return the most there will be."""
        return LIBRARIES + max(
            int(SCATTERED * self.weights), self.weights + self.caches + self.working)


def memory_need(
    network: StreamNetwork, config: EngineConfig, height: int, width: int,
) -> MemoryNeed:
    """
    Return what a network takes for frames of a size, each with what `StreamEngine` does.

    network: on the device 'meta', which gets the precision of ``config``. Raises BudgetError and
    ValueError as the engine would.
    """
    config.check(network.patch_size)
    network.set_dtype(config.dtype, config.head_dtype)
    network.join_first_frames(config.first_frames)
    resize = Resize.plan(height, width, config.image_size, network.patch_size)
    layout = network.cache_layout(resize.height, resize.width)
    caches = StreamCaches.build(config, layout, token_budget(config, layout), META)
    tokens = layout.tokens.tokens_per_step
    slots = (caches.tokens.budget or 0) + 2 * tokens
    dim, heads = network.config.embed_dim, network.config.num_heads
    maps = resize.height * resize.width * (network.config.dpt_head.features + PER_PIXEL)
    together = tokens * config.first_frames
    working = int(AT_ONCE * maps) * config.head_dtype.itemsize + 4 * together * dim * PER_CHANNEL
    working += 2 * 4 * slots * dim  # keys and values of a layer, unpacked
    if torch.device(config.device).type == 'cpu':
        # Scores, of one frame with all that is remembered, or of first frames with each other.
        working += max((4 * heads * own * seen for own, seen in (
            (tokens, slots), (together, together)) if own < onednn.FUSED_QUERIES), default=0)
    return MemoryNeed(weight_bytes(network), caches.bytes_reserved, working)
