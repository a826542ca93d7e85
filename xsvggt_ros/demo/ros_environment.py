"""Where the package's configuration lies and what the middleware needs to be told."""

import os
from pathlib import Path

from xsvggt_ros.console.errors import ToolError

PROFILE_VARIABLE = 'FASTDDS_DEFAULT_PROFILES_FILE'
OLD_PROFILE_VARIABLE = 'FASTRTPS_DEFAULT_PROFILES_FILE'     # the only one that Fast DDS 2 reads
FAST_DDS_2_DISTRIBUTIONS = ('humble', 'iron', 'jazzy')


class MissingRos(ToolError):
    """ROS 2 or this package's messages cannot be imported."""


def require_ros() -> None:
    """Raise MissingRos with what to do, unless ROS 2 and our messages are there."""
    try:
        import rclpy  # noqa: F401
        import tf2_msgs.msg  # noqa: F401

        import xsvggt_ros.msg  # noqa: F401
    except ImportError as error:
        raise MissingRos(
            f'this command needs ROS 2 and the messages of xsvggt_ros ({error}). Run `make env` '
            'in the checkout and use .venv/bin/python, or build the package with colcon in a ROS '
            'workspace and source its install/setup.bash.') from error


def config_file(name: str) -> Path:
    """Return a file of `config/`, from the source tree or from where colcon installed it."""
    in_checkout = Path(__file__).resolve().parents[2] / 'config' / name
    if in_checkout.is_file():
        return in_checkout
    for prefix in os.environ.get('AMENT_PREFIX_PATH', '').split(os.pathsep):
        installed = Path(prefix) / 'share' / 'xsvggt_ros' / 'config' / name
        if prefix and installed.is_file():
            return installed
    raise ToolError(
        f'config/{name} of xsvggt_ros is neither in a source tree nor on AMENT_PREFIX_PATH; '
        'source the workspace that the package is installed in')


def prepare_ros() -> None:
    """
    Give Fast DDS shared memory that holds whole images, unless the user chose a profile.

    With its default of 0.5 MB a 640x480 image is larger than the segment and best-effort images
    are lost: 2 of 120 arrived. Must be called before rclpy.init. Raises MissingRos.
    """
    require_ros()
    if os.environ.get(PROFILE_VARIABLE) or os.environ.get(OLD_PROFILE_VARIABLE):
        return
    profile = str(config_file('fastdds.xml'))
    os.environ[PROFILE_VARIABLE] = profile
    if os.environ.get('ROS_DISTRO') in FAST_DDS_2_DISTRIBUTIONS:   # newer ones warn about it
        os.environ[OLD_PROFILE_VARIABLE] = profile
