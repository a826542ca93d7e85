"""What is published has the declared types, whatever library the numbers came from."""

from array import array
from dataclasses import replace

from builtin_interfaces.msg import Time
from geometry_msgs.msg import Point, Quaternion
from nav_msgs.msg import Odometry
import numpy as np
import pytest
from rclpy.serialization import deserialize_message, serialize_message
from sensor_msgs.msg import CameraInfo, Image, PointField
from std_msgs.msg import Header
import torch

from xsvggt_ros.demo.ros_messages import camera_info_message, image_message, to_stamp
from xsvggt_ros.engine.cache_stats import CacheStats
from xsvggt_ros.kv_cache.health import CacheHealth
from xsvggt_ros.msg import CacheStatus, StreamStatus
from xsvggt_ros.node import messages
from xsvggt_ros.node.frames import Pose
from xsvggt_ros.node.message_fields import fill, fill_xyz
from xsvggt_ros.node.status.snapshot import GpuMemory
from xsvggt_ros.node.status.stream_statistics import FrameReport, Latency
from xsvggt_ros.node.status.stream_status import cache_message, fill_report
from xsvggt_ros.node.tracked_pose import Localization, LoopState, TrackedPose
from xsvggt_ros.recordings.calibration import Calibration
from xsvggt_ros.trajectory.loop_closer import LoopReport
from xsvggt_ros.trajectory.map_frame import MapFrame

ONE = {'np.float32': np.float32(1), 'np.float64': np.float64(1), 'np.int64': np.int64(1),
       'int': 1, 'bool': True, 'torch': torch.tensor(1.0), 'float': 1.0}
PLAIN = {'boolean': bool, 'octet': bytes, 'string': str, 'float': float, 'double': float}


def assert_plain(message):
    """Assert that every number in a message, at any depth, is Python's own."""
    for name, declared in message.get_fields_and_field_types().items():
        value = getattr(message, name)
        if hasattr(value, 'get_fields_and_field_types'):
            assert_plain(value)
        elif '[' in declared:
            assert isinstance(value, np.ndarray), (type(message), name)
        elif declared.startswith('sequence<'):
            if isinstance(value, list):
                for part in value:
                    assert_plain(part)
            else:
                assert isinstance(value, array), (type(message), name)
        else:
            assert type(value) is PLAIN.get(declared, int), (type(message), name, type(value))


def assert_arrives(message):
    """Assert that a message has plain fields and is received as it was sent."""
    assert_plain(message)
    assert deserialize_message(serialize_message(message), type(message)) == message


# The helper --------------------------------------------------------------------------------------

@pytest.mark.parametrize('kind', ONE)
def test_a_number_of_any_kind_arrives_in_a_float_field(kind):
    point = fill(Point(), x=ONE[kind])
    assert_arrives(point)
    assert deserialize_message(serialize_message(point), Point).x == 1.0
    assert fill_xyz(Quaternion(), [ONE[kind]] * 4).w == 1.0
    assert fill(StreamStatus(), rate_in=ONE[kind]).rate_in == 1.0     # 32 bits


@pytest.mark.parametrize('value', [np.bool_(True), True, np.int8(1), torch.tensor(True)])
def test_truth_arrives_as_truth(value):
    message = fill(StreamStatus(), metric=value)
    assert_arrives(message)
    assert deserialize_message(serialize_message(message), StreamStatus).metric is True


@pytest.mark.parametrize('value', [np.uint64(3), np.int16(3), torch.tensor(3), 3])
def test_whole_numbers_arrive(value):
    message = fill(CacheStatus(), bytes_used=value, layers=value)
    assert_arrives(message)
    assert (message.bytes_used, message.layers) == (3, 3)


@pytest.mark.parametrize('values', [
    np.arange(9, dtype=np.float32).reshape(3, 3), list(range(9)), tuple(np.arange(9))])
def test_arrays_get_the_declared_type(values):
    message = fill(CameraInfo(), k=values, d=values)
    assert_arrives(message)
    assert message.k.tolist() == message.d.tolist() == list(map(float, range(9)))


def test_a_whole_array_is_not_copied_element_by_element():
    data = array('B', bytes(range(8)))
    assert fill(Image(), data=data).data == data
    assert fill(CameraInfo(), d=array('d', [1.0])).d == array('d', [1.0])
    assert fill(Image(), data=b'ab').data == array('B', b'ab')
    assert fill(Image(), data=[]).data == array('B')
    assert fill(Image(), data=np.arange(6, dtype=np.uint8)[::2]).data == array('B', [0, 2, 4])


@pytest.mark.parametrize('field, value, error', [
    ('width', 1.5, TypeError), ('k', [1.0] * 8, ValueError), ('k', 'abc', ValueError),
    ('no_such_field', 1, KeyError)])
def test_what_does_not_fit_is_refused(field, value, error):
    with pytest.raises(error):
        fill(CameraInfo(), **{field: value})


# Every message that is published -----------------------------------------------------------------

def header():
    return Header(stamp=to_stamp(np.int64(1_700_000_000_123_456_789)), frame_id='camera')


def pose(kind):
    return Pose(tuple(np.array([1, -2, 3], kind)), tuple(np.array([0, 0, 0, 1], kind)))


@pytest.mark.parametrize('kind', [np.float32, np.float64, np.int64, int])
def test_poses_arrive(kind):
    stamped = messages.pose_stamped(header(), 'odom', pose(kind))
    for message in (
            stamped, messages.path([stamped, stamped]),
            messages.transform(header(), 'odom', 'camera', pose(kind)),
            messages.odometry(header(), 'odom', 'camera', pose(kind), kind(1), kind(2))):
        assert_arrives(message)
    odometry = messages.odometry(header(), 'odom', 'camera', pose(kind), 1, np.float32(2))
    received = deserialize_message(serialize_message(odometry), Odometry)
    place, turn = received.pose.pose.position, received.pose.pose.orientation
    assert (place.x, place.y, place.z, turn.w) == (1.0, -2.0, 3.0, 1.0)
    assert received.pose.covariance.reshape(6, 6).diagonal().tolist() == [1.0] * 3 + [2.0] * 3


@pytest.mark.parametrize('shape', [(7, 5), (3, 4, 5), (0, 5)])
def test_clouds_arrive(shape):
    cloud = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    message = messages.point_cloud(header(), cloud)
    assert_arrives(message)
    assert bytes(message.data) == cloud.tobytes()
    assert [field.datatype for field in message.fields] == [PointField.FLOAT32] * 5


@pytest.mark.parametrize('pixels, encoding', [
    (np.ones((4, 6, 3), np.uint8), 'rgb8'), (np.full((4, 6), 0.5, np.float32), '32FC1')])
def test_images_arrive(pixels, encoding):
    message = messages.image(header(), pixels, encoding)
    assert_arrives(message)
    assert bytes(message.data) == pixels.tobytes()
    if encoding == 'rgb8':
        assert_arrives(image_message(header(), pixels))
        assert_arrives(image_message(header(), pixels[::-1, :, 0]))


@pytest.mark.parametrize('kind', [np.float32, np.float64, np.int64])
def test_cameras_arrive(kind):
    matrix = np.array([[100, 0, 8], [0, 100, 6], [0, 0, 1]], kind)
    message = messages.camera_info(header(), np.int64(12), np.int64(16), matrix)
    calibration = Calibration.pinhole(
        np.int64(16), np.int64(12), matrix, distortion=tuple(np.zeros(5, kind)))
    for info in (message, camera_info_message(header(), calibration)):
        assert_arrives(info)
        assert info.k.reshape(3, 3).tolist() == matrix.tolist()


def test_status_messages_arrive():
    one, few = np.float32(0.5), np.int64(3)
    stats = CacheStats(
        frames=few, tokens_per_frame=few, tokens_per_layer=(few, few), budget=few,
        occupancy=one, evicted_this_frame=few, evicted_total=few, camera_tokens=few,
        camera_budget=None, bytes_used=few, bytes_reserved=few,
        health=CacheHealth(*[one] * 5))
    report = FrameReport(Latency(*[one] * 6), stats, one, one, few, one, one)
    status = fill(StreamStatus(), header=header())
    fill_report(status, report, [one, one])
    assert_arrives(status)
    assert status.latency_total == status.confidence_mean == 0.5 and status.points_published == 3
    assert status.pose_source == 'network' and status.pose_inliers == 0
    loops = LoopState(replace(MapFrame.none(), metres=np.float64(2)), few, LoopReport(
        few, {'far': few, 'few inliers': few}, one, one), np.zeros((3, 4, 4)))
    fill_report(status, replace(report, tracked=TrackedPose(
        'tracks', few, one, np.eye(6), None, None, loops)), [one])
    assert_arrives(status)
    assert (status.pose_source, status.pose_inliers, status.reprojection_error) == (
        'tracks', 3, 0.5)
    assert (status.keyframes, status.loops_closed, status.loops_refused) == (3, 3, 6)
    assert (status.drift_corrected, status.drift_corrected_angle) == (1.0, 0.5)
    assert not status.localizing and not status.localized
    for since in (None, np.int64(1_500_000_000)):
        found = Localization(since, few, {'few matches': few}, np.True_)
        fill_report(status, replace(report, tracked=TrackedPose(
            'tracks', few, one, np.eye(6), None, None,
            replace(loops, localization=found))), [one])
        assert_arrives(status)
        assert status.localizing and status.localized == (since is not None)
        assert status.localization_confirmations == 3
        assert status.localized_since == (
            Time() if since is None else Time(sec=1, nanosec=500_000_000))
    cache = cache_message(header(), stats, GpuMemory())
    assert_arrives(cache)
    assert cache.attention_kept == 0.5 and cache.bytes_used == 3


def test_stamps_arrive():
    for stamp in (0, 5, np.int64(1_700_000_000_123_456_789)):
        assert_arrives(to_stamp(stamp))
    assert to_stamp(np.int64(1_500_000_000)) == Time(sec=1, nanosec=500_000_000)
