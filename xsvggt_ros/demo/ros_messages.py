"""Between numpy arrays and the messages of a camera, quick in both directions."""

from builtin_interfaces.msg import Time
import numpy as np
from sensor_msgs.msg import CameraInfo, Image
from std_msgs.msg import Header

from xsvggt_ros.node.message_fields import fill
from xsvggt_ros.recordings.calibration import Calibration

TRUTH_TOPIC = '/ground_truth/odometry'  # nav_msgs/Odometry, from the synthetic world's camera


def to_stamp(stamp_ns: int) -> Time:
    """Return nanoseconds as a message stamp."""
    return fill(Time(), sec=stamp_ns // 10 ** 9, nanosec=stamp_ns % 10 ** 9)


def from_stamp(stamp: Time) -> int:
    """Return a message stamp as nanoseconds."""
    return stamp.sec * 10 ** 9 + stamp.nanosec


def image_message(header: Header, pixels: np.ndarray) -> Image:
    """Return grey [H, W] as mono8, colour [H, W, 3] as rgb8."""
    height, width = pixels.shape[:2]
    encoding, channels = ('mono8', 1) if pixels.ndim == 2 else ('rgb8', 3)
    return fill(Image(), header=header, height=height, width=width, encoding=encoding,
                step=width * channels, data=pixels)


def image_pixels(message: Image) -> np.ndarray | None:
    """Return what `image_message` packed as [H, W, 3] uint8 RGB; None for other encodings."""
    channels = {'mono8': 1, 'rgb8': 3}.get(message.encoding)
    if channels is None or len(message.data) < message.step * message.height:
        return None
    rows = np.frombuffer(message.data, np.uint8)[:message.step * message.height]
    rows = rows.reshape(message.height, message.step)[:, :message.width * channels]
    pixels = rows.reshape(message.height, message.width, channels)
    return np.repeat(pixels, 3, axis=2) if channels == 1 else pixels.copy()


def camera_info_message(header: Header, calibration: Calibration) -> CameraInfo:
    """Return a calibration as a message."""
    return fill(
        CameraInfo(), header=header, width=calibration.width, height=calibration.height,
        distortion_model=calibration.distortion_model, d=calibration.distortion,
        k=calibration.camera_matrix, r=calibration.rectification, p=calibration.projection)
