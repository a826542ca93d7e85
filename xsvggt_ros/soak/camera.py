"""The soak's camera: a healthy sender of images and all that goes with them, which can be ill."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
import io
import threading
import time
from typing import Any

from geometry_msgs.msg import TransformStamped
from nav_msgs.msg import Odometry
import numpy as np
from rclpy.node import Node
from rclpy.publisher import Publisher
from rclpy.qos import DurabilityPolicy, HistoryPolicy, QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import CameraInfo, CompressedImage, Image
from std_msgs.msg import Header
from tf2_msgs.msg import TFMessage

from xsvggt_ros.demo.ros_messages import camera_info_message, from_stamp, image_message, to_stamp
from xsvggt_ros.mapping.trajectory import StampedPose
from xsvggt_ros.node.messages import byte_array
from xsvggt_ros.soak import names
from xsvggt_ros.soak.world import RATE, View, ViewSequence

FRAME = 'soak_optical_frame'
MOUNTED = 'soak_mounted_optical_frame'  # of the same camera on a robot
ROBOT, MAST = 'soak_base', 'soak_mast'  # a mast that turns on a robot, with the camera on it
_REMEMBERED = 20_000  # stamps

# What is sent together, by the names of `SoakCamera.PARTS`; a fault changes, adds and removes
Shot = dict[str, list[Any]]
Edit = Callable[[Shot, int], object]


class SoakCamera:
    """
    Sends a shot at a time from a thread of its own, at a rate, in real time.

    A shot has an image with its calibration and, by the setup, odometry, depth or TF. While an
    `Edit` is set it sees every shot before it leaves.
    """

    PARTS = ('info', 'odometry', 'depth', 'tf', 'static', 'image', 'compressed')

    def __init__(self, node: Node, views: ViewSequence) -> None:
        """Create the publishers; `start` begins to send."""
        self._views = views
        self._publishers = make_publishers(node)
        self._edit: Edit | None = None
        self._rate = RATE
        self._parts: frozenset[str] = frozenset({'image', 'info'})
        self._lock = threading.Lock()
        self._number = 0      # shots so far
        self.offset_ns = 0    # of the camera's clock to the system's
        self.sent: dict[int, float] = {}  # when, in seconds of the steady clock, by stamp
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name='soak_camera', daemon=True)

    def start(self, parts: Iterable[str]) -> None:
        """Send these parts from now on, all the time."""
        self.choose(parts)
        if not self._thread.is_alive():
            self._thread.start()

    def choose(self, parts: Iterable[str]) -> None:
        """Have shots of these parts."""
        self._parts = frozenset(parts)

    @property
    def is_sending(self) -> bool:
        """Return whether shots go out by themselves."""
        return self._thread.is_alive()

    def close(self) -> None:
        """Send no more."""
        self._closing.set()
        if self._thread.is_alive():
            self._thread.join()

    @property
    def shots(self) -> int:
        """Return how many shots have gone out."""
        return self._number

    @contextmanager
    def playing(self, edit: Edit | None = None, rate: float = RATE) -> Iterator[None]:
        """Have an edit see all shots, and another rate, while the block runs."""
        self._set(edit, rate)
        try:
            yield
        finally:
            self._set(None, RATE)

    def heal(self) -> None:
        """Be healthy again, whatever was done."""
        self._set(None, RATE)
        self.offset_ns = 0

    def shot(self) -> Shot:
        """Return what is to be sent now, unchanged."""
        view, stamp_ns = self._views[self._number], time.time_ns() + self.offset_ns

        def header() -> Header:  # one each: an edit may change one of them
            frame = MOUNTED if 'static' in self._parts else FRAME
            return Header(stamp=to_stamp(stamp_ns), frame_id=frame)

        makers = {
            'info': lambda: camera_info_message(header(), self._views.calibration),
            'image': lambda: image_message(header(), view.pixels),
            'compressed': lambda: compressed_image(header(), view.pixels),
            'odometry': lambda: odometry(stamp_ns, view),
            'depth': lambda: depth_image(header(), view.depth),
            'tf': lambda: mast(stamp_ns, self._number),
            'static': camera_on_mast}
        static_is_due = self._number % int(RATE) == 0  # latched, and what a fault spoilt is mended
        return {name: [make()] for name, make in makers.items()
                if name in self._parts and (name != 'static' or static_is_due)}

    def send_next(self) -> int:
        """Send one shot as it is due, ill or not; return the image's stamp in ns."""
        shot = self.shot()
        with self._lock:
            edit = self._edit
        if edit is not None:
            edit(shot, self._number)
        self.send(shot)
        self._number += 1
        images = shot.get('image')
        return from_stamp(images[0].header.stamp) if images else 0

    def send(self, shot: Shot) -> None:
        """Send a shot, beside those of the thread or in it."""
        with self._lock:
            for name in self.PARTS:
                for message in shot.get(name, ()):
                    if name in ('image', 'compressed'):
                        self._remember(from_stamp(message.header.stamp))
                    self._publishers[name].publish(message)

    def remember(self, image: Image) -> None:
        """Know the stamp of an image that somebody else sends."""
        with self._lock:
            self._remember(from_stamp(image.header.stamp))

    def sent_after(self, moment: float) -> set[int]:
        """Return the stamps of the images that went out after a moment of the steady clock."""
        with self._lock:
            return {stamp for stamp, when in self.sent.items() if when > moment}

    def _set(self, edit: Edit | None, rate: float) -> None:
        with self._lock:
            self._edit, self._rate = edit, rate

    def _remember(self, stamp_ns: int) -> None:
        self.sent.pop(stamp_ns, None)  # a stamp that comes again moves to the end
        self.sent[stamp_ns] = time.monotonic()
        if len(self.sent) > _REMEMBERED:
            del self.sent[next(iter(self.sent))]

    def _run(self) -> None:
        due = time.monotonic()
        while not self._closing.is_set():
            self.send_next()
            period = 1 / self._rate
            due = max(due + period, time.monotonic() - period)  # late shots are not made up
            self._closing.wait(max(0.0, due - time.monotonic()))


# Publishers and messages -------------------------------------------------------------------------

def make_publishers(node: Node) -> dict[str, Publisher]:
    """Return the publishers of a camera and its robot, by part."""
    best_effort, reliable = (quality(10, reliable) for reliable in (False, True))
    static = QoSProfile(depth=10, durability=DurabilityPolicy.TRANSIENT_LOCAL)
    return {
        'image': node.create_publisher(Image, names.IMAGE, best_effort),
        'compressed': node.create_publisher(
            CompressedImage, f'{names.IMAGE}/compressed', best_effort),
        'info': node.create_publisher(CameraInfo, names.CAMERA_INFO, reliable),
        'odometry': node.create_publisher(Odometry, names.ODOMETRY, reliable),
        'depth': node.create_publisher(Image, names.DEPTH, best_effort),
        'tf': node.create_publisher(TFMessage, names.TF, 100),
        'static': node.create_publisher(TFMessage, names.TF_STATIC, static)}


def quality(depth: int, reliable: bool) -> QoSProfile:
    """Return a QoS that keeps the last so many messages."""
    reliability = ReliabilityPolicy.RELIABLE if reliable else ReliabilityPolicy.BEST_EFFORT
    return QoSProfile(history=HistoryPolicy.KEEP_LAST, depth=depth, reliability=reliability)


def compressed_image(header: Header, pixels: np.ndarray, kind: str = 'JPEG') -> CompressedImage:
    """Return pixels [H, W, 3] as a picture."""
    import PIL.Image  # only where the setup asks for it
    file = io.BytesIO()
    PIL.Image.fromarray(pixels).save(file, kind)
    message = CompressedImage(header=header, format=f'rgb8; {kind.lower()} compressed bgr8')
    message.data = byte_array(np.frombuffer(file.getvalue(), np.uint8))
    return message


def depth_image(header: Header, depth: np.ndarray) -> Image:
    """Return depth [H, W] float32 in metres as a message."""
    message = Image(header=header, height=depth.shape[0], width=depth.shape[1], encoding='32FC1')
    message.step = 4 * message.width
    message.data = byte_array(depth.astype(np.float32))
    return message


def odometry(stamp_ns: int, view: View) -> Odometry:
    """Return where the camera truly is, as another odometry would say it."""
    pose = StampedPose.from_matrix(stamp_ns, view.world_from_camera)
    message = Odometry(child_frame_id='soak_wheels')
    message.header = Header(stamp=to_stamp(stamp_ns), frame_id='soak_world')
    fill(message.pose.pose.position, pose.position)
    fill(message.pose.pose.orientation, pose.quaternion)
    message.pose.covariance = (1e-4 * np.eye(6)).ravel()
    return message


def edge(stamp_ns: int, parent: str, child: str, position: tuple[float, float, float],
         quaternion: tuple[float, float, float, float]) -> TransformStamped:
    """Return an edge of TF."""
    transform = TransformStamped(child_frame_id=child)
    transform.header = Header(stamp=to_stamp(stamp_ns), frame_id=parent)
    fill(transform.transform.translation, position)
    fill(transform.transform.rotation, quaternion)
    return transform


def mast(stamp_ns: int, number: int) -> TFMessage:
    """Return where the mast is on the robot: it turns to and fro a little."""
    half = 0.05 * np.sin(number / 40)
    return TFMessage(transforms=[edge(
        stamp_ns, ROBOT, MAST, (0.1, 0.0, 0.5), (0.0, 0.0, np.sin(half), np.cos(half)))])


def camera_on_mast() -> TFMessage:
    """Return where the camera is on the mast: optical axes, looking ahead."""
    return TFMessage(transforms=[edge(
        time.time_ns(), MAST, MOUNTED, (0.05, 0.0, 0.0), (-0.5, 0.5, -0.5, 0.5))])


def fill(target: Any, values: Any) -> None:
    """Set x, y, z and maybe w of a message."""
    for name, value in zip('xyzw', values):
        setattr(target, name, float(value))
