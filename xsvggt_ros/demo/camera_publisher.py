"""Publishes frames as a camera driver does: on time, best effort, image and calibration."""

from dataclasses import dataclass, replace
import sys
import time

from geometry_msgs.msg import TransformStamped
from nav_msgs.msg import Odometry
import rclpy
from rclpy.node import Node
from rclpy.qos import HistoryPolicy, QoSProfile, ReliabilityPolicy
from rclpy.signals import SignalHandlerOptions
from sensor_msgs.msg import CameraInfo, Image
from std_msgs.msg import Header
from tf2_msgs.msg import TFMessage

from xsvggt_ros.console.processes import deferred_interrupts, ignore_signals
from xsvggt_ros.demo.ros_messages import camera_info_message, image_message, to_stamp, TRUTH_TOPIC
from xsvggt_ros.launch_arguments import camera_info_beside
from xsvggt_ros.mapping.map_files import format_stamp
from xsvggt_ros.mapping.trajectory import StampedPose
from xsvggt_ros.node.message_fields import fill_xyz
from xsvggt_ros.recordings.frame_source import (
    frames_ahead,
    FramesAhead,
    FrameSource,
    looped,
    Motion,
    SourceFrame,
)
from xsvggt_ros.recordings.inputs.camera import CameraSource

CAMERA_NAME = 'xsvggt_camera'
_MATCHING_TIME = 0.5   # seconds; a subscriber learns of us later than we learn of it
_LINGER_TIME = 0.5     # seconds in which the last image is read before its memory goes
_POLL_PERIOD = 0.05    # seconds


@dataclass(frozen=True)
class CameraOptions:
    """How a camera publishes."""

    topic: str = '/camera/image_raw'
    frame_id: str = 'camera_optical_frame'
    reliable: bool = False
    loop: bool = False
    restamp: bool = False              # stamps from the clock even if the frames have their own
    wait_for_subscribers: int = 0
    reconnect: bool = False            # to a camera of this machine that was unplugged


class CameraPublisher(Node):
    """The topics of a camera and, for the synthetic world, the truth about its motion."""

    def __init__(self, source: FrameSource, options: CameraOptions) -> None:
        super().__init__(CAMERA_NAME)
        self._source, self._options = source, options
        quality = QoSProfile(
            history=HistoryPolicy.KEEP_LAST, depth=5,
            reliability=(ReliabilityPolicy.RELIABLE if options.reliable
                         else ReliabilityPolicy.BEST_EFFORT))
        self._images = self.create_publisher(Image, options.topic, quality)
        # Only if there is one: whoever sees the topic waits for what comes on it.
        self._infos = None if source.calibration is None else self.create_publisher(
            CameraInfo, camera_info_beside(options.topic), quality)
        self._odometry = self.create_publisher(Odometry, TRUTH_TOPIC, 10)
        self._tf = self.create_publisher(TFMessage, '/tf', 100)

    def wait_for_subscribers(self) -> None:
        """Wait until as many subscribe to the images as the options say."""
        wanted = self._options.wait_for_subscribers
        if wanted == 0:
            return
        while self._images.get_subscription_count() < wanted:
            time.sleep(_POLL_PERIOD)
        time.sleep(_MATCHING_TIME)

    def publish(self, frame: SourceFrame, stamp_ns: int) -> None:
        """Publish one frame under the stamp given."""
        header = Header(stamp=to_stamp(stamp_ns), frame_id=self._options.frame_id)
        if self._infos is not None and self._source.calibration is not None:
            self._infos.publish(camera_info_message(header, self._source.calibration))
        self._images.publish(image_message(header, frame.pixels))
        if frame.motion is not None:
            self._publish_truth(stamp_ns, frame.motion)

    def _publish_truth(self, stamp_ns: int, motion: Motion) -> None:
        """Publish the true pose under names that nobody else uses."""
        pose = StampedPose.from_matrix(stamp_ns, motion.world_from_camera)
        edge = TransformStamped()
        edge.header.stamp = to_stamp(stamp_ns)
        edge.header.frame_id, edge.child_frame_id = 'ground_truth_odom', 'ground_truth_camera'
        fill_xyz(edge.transform.translation, pose.position)
        fill_xyz(edge.transform.rotation, pose.quaternion)
        self._tf.publish(TFMessage(transforms=[edge]))

        odometry = Odometry(header=edge.header, child_frame_id=edge.child_frame_id)
        fill_xyz(odometry.pose.pose.position, pose.position)
        fill_xyz(odometry.pose.pose.orientation, pose.quaternion)
        fill_xyz(odometry.twist.twist.linear, motion.linear)
        fill_xyz(odometry.twist.twist.angular, motion.angular)
        self._odometry.publish(odometry)


def run_camera(source: FrameSource, options: CameraOptions, ros_args: list[str]) -> None:
    """
    Publish all frames of `source`; Ctrl-C (KeyboardInterrupt) ends it early and quietly.

    ros_args: what followed --ros-args on the command line.
    """
    is_live = getattr(source, 'is_live', False)
    ahead = None
    if is_live and options.loop:
        print('--loop has no effect: the images of a camera have no end', file=sys.stderr,
              flush=True)
        options = replace(options, loop=False)
    if isinstance(source, CameraSource):
        source.reconnects = options.reconnect
    elif options.reconnect:
        print('--reconnect has no effect: it is for a camera of this machine', file=sys.stderr,
              flush=True)
    if not is_live:
        ahead = FramesAhead(looped(source) if options.loop else source.frames())
    rclpy.init(args=['camera', '--ros-args', *ros_args],
               signal_handler_options=SignalHandlerOptions.NO)
    schedule = _Schedule(not is_live)
    try:
        camera = CameraPublisher(source, options)
        _announce(source, options)
        if ahead is not None:
            ahead.wait_until_steady(source.rate)
        camera.wait_for_subscribers()
        if ahead is None:   # not sooner: what a camera sees while nobody listens would be old then
            ahead = frames_ahead(source)
        for frame in ahead:
            stamp_ns = schedule.wait(frame, options.restamp, 1.0 / source.rate)
            with deferred_interrupts():   # a message goes out whole
                camera.publish(frame, stamp_ns)
            schedule.sent(stamp_ns)
        time.sleep(_LINGER_TIME)
    except KeyboardInterrupt:
        pass
    finally:
        ignore_signals()
        if ahead is not None:
            ahead.stop()
        skipped = source.describe_skipped()
        if skipped:
            print(skipped, flush=True)
        print(schedule.summary(), flush=True)
        if rclpy.ok():
            rclpy.shutdown()


class _Schedule:
    """When frames go out: at fixed times after the first one, so that errors never add up."""

    def __init__(self, is_paced: bool) -> None:
        """Begin; without pace frames go out as they come."""
        self._is_paced = is_paced
        self._start = 0.0            # monotonic time of the first frame
        self._start_stamp_ns = 0     # the same on the system's clock
        self._count = 0
        self._first_sent = self._last_sent = 0.0
        self._last_stamp_ns = 0
        self._slipped = 0.0

    def wait(self, frame: SourceFrame, restamp: bool, period: float) -> int:
        """Sleep until `frame` is due and return its stamp in nanoseconds."""
        if not self._is_paced:
            return time.time_ns() if restamp or frame.stamp_ns is None else frame.stamp_ns or 1
        now = time.monotonic()
        if self._count == 0:
            self._start, self._start_stamp_ns = now, time.time_ns()
        late = now - (self._start + frame.offset_ns * 1e-9)
        if late > period:
            # Frames are not made fast enough. Everything after is later too, stamps included,
            # because a stamp that says when the picture should have been sent would be a lie.
            self._slipped += late
            self._start += late
            self._start_stamp_ns += round(late * 1e9)
        elif late < 0:
            time.sleep(-late)
        if frame.stamp_ns is not None and not restamp:
            return frame.stamp_ns or 1   # videos begin at 0, which is no stamp in ROS
        return self._start_stamp_ns + frame.offset_ns

    def sent(self, stamp_ns: int) -> None:
        """Count a frame."""
        self._last_sent, self._last_stamp_ns = time.monotonic(), stamp_ns
        if self._count == 0:
            self._first_sent = self._last_sent
        self._count += 1

    def summary(self) -> str:
        """Return how many images went out, at what rate, and the last one's stamp."""
        if self._count == 0:
            return 'sent 0 images'
        seconds = self._last_sent - self._first_sent
        rate = (self._count - 1) / seconds if seconds > 0 else 0.0
        text = (f'sent {self._count} images in {seconds:.2f} s ({rate:.2f} Hz), '
                f'last stamp {format_stamp(self._last_stamp_ns)}')
        if self._slipped > 0:
            text += (f'; {self._slipped:.1f} s late in all: this machine cannot make the frames '
                     'at that rate')
        return text


def _announce(source: FrameSource, options: CameraOptions) -> None:
    reliability = 'reliable' if options.reliable else 'best effort'
    count = 'endless' if source.count is None or options.loop else f'{source.count} images'
    print(f'publishing {options.topic}, {count}, {source.rate:.3g} Hz, {reliability}', flush=True)
    if source.calibration is None:
        lacking = ('a camera of this machine tells no calibration'
                   if getattr(source, 'is_live', False) else
                   'no calibration lies in the recording or beside it')
        print(f'no CameraInfo: {lacking}, and --calibration names none', flush=True)
