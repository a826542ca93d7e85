"""How far a stream is, and which of its frames can still be undone."""

from collections.abc import Sequence

from torch import Tensor

from xsvggt_ros.engine.stream_caches import StreamCaches


class StreamProgress:
    """Counts a stream's frames, and takes back in its caches those that are not committed yet."""

    def __init__(self) -> None:
        """Begin before the first frame."""
        self.frames = 0
        self.remembered = True   # the last frame
        self.can_undo = False    # whether there are frames that are not committed
        self.stored: list[Tensor] = []   # of these: `KVCache.written`
        self.unfinished = False   # the last of them: its step is not ended
        self._before = 0, True   # them: frames, and whether the last one was remembered

    def restart(self, frames: int = 0, remembered: bool = True) -> None:
        """Be where so many frames are committed; remembered: whether the last one is."""
        self.frames, self.remembered = frames, remembered
        self.can_undo = self.unfinished = False
        self.stored.clear()

    def mark(self, caches: StreamCaches) -> None:
        """Have what follows be undone by `undo`."""
        caches.tokens.mark()
        caches.camera.mark()
        self._before = self.frames, self.remembered
        self.can_undo = True

    def add(self, caches: StreamCaches, frames: int, remember: bool,
            stored: Sequence[Tensor] = ()) -> None:
        """Count frames that the caches have had, beside `stored` of all but the last one."""
        self.frames += frames
        self.remembered = remember
        self.unfinished = True
        self.stored += [*stored, *caches.camera.written()]
        if remember:
            self.stored += caches.tokens.written()

    def end_step(self, caches: StreamCaches, more: bool = False) -> None:
        """Commit the last frame to the token cache, if it is to be; more: `KVCache.end_step`."""
        if self.unfinished and self.remembered:
            caches.tokens.end_step(more)
        self.unfinished = False

    def keep(self, caches: StreamCaches) -> None:
        """Have nothing be undone any more."""
        caches.tokens.keep()
        caches.camera.keep()
        self.can_undo = False
        self.stored.clear()

    def undo(self, caches: StreamCaches) -> None:
        """Be where `mark` was; if that fails, nothing is known of the caches any more."""
        self.can_undo = self.unfinished = False
        self.stored.clear()
        caches.camera.rewind()
        caches.tokens.rewind()
        self.frames, self.remembered = self._before
