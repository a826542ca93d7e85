"""What a stream is between two frames, to save it and to go on with it in another process."""

from dataclasses import dataclass

from xsvggt_ros.engine.stream_caches import StreamCaches


@dataclass(frozen=True)
class StreamState:
    """
    A stream after some frames; the tensors are the engine's own, not copies.

    size: (height, width) of the source. remember: whether the last frame is attended to.
    """

    size: tuple[int, int]
    caches: StreamCaches
    frames: int
    remember: bool
