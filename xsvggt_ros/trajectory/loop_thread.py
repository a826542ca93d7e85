"""The thread that closes loops while frames go on."""

from collections.abc import Callable

from xsvggt_ros.trajectory.background import Background
from xsvggt_ros.trajectory.keyframe import Snapshot
from xsvggt_ros.trajectory.localizer import Localizer
from xsvggt_ros.trajectory.loop_closer import LoopCloser

_BEHIND = 3     # snapshots that wait from which no loops are looked for


class LoopThread(Background[Snapshot]):
    """
    Gives a loop closer one snapshot after the other.

    What the closer publishes, its `corrections`, `report` and `keyframes`, may be read by any
    thread. Every snapshot is taken; when they come too fast, fewer of them are searched for loops,
    and looked for in a saved map.
    """

    def __init__(self, closer: LoopCloser, on_error: Callable[[Exception], None],
                 localizer: Localizer | None = None) -> None:
        """
        Start it.

        on_error: gets what goes wrong with a snapshot, in the thread. localizer: of a saved map.
        """
        self._closer, self._localizer = closer, localizer
        super().__init__('xsvggt_loops', self._add, on_error)

    def _add(self, snapshot: Snapshot) -> None:
        in_time = self.pending <= _BEHIND
        self._closer.add(snapshot, search=in_time)
        if self._localizer is not None and in_time:
            self._localizer.add(snapshot, self._closer)
