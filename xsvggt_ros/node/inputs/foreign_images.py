"""Images in encodings that `image_codec` does not know: cv_bridge reads them where it works."""

from functools import cache
from importlib.util import find_spec
import os
import subprocess
import sys
from typing import Any

import numpy as np
from sensor_msgs.msg import Image

TRIAL_TIMEOUT = 30.0  # seconds
_TRIAL = """
from array import array
from cv_bridge import CvBridge
from sensor_msgs.msg import Image
image = Image(height=1, width=1, encoding='mono8', step=1, data=array('B', [0]))
CvBridge().imgmsg_to_cv2(image, 'rgb8')
"""


class BridgeError(Exception):
    """An image that cv_bridge cannot read, or no cv_bridge that works; says which."""


def decode_foreign(message: Image) -> np.ndarray:
    """Return the pixels as uint8 [height, width, 3] RGB; raise BridgeError."""
    try:
        pixels = load_bridge().imgmsg_to_cv2(message, 'rgb8')
    except BridgeError:
        raise
    except Exception as error:  # cv_bridge's own, OpenCV's, and those of NumPy 2
        raise BridgeError(f'cv_bridge cannot read it ({_told(error)})') from error
    pixels = np.asarray(pixels)
    if pixels.shape != (message.height, message.width, 3) or pixels.dtype != np.uint8:
        raise BridgeError(f'cv_bridge made {pixels.dtype} {list(pixels.shape)} of it')
    return pixels


def load_bridge() -> Any:
    """Return a CvBridge; raise BridgeError if it is not installed or does not work here."""
    fault = _fault()
    if fault:
        raise BridgeError(fault)
    from cv_bridge import CvBridge
    return CvBridge()


@cache
def _fault() -> str:
    """
    Return why there is no cv_bridge; empty if there is one.

    It is tried in a process of its own: one that was built for NumPy 1 may crash with NumPy 2
    (https://github.com/ros-perception/vision_opencv/issues/535).
    """
    if find_spec('cv_bridge') is None:
        return 'cv_bridge, which may know it, is not installed'
    environment = {**os.environ, 'PYTHONPATH': os.pathsep.join(filter(None, sys.path))}
    try:
        subprocess.run([sys.executable, '-c', _TRIAL], env=environment, capture_output=True,
                       text=True, timeout=TRIAL_TIMEOUT, check=True)
    except subprocess.CalledProcessError as error:
        lines = error.stderr.strip().splitlines()
        reason = lines[-1] if lines and error.returncode > 0 else f'exit {error.returncode}'
    except (OSError, subprocess.TimeoutExpired) as error:
        reason = _told(error)
    else:
        return ''
    return (f'cv_bridge, which may know it, does not work here ({reason}; NumPy is '
            f'{np.__version__}, and cv_bridge needs the one it was built for)')


def _told(error: Exception) -> str:
    return f'{type(error).__name__}: {error}'
