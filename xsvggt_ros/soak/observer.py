"""Hears all that the node publishes and checks every message of it."""

from collections import Counter, deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
import threading
import time
from typing import Any

from diagnostic_msgs.msg import DiagnosticArray
from geometry_msgs.msg import PoseStamped
from nav_msgs.msg import Odometry, Path
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, HistoryPolicy, QoSProfile, ReliabilityPolicy
from rclpy.serialization import deserialize_message
from sensor_msgs.msg import CameraInfo, Image, PointCloud2
from tf2_msgs.msg import TFMessage

from xsvggt_ros.demo.ros_messages import from_stamp
from xsvggt_ros.msg import CacheStatus, StreamStatus
from xsvggt_ros.soak import checks, names
from xsvggt_ros.soak.camera import SoakCamera

EVERY_PATH = 30   # messages of ~/path of which one is read: a thousand poses take long in Python
_MOST_FINDINGS = 1000
_NEWEST = 400     # messages remembered of a topic
_COUNTERS = ('frames_received', 'frames_processed', 'frames_dropped', 'frames_rejected',
             'frames_skipped', 'reset_count')


@dataclass(frozen=True)
class Finding:
    """Something that must not be."""

    kind: str  # 'non_finite' or 'lost'
    words: str


@dataclass(frozen=True)
class DiagnosticMessage:
    """A status of /diagnostics that is not OK."""

    task: str
    level: int
    message: str


class Observer:
    """Subscribes to everything; callbacks run in one thread, and others read."""

    def __init__(self, node: Node, camera: SoakCamera) -> None:
        """Subscribe."""
        self._camera = camera
        self._lock = threading.Lock()
        self.findings: list[Finding] = []
        self.counts: Counter[str] = Counter()  # messages by topic
        self.statuses: deque[tuple[float, StreamStatus]] = deque(maxlen=_NEWEST)
        self.poses: deque[tuple[float, int]] = deque(maxlen=_NEWEST)  # stamps of odometry
        self.said: dict[DiagnosticMessage, float] = {}  # when last
        self.tasks: dict[str, tuple[int, str, dict[str, str]]] = {}
        self.diagnostics_at = 0.0
        self.cache: CacheStatus | None = None
        self.latencies: list[float] = []  # of all images, in seconds, if `keeps_latencies`
        self.keeps_latencies = False
        self.posed = threading.Event()   # set by each odometry
        self.earlier: set[int] = set()   # stamps of earlier streams only
        self._current: set[int] = set()  # of this stream
        self._life = _Life()
        self._new_life_at: float | None = None
        self._map_watch = _MapWatch()
        self._paths = 0
        self._subscribe(node)

    def begin(self) -> None:
        """Forget what was said; at the beginning of a trial."""
        self.said.clear()

    def expect_restart(self) -> None:
        """
        Take counters and a map that begin at zero from the next image that is sent on.

        To be called while the node is not active; what is on its way belongs to its last life.
        """
        self._new_life_at = time.monotonic()
        self._map_watch.may_begin_anew = True

    @property
    def status(self) -> StreamStatus:
        """Return the newest status; the node has been tracking."""
        return self.statuses[-1][1]

    def state_since(self, moment: float, state: int) -> bool:
        """Return whether the node was in a state, by ~/status, after a moment."""
        return any(when > moment and status.state == state
                   for when, status in list(self.statuses))

    def recovered(self, moment: float) -> float | None:
        """
        Return when the node had, for an image sent after a moment, odometry and said TRACKING.

        None while that has not happened; all times are the steady clock's.
        """
        stamps = self._camera.sent_after(moment)
        pose = next((when for when, stamp in list(self.poses)
                     if when > moment and stamp in stamps), None)
        status = next(
            (when for when, message in list(self.statuses)
             if when > moment and message.state == StreamStatus.TRACKING
             and from_stamp(message.header.stamp) in stamps), None)
        return None if pose is None or status is None else max(pose, status)

    # Callbacks -----------------------------------------------------------------------------------

    def _subscribe(self, node: Node) -> None:
        for kind, topic, callback in (
                (StreamStatus, 'status', self._on_status),
                (CacheStatus, 'cache_status', self._on_cache),
                (Odometry, 'odometry', self._on_odometry),
                (PoseStamped, 'pose', lambda m: checks.pose_faults(m.pose)),
                (PointCloud2, 'points', checks.cloud_faults),
                (Image, 'depth/image_rect', lambda m: checks.map_image_faults(m, gaps=True)),
                (Image, 'confidence', lambda m: checks.map_image_faults(m, gaps=False)),
                (Image, 'rgb/image_rect_color', checks.colour_faults),
                (CameraInfo, 'depth/camera_info', checks.camera_info_faults),
                (CameraInfo, 'rgb/camera_info', checks.camera_info_faults)):
            node.create_subscription(
                kind, f'{names.NODE}/{topic}', self._checked(topic, callback), _reliable(50))
        node.create_subscription(
            PointCloud2, f'{names.NODE}/map_points',
            self._checked('map_points', checks.cloud_faults), _reliable(1, latched=True))
        node.create_subscription(
            Path, f'{names.NODE}/path', self._checked('path', self._on_path),
            _reliable(1, latched=True), raw=True)
        node.create_subscription(TFMessage, names.TF, self._checked('tf', self._on_tf),
                                 _reliable(100))
        node.create_subscription(DiagnosticArray, names.DIAGNOSTICS, self._on_diagnostics,
                                 _reliable(50))

    def _checked(self, topic: str, check: Callable[[Any], list[str]]) -> Callable[[Any], None]:
        def callback(message: Any) -> None:
            self.counts[topic] += 1
            for words in check(message):
                self.find('non_finite', f'{topic}: {words}')
        return callback

    def find(self, kind: str, words: str) -> None:
        """Remember something that must not be."""
        with self._lock:
            if len(self.findings) < _MOST_FINDINGS:
                self.findings.append(Finding(kind, words))

    def _on_status(self, message: StreamStatus) -> list[str]:
        sent = self._camera.sent.get(from_stamp(message.header.stamp), 0.0)
        if self._new_life_at is not None and sent > self._new_life_at:
            self._new_life_at, self._life = None, _Life()
        for words in self._life.follow(message):
            self.find('lost', words)
        if message.state == StreamStatus.TRACKING:
            if self.keeps_latencies:
                self.latencies.append(message.latency_total)
            self._follow_stream(from_stamp(message.header.stamp), self._life.begins(message))
        self.statuses.append((time.monotonic(), message))
        return checks.status_faults(message)

    def _follow_stream(self, stamp: int, begins: bool) -> None:
        with self._lock:
            if begins:
                self.earlier |= self._current
                self._current = set()
            self._current.add(stamp)
            self.earlier.discard(stamp)

    def stream_began(self) -> int:
        """Return the first stamp, in ns, of the stream that the node is at; 0 without one."""
        with self._lock:
            return min(self._current, default=0)

    def _on_cache(self, message: CacheStatus) -> list[str]:
        self.cache = message
        return checks.cache_faults(message)

    def _on_odometry(self, message: Odometry) -> list[str]:
        stamp = from_stamp(message.header.stamp)
        if stamp not in self._camera.sent:
            self.find('lost', f'odometry with a stamp that no image had: {stamp}')
        self.poses.append((time.monotonic(), stamp))
        self.posed.set()
        return checks.odometry_faults(message)

    def _on_path(self, content: bytes) -> list[str]:
        self._paths += 1
        if self._paths % EVERY_PATH:
            return []
        poses = deserialize_message(content, Path).poses
        return [words for pose in poses for words in checks.pose_faults(pose.pose)]

    def _on_tf(self, message: TFMessage) -> list[str]:
        return [words for edge in message.transforms
                if edge.header.frame_id in ('xsvggt_odom', 'map')
                for words in checks.transform_faults(edge)]

    def _on_diagnostics(self, message: DiagnosticArray) -> None:
        own = names.NODE.lstrip('/') + ': '
        for status in message.status:
            if not status.name.startswith(own):
                continue
            task, level = status.name.removeprefix(own), status.level[0]
            values = {pair.key: pair.value for pair in status.values}
            self.tasks[task] = level, status.message, values
            if level:
                self.said[DiagnosticMessage(task, level, status.message)] = time.monotonic()
            self.diagnostics_at = time.monotonic()
        self._follow_map()

    def _follow_map(self) -> None:
        values = self.tasks.get('Map', (0, '', {}))[2]
        if 'points' not in values:
            return  # there is none while the node is not configured
        resets = self.tasks['Tracking'][2].get('resets', '')
        words = self._map_watch.follow((resets, values['voxel size']), int(values['points']))
        if words:
            self.find('lost', words)


class _MapWatch:
    """Finds a map that lost points though no stream began anew."""

    def __init__(self) -> None:
        self.may_begin_anew = False
        self._stream: tuple[str, str] | None = None  # what changes when points may become fewer
        self._points = 0
        self._suspect = False

    def follow(self, stream: tuple[str, str], points: int) -> str:
        """Take the next count of a stream's map; return what is wrong, or nothing."""
        if stream != self._stream or points >= self._points:
            self._stream, self._points, self._suspect = stream, points, False
            return ''
        if self.may_begin_anew:
            self.may_begin_anew, self._points = False, points
            return ''
        if not self._suspect:  # diagnostics may have looked in the middle of a reset
            self._suspect = True
            return ''
        before, self._points = self._points, points
        return f'the map had {before} points and has {points}, in one stream'


class _Life:
    """The counters of one activation of the node, as its statuses tell them."""

    def __init__(self) -> None:
        self._newest: dict[str, int] = {}
        self._stream: int | None = None

    def follow(self, message: StreamStatus) -> list[str]:
        """Return what is wrong with the counters of the next status."""
        words = []
        missing = checks.uncounted(message)
        if not 0 <= missing <= checks.IN_WORK:
            words.append(f'counters: {missing} of {message.frames_received} images received '
                         'are neither processed, dropped, rejected nor skipped')
        if message.state != StreamStatus.TRACKING:
            return words  # made by another thread, it may come after newer ones
        values = {name: getattr(message, name) for name in _COUNTERS}
        words += [f'{name} went back from {self._newest[name]} to {value}'
                  for name, value in values.items() if value < self._newest.get(name, 0)]
        self._newest = values
        return words

    def begins(self, message: StreamStatus) -> bool:
        """Return whether this is the first image of a stream."""
        before, self._stream = self._stream, message.reset_count
        return before != message.reset_count


def _reliable(depth: int, latched: bool = False) -> QoSProfile:
    return QoSProfile(
        history=HistoryPolicy.KEEP_LAST, depth=depth, reliability=ReliabilityPolicy.RELIABLE,
        durability=(DurabilityPolicy.TRANSIENT_LOCAL if latched else DurabilityPolicy.VOLATILE))


def words_of(said: Mapping[DiagnosticMessage, float]) -> list[str]:
    """Return what diagnostics said, each once, without what differs in numbers only."""
    return sorted({f'{one.task}: {one.message}' for one in said})
