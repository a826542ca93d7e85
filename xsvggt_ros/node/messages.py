"""From plain numbers and arrays to ROS messages."""

from array import array
from collections.abc import Iterable, Sequence

from geometry_msgs.msg import Pose as PoseMsg
from geometry_msgs.msg import PoseArray, PoseStamped, TransformStamped
from nav_msgs.msg import Odometry, Path
import numpy as np
from rclpy.time import Time
from sensor_msgs.msg import CameraInfo, Image, PointCloud2, PointField
from std_msgs.msg import Header

from xsvggt_ros.geometry.frame_names import nanoseconds
from xsvggt_ros.mapping.point_cloud import COLUMNS
from xsvggt_ros.node.frames import Pose
from xsvggt_ros.node.message_fields import fill, fill_xyz

POINT_STEP = 4 * len(COLUMNS)
UNKNOWN_VARIANCE = 1e4  # of a twist that is not estimated, (m/s)^2 and (rad/s)^2


def byte_array(values: np.ndarray) -> array:
    """
    Return a copy of an array's bytes in the type that message fields take without a check.

    Assigned through the property it is stored as it is; anything else is copied element by
    element, 240 ms for a cloud of 3 MB (ros2/rosidl_python#156).
    """
    data = array('B')
    data.frombytes(memoryview(np.ascontiguousarray(values).data).cast('B'))
    return data


def point_cloud(header: Header, packed: np.ndarray) -> PointCloud2:
    """
    Return the cloud of a packed one, float32 (see `engine.point_cloud`).

    packed: [N, 5], or [H, W, 5] for an organised cloud, which has points that are not finite.
    """
    organized = packed.ndim == 3
    height, width = packed.shape[:2] if organized else (1, len(packed))
    fields = [PointField(name=name, offset=4 * i, datatype=PointField.FLOAT32, count=1)
              for i, name in enumerate(COLUMNS)]
    return fill(
        PointCloud2(), header=header, height=height, width=width, fields=fields,
        is_bigendian=False, point_step=POINT_STEP, row_step=POINT_STEP * width,
        is_dense=not organized, data=byte_array(packed) if len(packed) else array('B'))


def image(header: Header, pixels: np.ndarray, encoding: str) -> Image:
    """Return pixels [H, W] or [H, W, channels] as an image without padding."""
    height, width = pixels.shape[:2]
    return fill(Image(), header=header, height=height, width=width, encoding=encoding,
                is_bigendian=0, step=pixels.nbytes // height, data=byte_array(pixels))


def camera_info(header: Header, height: int, width: int, intrinsics: np.ndarray) -> CameraInfo:
    """Return a pinhole camera with `intrinsics` [3, 3], in pixels, and no distortion."""
    return fill(CameraInfo(), header=header, height=height, width=width,
                distortion_model='plumb_bob', d=[0.0] * 5, k=intrinsics, r=np.eye(3),
                p=np.hstack([intrinsics, np.zeros((3, 1))]))


def transform(header: Header, parent: str, child: str, pose: Pose) -> TransformStamped:
    """Return an edge of TF, the child's pose in the parent, with the header's stamp."""
    edge = TransformStamped()
    edge.header.stamp = header.stamp
    edge.header.frame_id = parent
    edge.child_frame_id = child
    fill_xyz(edge.transform.translation, pose.position)
    fill_xyz(edge.transform.rotation, pose.orientation)
    return edge


def later(header: Header, seconds: float) -> Header:
    """Return a header with a stamp that is so much later."""
    stamp = nanoseconds(header) + round(seconds * 1e9)
    return Header(stamp=Time(nanoseconds=stamp).to_msg())


def pose_stamped(header: Header, frame_id: str, pose: Pose) -> PoseStamped:
    """Return a pose in frame_id with the header's stamp."""
    message = PoseStamped()
    message.header.stamp = header.stamp
    message.header.frame_id = frame_id
    _fill_pose(message.pose, pose)
    return message


def path(poses: Iterable[PoseStamped]) -> Path:
    """Return the poses, oldest first, under the newest one's header."""
    message = Path(poses=list(poses))
    message.header = message.poses[-1].header
    return message


def numbers_of(pose: PoseMsg) -> tuple[float, ...]:
    """Return a pose's position and quaternion, seven numbers."""
    at, turn = pose.position, pose.orientation
    return at.x, at.y, at.z, turn.x, turn.y, turn.z, turn.w


def fill_pose(message: PoseMsg, numbers: Sequence[float]) -> None:
    """Fill a pose with its position and quaternion, seven numbers."""
    fill_xyz(message.position, tuple(numbers[:3]))
    fill_xyz(message.orientation, tuple(numbers[3:]))


def pose_array(header: Header, frame_id: str, poses: np.ndarray) -> PoseArray:
    """Return rigid transforms [K, 4, 4] as poses in frame_id with the header's stamp."""
    message = PoseArray()
    message.header.stamp = header.stamp
    message.header.frame_id = frame_id
    for matrix in poses:
        pose = PoseMsg()
        _fill_pose(pose, Pose.from_matrix(matrix))
        message.poses.append(pose)
    return message


def odometry(
    header: Header, frame_id: str, child_frame_id: str, pose: Pose,
    position_variance: float, orientation_variance: float,
) -> Odometry:
    """
    Return the pose of child_frame_id in frame_id with a constant diagonal covariance.

    The twist is not estimated: it is zero with a variance that no filter will believe.
    """
    message = Odometry()
    message.header.stamp = header.stamp
    message.header.frame_id = frame_id
    message.child_frame_id = child_frame_id
    _fill_pose(message.pose.pose, pose)
    variances = [position_variance] * 3 + [orientation_variance] * 3
    fill(message.pose, covariance=np.diag(variances))
    fill(message.twist, covariance=np.diag([UNKNOWN_VARIANCE] * 6))
    return message


def _fill_pose(message: PoseMsg, pose: Pose) -> None:
    fill_pose(message, (*pose.position, *pose.orientation))
