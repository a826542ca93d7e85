"""Between numpy arrays and the messages of a camera, quick in both directions."""

from array import array

from builtin_interfaces.msg import Time
import numpy as np
from sensor_msgs.msg import CameraInfo, Image
from std_msgs.msg import Header

from xsvggt_ros.tools.calibration import Calibration

TRUTH_TOPIC = '/ground_truth/odometry'  # nav_msgs/Odometry, from the synthetic world's camera


def to_stamp(stamp_ns: int) -> Time:
    """Return nanoseconds as a message stamp."""
    return Time(sec=stamp_ns // 10 ** 9, nanosec=stamp_ns % 10 ** 9)


def from_stamp(stamp: Time) -> int:
    """Return a message stamp as nanoseconds."""
    return stamp.sec * 10 ** 9 + stamp.nanosec


def image_message(header: Header, pixels: np.ndarray) -> Image:
    """Return grey [H, W] as mono8, colour [H, W, 3] as rgb8."""
    message = Image()
    message.header = header
    message.height, message.width = pixels.shape[:2]
    message.encoding = 'mono8' if pixels.ndim == 2 else 'rgb8'
    message.step = message.width * (1 if pixels.ndim == 2 else 3)
    # An array.array given to the property is taken as it is; anything else is copied element by
    # element, 80 ms for a 640x480 image.
    data = array('B')
    data.frombytes(memoryview(np.ascontiguousarray(pixels)).cast('B'))
    message.data = data
    return message


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
    message = CameraInfo()
    message.header = header
    message.width, message.height = calibration.width, calibration.height
    message.distortion_model = calibration.distortion_model
    message.d = [float(value) for value in calibration.distortion]
    message.k = calibration.camera_matrix.ravel().tolist()
    message.r = calibration.rectification.ravel().tolist()
    message.p = calibration.projection.ravel().tolist()
    return message
