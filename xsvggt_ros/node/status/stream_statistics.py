"""What the node counts: images, rates and latencies."""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
import threading
import time

import numpy as np
from std_msgs.msg import Header

from xsvggt_ros.engine.stream_engine import CacheStats
from xsvggt_ros.mapping.scale import Scale
from xsvggt_ros.node.tracked_pose import Localization, OdometryCorrection, TrackedPose

PERCENTILES = (50, 95, 99)
LATENCIES = 200  # frames over which latency statistics are taken
_OVERDUE = 2.0   # times the time from an event to the next, after which slow ones have stopped


def percentiles(latencies: Sequence[float]) -> tuple[float, float, float]:
    """Return the seconds that 50, 95 and 99 % of the latencies do not exceed; zeros for none."""
    if not latencies:
        return 0.0, 0.0, 0.0
    median, p95, p99 = np.percentile(np.array(latencies), PERCENTILES).tolist()
    return median, p95, p99


class Ticket:
    """The images of one set: the first to know their outcome counts them, and nobody else."""

    def __init__(self, images: int) -> None:
        """Take how many there are."""
        self._images = images
        self._lock = threading.Lock()

    def take(self) -> int:
        """Return how many images are to be counted; 0 if somebody has counted them."""
        with self._lock:
            images, self._images = self._images, 0
        return images


class RateMeter:
    """Events a second over the last seconds."""

    def __init__(self, window: float = 5.0) -> None:
        """Look back ``window`` seconds."""
        self._window = window
        self._events: deque[tuple[float, int]] = deque(maxlen=1000)   # when, and how many

    def tick(self, count: int = 1) -> None:
        """Count an event now, or so many at once."""
        self._events.append((time.monotonic(), count))

    def rate(self) -> float:
        """Return events a second; 0 if they have stopped, or the first has no second one yet."""
        now, events = time.monotonic(), list(self._events)
        recent = [event for event in events if now - event[0] <= self._window]
        if len(recent) < 2:
            recent = events[-2:]   # of slow ones the window has one or none
            if len(recent) < 2 or now - recent[1][0] > _OVERDUE * (recent[1][0] - recent[0][0]):
                return 0.0
        first, last = recent[0][0], recent[-1][0]
        # A stream that has stopped must not keep the rate it had: count the silence too.
        return sum(count for _, count in recent[1:]) / max(last - first, (now - first) * 0.5)

    def age(self) -> float | None:
        """Return the seconds since the last event; None if there was none."""
        return time.monotonic() - self._events[-1][0] if self._events else None


@dataclass(frozen=True)
class Latency:
    """Seconds that the parts of a frame took."""

    total: float
    decode: float
    upload: float
    inference: float
    pack: float
    publish: float

    def shares(self) -> dict[str, float]:
        """Return what share of the total each part had, 0..1; the rest of it was waiting."""
        parts = {name: seconds / self.total for name, seconds in vars(self).items()
                 if name != 'total'}
        return {'waiting': max(0.0, 1 - sum(parts.values()))} | parts


@dataclass(frozen=True)
class FrameReport:
    """What is worth telling of the last processed frame."""

    latency: Latency
    cache: CacheStats
    confidence_mean: float
    depth_error: float   # to be expected, relative, median; 0: not known
    points: int
    predicted_fx: float  # pixels of the source image
    predicted_fy: float
    tracked: TrackedPose | None = None  # how the pose came about; None: it is the network's own
    cloud_fault: str = ''  # why the cloud has next to no points
    correction: OdometryCorrection | None = None  # of the odometry of the robot's own

    @property
    def localization(self) -> Localization | None:
        """Return what is known of where the stream is in a saved map; None without one."""
        loops = None if self.tracked is None else self.tracked.loops
        return None if loops is None else loops.localization

    @property
    def map_metres(self) -> float | None:
        """Return the metres of a unit by the saved map the stream is in; None: not known."""
        loops = None if self.tracked is None else self.tracked.loops
        return None if loops is None else loops.map_metres


def metres_of(scale: Scale | None, report: FrameReport | None) -> float | None:
    """Return the metres of the network's unit; None: lengths are in that unit."""
    if scale is not None:
        return scale.metres
    return None if report is None else report.map_metres


class StreamStatistics:
    """
    What became of the images since activation, and how the stream is doing.

    Each number is written by the one thread that knows it, rejected images by two; all may read.
    """

    def __init__(self) -> None:
        """Begin with all counters at zero."""
        self._lock = threading.Lock()
        self.out_meter = RateMeter()
        self.latencies: deque[float] = deque(maxlen=LATENCIES)  # seconds
        self.odometry_latencies: deque[float] = deque(maxlen=LATENCIES)  # until it was published
        self.last_header = Header()
        self.image_description = ''  # of the newest image
        self.begin()
        self.forget_stream()

    def begin(self) -> None:
        """Count from zero: the node is being activated."""
        self.processed = 0  # images published
        self.rejected = 0
        self.late = 0  # images skipped for deadline_ms
        self.unused = 0  # collected for the beginning of a stream that was reset before
        self.resets = 0
        self.last_reset = ''  # why

    def forget_stream(self) -> None:
        """Forget the newest frame: a new stream begins."""
        self.report: FrameReport | None = None
        self.latencies.clear()
        self.odometry_latencies.clear()

    def reject(self, ticket: Ticket) -> int:
        """Count the images of a set as rejected unless somebody has counted them; return them."""
        images = ticket.take()
        with self._lock:
            self.rejected += images
        return images
