"""What the node makes of a rig's geometry and of scale.mode depth and baseline."""

from array import array
import logging

from nav_msgs.msg import Odometry
import numpy as np
import pytest
from sensor_msgs.msg import CameraInfo, Image
from std_msgs.msg import Header
import torch

from xsvggt_ros.engine.stream_engine import FrameResult
from xsvggt_ros.images.preprocess import Resize
from xsvggt_ros.mapping.scale import MIN_OBSERVATIONS
from xsvggt_ros.mapping.transform_tree import LookupError_
from xsvggt_ros.node.inputs.hint_topic import HintFault
from xsvggt_ros.node.inputs.rig import RigGeometry, seen_transforms
from xsvggt_ros.node.metric_scale import MetricScale, UNMATCHED, UNMATCHED_DEPTH
from xsvggt_ros.node.settings import DEFAULTS

TRUE_SCALE = 2.7
HEADERS = [Header(frame_id='left'), Header(frame_id='right')]
RESIZE = Resize.plan(56, 70, None, 14)


def result_at(position, index=0):
    """Return what a network predicts that sees the camera at a position, unturned."""
    camera_from_world = torch.eye(4)
    camera_from_world[:3, 3] = -torch.tensor(position)
    ones = torch.ones(56, 70)
    return FrameResult(
        frame_index=index, image=torch.zeros(56, 70, 3, dtype=torch.uint8),
        pose_encoding=torch.zeros(9), camera_from_world=camera_from_world,
        intrinsics=torch.eye(3), predicted_intrinsics=torch.eye(3),
        depth=2 * ones, depth_confidence=ones,
        points=torch.zeros(56, 70, 3), points_confidence=ones, upload_seconds=0.0)


def metric(scale, results, *arguments):
    """Return results in metres if the scale is known by them, else as they are."""
    found = scale.update(results, *arguments)
    return results if found is None else [result.scaled(found.metres) for result in results]


class Tf:
    """TF that knows what it was given."""

    def __init__(self, **known):
        self.known = known

    def lookup(self, target, source, stamp_ns):
        assert target == 'left'
        if source not in self.known:
            raise LookupError_(f"no transform between '{target}' and '{source}'")
        return self.known[source]


def moved(*position):
    transform = np.eye(4)
    transform[:3, 3] = position
    return transform


def calibration(frame, tx=0.0, ty=0.0):
    info = CameraInfo(header=Header(frame_id=frame))
    info.p = [400.0, 0.0, 320.0, tx, 0.0, 500.0, 240.0, ty, 0.0, 0.0, 1.0, 0.0]
    info.r = np.eye(3).ravel()
    return info


def test_tf_says_where_the_cameras_are():
    geometry = RigGeometry(Tf(right=moved(0.2, 0, 0)))
    np.testing.assert_allclose(geometry.positions(HEADERS), [[0.2, 0, 0]])
    first, second = geometry.transforms(HEADERS)
    np.testing.assert_allclose(first, np.eye(4))
    np.testing.assert_allclose(second, moved(0.2, 0, 0))
    assert geometry.fault == ''


def test_without_tf_a_stereo_calibration_does_and_nothing_is_guessed():
    geometry = RigGeometry(Tf())
    assert geometry.transforms(HEADERS) is None and geometry.positions(HEADERS) is None
    assert "'left' and 'right'" in geometry.fault and 'camera_info' in geometry.fault
    for frame in ('left', 'right'):   # each calibrated by itself
        geometry.on_camera_info(calibration(frame))
    assert geometry.positions(HEADERS) is None
    geometry.on_camera_info(calibration('right', tx=-48.0))
    np.testing.assert_allclose(geometry.positions(HEADERS), [[0.12, 0, 0]])
    geometry.on_camera_info(calibration('right', ty=-50.0))
    np.testing.assert_allclose(geometry.positions(HEADERS), [[0, 0.1, 0]])


def test_cameras_that_cannot_be_told_apart_are_no_rig():
    geometry = RigGeometry(Tf(left=np.eye(4), right=np.eye(4)))
    assert geometry.transforms([HEADERS[0], HEADERS[0]]) is None
    assert "'left'" in geometry.fault and 'driver' in geometry.fault
    assert geometry.positions(HEADERS) is None and 'one position' in geometry.fault


def test_a_projection_that_is_not_finite_tells_no_baseline():
    geometry = RigGeometry(Tf())
    geometry.on_camera_info(calibration('left'))
    geometry.on_camera_info(calibration('right', tx=float('nan')))
    assert geometry.positions(HEADERS) is None and geometry.fault


def test_frame_ids_that_count_up_do_not_fill_the_memory():
    geometry = RigGeometry(Tf())
    for index in range(1000):
        geometry.on_camera_info(calibration('left'))
        geometry.on_camera_info(calibration(f'camera{index}'))
    geometry.on_camera_info(calibration('right', tx=-48.0))
    assert len(geometry._infos) <= 64
    assert geometry.positions(HEADERS) is not None


def test_a_turned_stereo_calibration_is_turned_back():
    geometry = RigGeometry(Tf())
    left = calibration('left')
    left.r = np.array([[0.0, 1, 0], [-1, 0, 0], [0, 0, 1]]).ravel()   # x of the pair: the raw y
    geometry.on_camera_info(left)
    geometry.on_camera_info(calibration('right', tx=-48.0))
    np.testing.assert_allclose(geometry.positions(HEADERS), [[0, 0.12, 0]], atol=1e-12)


def test_what_the_network_sees_is_in_the_frame_of_the_first_camera():
    first, second = seen_transforms([result_at((1.0, 2.0, 3.0)), result_at((1.2, 2.0, 3.0))])
    np.testing.assert_allclose(first, np.eye(4), atol=1e-6)
    np.testing.assert_allclose(second, moved(0.2, 0, 0), atol=1e-6)


def test_the_baseline_of_a_rig_makes_results_metric():
    scale = MetricScale(logging.getLogger())
    settings = DEFAULTS.changed({'scale.mode': 'baseline'}).scale
    known = np.array([[0.2, 0.0, 0.0]])
    for index in range(MIN_OBSERVATIONS):
        way = np.array([0.3 * index, 0, 0])
        results = [result_at(way), result_at(way + known[0] / TRUE_SCALE)]
        assert scale.current is None
        results = metric(scale, results, index, settings, RESIZE, known)
    assert scale.current.metres == pytest.approx(TRUE_SCALE, rel=1e-5) and scale.fault == ''
    apart = seen_transforms(results)[1][:3, 3]
    np.testing.assert_allclose(apart, known[0], atol=1e-5)
    generator = np.random.default_rng(0)
    while not scale.fault:  # the other camera is seen anywhere: less sure than a baseline must be
        results = [result_at((0, 0, 0)), result_at(generator.normal(0, 5, 3))]
        results = metric(scale, results, index, settings, RESIZE, known)
    assert scale.current.metres == pytest.approx(TRUE_SCALE, rel=0.2)
    unit = results[0].depth.mean() / result_at((0, 0, 0)).depth.mean()
    assert unit.item() == pytest.approx(scale.current.metres)  # known once, and held
    scale.forget()
    metric(scale, [result_at((0.0, 0, 0))], 0, settings, RESIZE, None)
    assert scale.current is None and 'sets of images' in scale.fault


def depth_image(stamp_ns, millimetres):
    message = Image(encoding='16UC1', height=56, width=70, step=140)
    message.header.stamp.sec, message.header.stamp.nanosec = divmod(stamp_ns, 10 ** 9)
    message.data = array('B', np.full((56, 70), millimetres, np.uint16).tobytes())
    return message


def test_depth_may_come_late_and_what_is_wrong_with_it_is_said():
    scale = MetricScale(logging.getLogger())
    settings = DEFAULTS.changed({'scale.mode': 'depth'}).scale
    second = 10 ** 9
    for index in range(UNMATCHED_DEPTH + 1):
        metric(scale, [result_at((0.0, 0, 0))], index * second, settings, RESIZE, None)
    assert 'no depth image has arrived' in scale.fault
    scale.on_depth(depth_image(3 * second, 0))
    metric(scale, [result_at((0.0, 0, 0))], 4 * second, settings, RESIZE, None)
    assert 'nearly empty' in scale.fault
    scale.on_depth(Image(header=depth_image(4 * second, 0).header, encoding='rgb8'))
    metric(scale, [result_at((0.0, 0, 0))], 5 * second, settings, RESIZE, None)
    assert 'rgb8' in scale.fault
    for index in range(6, 12):   # one frame late each
        scale.on_depth(depth_image((index - 1) * second, round(2000 * TRUE_SCALE)))
        (result,) = metric(scale, [result_at((0.0, 0, 0))], index * second, settings, RESIZE, None)
    assert scale.fault == '' and scale.current.metres == pytest.approx(TRUE_SCALE, rel=1e-3)
    assert result.depth.mean().item() == pytest.approx(2 * TRUE_SCALE, rel=1e-3)
    scale.on_depth(depth_image(100 * second, 1000))
    for index in range(20, 24 + UNMATCHED_DEPTH):
        metric(scale, [result_at((0.0, 0, 0))], index * second, settings, RESIZE, None)
    assert 'nearest' in scale.fault and scale.current is not None


class Topic:
    """A hint's topic on which somebody publishes, as long as it is not silent."""

    name = '/robot/hint'

    def __init__(self, mode):
        self.mode = mode
        self.is_silent = False

    def silence(self, seconds, has_come):
        return HintFault('silent', f'nothing on {self.name}') if self.is_silent else None


def odometry(milliseconds, position, lost=False):
    message = Odometry(child_frame_id='base_link')
    message.header.frame_id = 'odom'
    message.header.stamp.sec, message.header.stamp.nanosec = divmod(
        milliseconds * 10 ** 6, 10 ** 9)
    place = message.pose.pose.position
    place.x, place.y, place.z = position
    if lost:
        message.pose.pose.orientation.w = 0.0
    return message


def drive(scale, settings, seconds, lost=(), offset=(), copies=1):
    """Send an odometry at 50 Hz with images at 10 Hz; return the scales after each image."""
    known = []
    for tick in range(round(50 * seconds[0]), round(50 * seconds[1])):
        time = tick / 50
        way = np.array((2 * np.sin(0.3 * time), np.cos(0.5 * time), 0.1 * time))
        there = way + (offset if len(offset) else (0, 0, 0))
        is_lost = lost and lost[0] <= time < lost[1]
        for _ in range(copies):
            scale.on_odometry(odometry(
                1000 + 20 * tick, (0.0, 0.0, 0.0) if is_lost else tuple(there), is_lost))
        if tick % 5 == 0:
            result = result_at((way / TRUE_SCALE).astype(np.float32))
            metric(scale, [result], (1000 + 20 * tick - 10) * 10 ** 6, settings, RESIZE, None)
            known.append(scale.current and scale.current.metres)
    return known


ODOMETRY = DEFAULTS.changed({'scale.mode': 'odometry'}).scale


@pytest.mark.slow
def test_an_odometry_that_is_lost_leaves_the_scale_as_it_was():
    """As rtabmap sends it: a null pose while it is lost, and then goes on from elsewhere."""
    scale = MetricScale(logging.getLogger())
    scale.listen(Topic('odometry'))
    before = drive(scale, ODOMETRY, (0, 6), lost=(5, 6))
    assert before[-1] == pytest.approx(TRUE_SCALE, rel=0.01)
    assert 'quaternion is zero' in scale.hint_fault().text
    assert '/robot/hint' in scale.hint_fault().text and '50 messages' in scale.hint_fault().text
    during = drive(scale, ODOMETRY, (6, 12), lost=(6, 12))
    after = drive(scale, ODOMETRY, (12, 30), offset=(7.0, -3.0, 1.0))
    np.testing.assert_allclose(during + after, TRUE_SCALE, rtol=0.02)
    assert scale.hint_fault() is None
    assert 'refused (lost)' in scale.hint_description()
    scale.forget()   # a new stream has another unit
    assert scale.current is None


@pytest.mark.parametrize('copies', [1, 2, 3])
def test_messages_that_come_twice_are_no_reason_not_to_know_the_scale(copies):
    scale = MetricScale(logging.getLogger())
    assert drive(scale, ODOMETRY, (0, 5), copies=copies)[-1] == pytest.approx(
        TRUE_SCALE, rel=0.01)


def test_what_is_wrong_with_an_odometry_is_said():
    scale, topic = MetricScale(logging.getLogger()), Topic('odometry')
    scale.listen(topic)
    for index in range(UNMATCHED + 1):
        metric(scale, [result_at((0.0, 0, 0))], (100 + index) * 10 ** 9, ODOMETRY, RESIZE, None)
    assert 'no valid odometry has arrived' in scale.hint_fault().text
    scale.on_odometry(odometry(1000, (0.0, 0.0, 0.0)))
    metric(scale, [result_at((0.0, 0, 0))], 200 * 10 ** 9, ODOMETRY, RESIZE, None)
    assert 'nearest stamp is 100 s away (/robot/hint)' in scale.hint_fault().text
    topic.is_silent = True
    assert scale.hint_fault().text == 'nothing on /robot/hint'
    still = MetricScale(logging.getLogger())
    still.listen(Topic('odometry'))
    for index in range(10):
        still.on_odometry(odometry(1000 + 100 * index, (0.0, 0.0, 0.0)))
        metric(still, [result_at((0.0, 0, 0))], (1000 + 100 * index) * 10 ** 6, ODOMETRY, RESIZE,
                    None)
    assert 'drive on' in still.hint_fault().text


def test_a_depth_image_of_another_frame_is_named_when_it_does_not_fit():
    rng = np.random.default_rng(0)
    scale = MetricScale(logging.getLogger())
    settings = DEFAULTS.changed({'scale.mode': 'depth'}).scale
    scale.listen(Topic('depth'))
    for index in range(1, 8):
        message = depth_image(index * 10 ** 9, 0)
        message.header.frame_id = '/lidar'
        message.data = array('B', rng.integers(1, 65535, (56, 70)).astype(np.uint16).tobytes())
        scale.on_depth(message)
        metric(scale, [result_at((0.0, 0, 0))], index * 10 ** 9, settings, RESIZE, None, None,
                    'camera')
    assert scale.current is None
    assert "'lidar'" in scale.hint_fault().text and "'camera'" in scale.hint_fault().text


def test_what_lasts_is_told_once_and_when_it_is_over(caplog, monkeypatch):
    now = [1000.0]
    monkeypatch.setattr('xsvggt_ros.node.metric_scale.time.monotonic', lambda: now[0])
    caplog.set_level(logging.INFO)
    scale = MetricScale(logging.getLogger())
    for number in range(60):
        now[0] += 1
        scale.report(HintFault('fault', ''), f'a fault, {number} s')
    told = [record for record in caplog.records if 'a fault' in record.getMessage()]
    assert 1 <= len(told) <= 4 and all(record.levelname == 'WARNING' for record in told)
    scale.report(None, '')
    scale.report(None, '')
    assert caplog.records[-1].getMessage() == 'metric scale is updated again'
    scale.report(HintFault('short', ''), 'a short one')   # for less than a while: no line
    scale.report(None, '')
    assert 'a short one' not in caplog.text


def test_a_baseline_needs_two_cameras():
    DEFAULTS.check()
    settings = DEFAULTS.changed({'scale.mode': 'baseline'})
    with pytest.raises(ValueError, match='image_topics'):
        settings.check()
    settings.changed({'image_topics': ['/left', '/right']}).check()


def test_the_cloud_of_a_rig_is_not_organised():
    settings = DEFAULTS.changed({'cloud.organized': True})
    settings.check()
    with pytest.raises(ValueError, match=r'cloud\.organized.*image_topics'):
        settings.changed({'image_topics': ['/left', '/right']}).check()
