"""What LingBot-Map's attention stacks hand to the caches of a stream."""

from torch import Tensor

from xsvggt_ros.kernels.attention import attention
from xsvggt_ros.model.camera_head import AttentionMemory


class FirstCall:
    """
    The attention of frames that all see each other, at the beginning of a stream.

    Nothing is remembered yet, so that they attend to themselves; `store` has a memory remember
    them afterwards, frame by frame.
    """

    def __init__(self) -> None:
        """Begin with nothing."""
        self._layers: dict[int, tuple[Tensor, Tensor, Tensor]] = {}

    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """Return attention of all tokens [heads, S * tokens, head_dim] to all, and note them."""
        self._layers[layer] = query, key, value
        return attention(query, key, value)

    def end_step(self) -> None:
        """Do nothing: `store` ends the steps."""

    def store(self, memory: AttentionMemory, frames: int, open_end: bool) -> None:
        """
        Have an empty memory remember what was attended to as ``frames`` steps.

        open_end: leave the end of the last one to the caller.
        """
        for frame in range(frames):
            for layer, parts in self._layers.items():
                tokens = parts[0].shape[1] // frames
                own = slice(frame * tokens, (frame + 1) * tokens)
                memory.attend(layer, *(part[:, own] for part in parts))
            if frame < frames - 1 or not open_end:
                memory.end_step()


class PerIteration:
    """
    A memory of the camera head in which each iteration sees only the same one of other frames.

    One step of the memory below is a frame, whose layers are those of the trunk for each iteration
    in turn. Made anew for each frame.
    """

    def __init__(self, memory: AttentionMemory, trunk_depth: int, iterations: int) -> None:
        """Take a memory with trunk_depth * iterations layers."""
        self._memory = memory
        self._depth = trunk_depth
        self._iterations = iterations
        self._iteration = 0

    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """Attend in this iteration's part of the memory; see `AttentionMemory.attend`."""
        return self._memory.attend(self._iteration * self._depth + layer, query, key, value)

    def end_step(self) -> None:
        """End an iteration, and with the last one the frame."""
        self._iteration += 1
        if self._iteration == self._iterations:
            self._memory.end_step()
