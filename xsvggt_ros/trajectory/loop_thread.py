"""The thread that closes loops while frames go on."""

from collections.abc import Callable

from xsvggt_ros.trajectory.background import Background
from xsvggt_ros.trajectory.loop_closer import LoopCloser
from xsvggt_ros.trajectory.places import Snapshot

_BEHIND = 3     # snapshots that wait from which no loops are looked for


class LoopThread(Background[Snapshot]):
    """
    Gives a loop closer one snapshot after the other.

    What the closer publishes, its `corrections`, `report` and `keyframes`, may be read by any
    thread. Every snapshot is taken; when they come too fast, fewer of them are searched for loops.
    """

    def __init__(self, closer: LoopCloser, on_error: Callable[[Exception], None]) -> None:
        """Start it. on_error: gets what goes wrong with a snapshot, in the thread."""
        self._closer = closer
        super().__init__('xsvggt_loops', self._add, on_error)

    def _add(self, snapshot: Snapshot) -> None:
        self._closer.add(snapshot, search=self.pending <= _BEHIND)
