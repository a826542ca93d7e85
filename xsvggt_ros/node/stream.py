"""A stream from its first image to its reset: what it has built, and how errors are undone."""

from collections.abc import Iterator
from contextlib import contextmanager

from rclpy.impl.rcutils_logger import RcutilsLogger

from xsvggt_ros.engine.frame_result import ResultError
from xsvggt_ros.engine.stream_engine import FrameError, StreamEngine
from xsvggt_ros.node.deadline import Deadline
from xsvggt_ros.node.inputs.stream_clock import StreamClock
from xsvggt_ros.node.metric_scale import MetricScale
from xsvggt_ros.node.opening import Opening
from xsvggt_ros.node.outputs.publishing import Publishing
from xsvggt_ros.node.outputs.stream_outputs import StreamOutputs
from xsvggt_ros.node.rate_limit import RateLimit
from xsvggt_ros.node.settings import ResetSettings
from xsvggt_ros.node.status.fault_log import FaultLog
from xsvggt_ros.node.status.stream_statistics import StreamStatistics
from xsvggt_ros.node.stream_trajectory import StreamTrajectory


class Stream:
    """
    What has to be forgotten together when a stream ends, and set right after an error.

    All is called by the worker's thread, or by the executor's while there is no worker. The
    publishing thread has `outputs` while an image is being published: whoever changes anything
    here waits for that first (`publishing.join`).
    """

    def __init__(
        self, engine: StreamEngine, deadline: Deadline, scale: MetricScale,
        outputs: StreamOutputs, trajectory: StreamTrajectory, statistics: StreamStatistics,
        faults: FaultLog, logger: RcutilsLogger, opening: Opening,
    ) -> None:
        """Take over the parts; `begin` prepares them."""
        self.engine = engine
        self.deadline = deadline
        self.scale = scale
        self.trajectory = trajectory
        self.opening = opening
        self.clock = StreamClock()
        self.cloud_rate = RateLimit()
        self.publishing = Publishing(overlaps=False)
        self.failures = 0  # images in a row that could not be reconstructed
        self._outputs = outputs
        self._statistics = statistics
        self._faults = faults
        self._logger = logger
        self._is_broken = False  # whether the worker failed while it processed an image
        self._is_half_forgotten = False  # whether a reset failed before it was complete

    def begin(self, overlaps: bool) -> None:
        """Begin a new stream with all counters at zero; overlaps: publish in a thread."""
        self._is_broken = False
        self._faults.clear('camera_info')  # until an image shows that it is still there
        self.opening.forget()
        self._statistics.begin()
        self.deadline.begin()
        self.engine.limit_tokens(None)
        self.engine.reset()
        self._forget()
        self._outputs.begin()
        self.publishing = Publishing(overlaps)

    def reset(self, reason: str) -> None:
        """Forget the stream; the next image begins a new one where the camera was last."""
        self.publishing.join()
        try:
            self.engine.reset()
        finally:
            if self.engine.frames == 0:  # even if it failed, the stream is gone
                self._end(reason)

    def restart(self, reason: str) -> None:
        """Do so because of an image, which begins the new one."""
        self.reset(reason)
        self._logger.warning(f'stream reset: {reason}; this image begins a new one')

    def on_failure(self, error: Exception, settings: ResetSettings) -> None:
        """Reset the stream if the error of an image, or so many in a row, are a reason."""
        if isinstance(error, ResultError) and error.lost and settings.on_lost:
            reason = f'tracking is lost: {error}'
        elif settings.on_failures and self.failures >= settings.on_failures:
            reason = (f'{settings.on_failures} images in a row could not be reconstructed; the '
                      f'last error: {error}')
        else:
            return
        self.reset(reason)
        self._report_reset()

    @contextmanager
    def counting_failures(self) -> Iterator[None]:
        """Count an image that fails here; have the error of a refused one name what to do."""
        try:
            yield
        except FrameError as error:
            raise FrameError(f'{error}, with the service ~/reset') from error
        except Exception:
            self.failures += 1
            raise

    def mark_broken(self) -> None:
        """Have `repair` undo what the image in work has left half-done."""
        self._is_broken = True

    def repair(self) -> None:
        """Set right what an error has left half-done; the stream is kept if that is possible."""
        if self._is_broken:
            self.undo_frame()
            self._is_broken = False
        if self._is_half_forgotten:
            self._forget()

    def undo_frame(self) -> None:
        """Have the engine forget images that will not be published."""
        self.publishing.join()
        try:
            self.engine.discard_frame()
        finally:
            if self.engine.frames == 0 and self._statistics.report is not None:
                self._end('an image that failed could not be undone')
                self._report_reset()

    def _report_reset(self) -> None:
        self._faults.report(
            'reset', f'stream reset: {self._statistics.last_reset}; the next image begins a new '
            'one', key='reset')

    def _end(self, reason: str) -> None:
        """Count the end of a stream that the engine has forgotten, and forget the rest."""
        self._statistics.last_reset = reason
        self._statistics.resets += 1
        self._forget()

    def _forget(self) -> None:
        self._is_half_forgotten = True
        self.failures = 0
        self.opening.forget()
        self.clock.forget()
        self.cloud_rate.forget()
        self.scale.forget()
        self.trajectory.forget()
        self.deadline.forget()
        self._outputs.forget()
        for kind in ('image', 'frame'):
            self._faults.clear(kind)
        self._is_half_forgotten = False
