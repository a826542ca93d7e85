"""What a stream is between two frames, to save it and to go on with it in another process."""

from dataclasses import dataclass

from xsvggt_ros.engine.stream_caches import StreamCaches
from xsvggt_ros.engine.stream_engine import StreamEngine


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

    @staticmethod
    def capture(engine: StreamEngine, frames: int) -> 'StreamState | None':
        """
        Commit or undo what is unfinished and return the state after so many frames.

        None if there is none: before the first frame, and where an interrupt has taken more along.
        """
        if engine._unfinished and engine.frames == frames:
            engine.finish_frame()
        else:
            engine.discard_frame()
        known = engine._input
        if known is None or not frames or engine.frames != frames:
            return None
        return StreamState((known.height, known.width), engine.caches, frames, engine._remember)

    def restore(self, engine: StreamEngine) -> None:
        """
        Let an engine with the same network and settings go on; it takes over the caches.

        Raises ValueError if they are not for this network, FrameError for the size.
        """
        engine.prepare(*self.size)
        for own, there in ((engine.caches.tokens, self.caches.tokens),
                           (engine.caches.camera, self.caches.camera)):
            if own.layout != there.layout:
                raise ValueError('the caches are of another network or image size')
        engine._caches = self.caches
        if engine._graphs is not None:
            engine._steady = engine._watch(self.caches, engine._graphs)
        engine._frames, engine._remember = self.frames, self.remember
        engine._begun = engine._unfinished = False
