"""An odometry from elsewhere: where the camera is on its body, and what is said if it is not."""

import logging

import numpy as np
import pytest
from test_odometry_hint import message
from test_stream_trajectory import Log, RATE, RESIZE, result_of
from test_tf_listener import edge
import torch

from xsvggt_ros.geometry.quaternions import quaternion_from_matrix
from xsvggt_ros.mapping.odometry_hint import OdometryHint
from xsvggt_ros.mapping.transform_tree import TransformTree
from xsvggt_ros.node.inputs.hint_topic import HintFault
from xsvggt_ros.node.inputs.odometry_input import OdometryInput
from xsvggt_ros.node.metric_scale import MetricScale
from xsvggt_ros.node.pipeline import make_odometry
from xsvggt_ros.node.settings import DEFAULTS, DepthSettings, TrajectorySettings
from xsvggt_ros.node.status import lasting_fault
from xsvggt_ros.node.stream_trajectory import StreamTrajectory
from xsvggt_ros.trajectory.projection import motion
from xsvggt_ros.world.synthetic_world import SPLITS, SyntheticWorld

MILLI = 10 ** 6
MOUNT = motion(np.array([0.4, -1.0, 0.6, 0.15, -0.1, 0.4]))


class Topic:
    name = '/robot/wheels'

    def __init__(self):
        self.is_silent = False

    def silence(self, seconds, has_come):
        return HintFault('unpublished', f'nobody publishes {self.name}') if (
            self.is_silent or not has_come) else None


def listening(base_frame=''):
    hint, tree = OdometryHint(), TransformTree()
    found = OdometryInput(hint, tree, base_frame, logging.getLogger())
    found.listen(Topic())
    return found, hint, tree


def test_each_thing_that_is_missing_is_named_and_what_to_do():
    odometry, hint, tree = listening()
    assert odometry.view('camera', 1000 * MILLI) is None
    assert 'nobody publishes /robot/wheels' in odometry.check()
    hint.take(message(1000, frames=('odom', '/base_link')))
    assert odometry.check() == ''
    assert odometry.view('camera', 1000 * MILLI) is None
    said = odometry.check()
    for words in ("'base_link'", "'camera'", '/robot/wheels', 'no transform has come',
                  'trajectory.use_odometry to false', 'robot_state_publisher'):
        assert words in said
    tree.add(edge('base_link', 'camera', MOUNT), static=True)
    view = odometry.view('/camera', 1000 * MILLI)
    assert view.stamp_ns == 1000 * MILLI and odometry.check() == ''
    np.testing.assert_allclose(view.base_from_camera, MOUNT, atol=1e-9)
    odometry.view('camera', 9000 * MILLI)
    assert 'the nearest stamp is 8 s away' in odometry.check()
    hint.lose('its quaternion is zero')
    assert '1 messages so far' in odometry.check() and 'is zero' in odometry.check()
    assert '1 used' in odometry.description() and '/robot/wheels' in odometry.description()


def test_an_odometry_without_a_body_takes_the_robots_frame_if_there_is_one():
    for base_frame, expected in (('', None), ('base_link', MOUNT)):
        odometry, hint, tree = listening(base_frame)
        tree.add(edge('base_link', 'camera', MOUNT), static=True)
        hint.take(message(1000, frames=('odom', '')))
        view = odometry.view('camera', 1000 * MILLI)
        assert (view is None) == (expected is None)
        assert ('child_frame_id' in odometry.check()) == (expected is None)


def test_an_odometry_of_the_camera_itself_needs_no_transform():
    odometry, hint, _ = listening()
    hint.take(message(1000, frames=('odom', 'camera')))
    np.testing.assert_array_equal(odometry.view('camera', 1000 * MILLI).base_from_camera,
                                  np.eye(4))


def test_a_mount_that_turns_is_where_it_is_at_the_image_or_was_last():
    odometry, hint, tree = listening()
    hint.take(message(1000))
    for milliseconds, turn in ((900, 0.0), (1100, 0.2)):
        tree.add(edge('base_link', 'camera', motion(np.array([0, 0, turn, 0, 0, 0])),
                      milliseconds * MILLI), static=False)
    for milliseconds, turn in ((1000, 0.1), (1300, 0.2)):
        expected = motion(np.array([0, 0, turn, 0, 0, 0]))
        np.testing.assert_allclose(
            odometry.view('camera', milliseconds * MILLI).base_from_camera, expected, atol=1e-6)
    assert odometry.check() == ''


@pytest.mark.parametrize('metres', [None, 1.0])
def test_a_covered_camera_goes_on_with_the_odometry(metres):
    world = SyntheticWorld(SPLITS['test'][1], 320, 240)
    odometry, hint, tree = listening()
    tree.add(edge('base_link', 'camera', MOUNT), static=True)
    for index in range(60):
        pose = world.path.world_from_camera(index / 25) @ np.linalg.inv(MOUNT)
        hint.take(message(1000 + 40 * index, pose[:3, 3].tolist(),
                          quaternion_from_matrix(pose[:3, :3])))
    tracker = StreamTrajectory(TrajectorySettings('tracked', True), DepthSettings('off'), Log(),
                               odometry=odometry)
    found = []
    for index in range(10):
        frame = world.frame(index / RATE)
        pixels = frame.image * (index < 4)
        found.append(tracker.track(pixels, None, result_of(frame, index), RESIZE,
                                   10 ** 9 + round(index * 1e9 / RATE), metres, 'camera'))
    tracker.close()
    assert [tracked.source for _, tracked in found] == (
        ['first'] + ['tracks'] * 3 + ['odometry'] * 6)
    assert odometry.check() == ''
    start, true, tracked = (np.linalg.inv(world.path.world_from_camera(0.0)),
                            world.path.world_from_camera(9 / RATE), found[-1][1])
    pose = torch.linalg.inv(found[-1][0].camera_from_world.double()).numpy()
    np.testing.assert_allclose(pose[:3, :3], (start @ true)[:3, :3], atol=0.03)
    linear, angular = world.velocity(8.5 / RATE)
    np.testing.assert_allclose(tracked.velocity[:3], angular, atol=0.05)
    if metres is not None:    # by scale.mode: four frames do not tell how long a metre is
        assert np.linalg.norm((start @ true - pose)[:3, 3]) < 0.15
        np.testing.assert_allclose(tracked.velocity[3:], linear, atol=0.1)
        assert tracked.velocity_covariance[3, 3] < 0.1
    else:
        assert tracked.velocity_covariance[3, 3] > 1.0


def test_it_is_used_only_if_asked_for_and_only_where_poses_are_tracked():
    asked = DEFAULTS.changed({'trajectory.use_odometry': True})
    for settings in (asked, DEFAULTS):
        settings.check()
        found = make_odometry(settings, MetricScale(logging.getLogger()), TransformTree(), Log())
        assert (found is not None) == (settings is asked)
    for other in ({'trajectory.mode': 'network'}, {'image_topics': ['left', 'right']}):
        with pytest.raises(ValueError, match='trajectory.use_odometry needs trajectory.mode'):
            asked.changed(other).check()
        DEFAULTS.changed(other).check()


def test_the_log_tells_that_the_odometry_is_used_when_it_is_and_again_only_if_it_was(
        monkeypatch, caplog):
    caplog.set_level(logging.INFO)
    monkeypatch.setattr(lasting_fault, 'LASTS', 0.0)
    odometry, hint, tree = listening()
    hint.take(message(900, (float('nan'), 0.0, 0.0)))
    assert 'refused' in odometry.check() and 'made without odometry' in caplog.text
    hint.take(message(1000))
    assert odometry.check() == ''     # no image has shown yet whether it can be used
    odometry.view('camera', 1000 * MILLI)
    assert "'base_link'" in odometry.check() and 'is used' not in caplog.text
    tree.add(edge('base_link', 'camera', MOUNT), static=True)
    odometry.view('camera', 1000 * MILLI)
    assert odometry.check() == '' and 'is used for the trajectory now' in caplog.text
    assert 'again' not in caplog.text
    odometry.view('camera', 9000 * MILLI)
    assert 'the nearest stamp' in odometry.check()
    odometry.view('camera', 1000 * MILLI)
    assert odometry.check() == '' and 'is used for the trajectory again' in caplog.text


def test_no_odometry_and_one_that_is_not_used_are_the_same():
    world = SyntheticWorld(SPLITS['test'][1], 320, 240)
    frames = [world.frame(index / RATE) for index in range(8)]
    odometry, _, _ = listening()    # of which nothing comes
    found = []
    for source in (None, odometry):
        tracker = StreamTrajectory(TrajectorySettings('tracked'), DepthSettings('auto'), Log(),
                                   odometry=source)
        for index, frame in enumerate(frames):
            pixels = frame.image * (index < 6)
            found.append(tracker.track(pixels, None, result_of(frame, index), RESIZE,
                                       10 ** 9 + round(index * 1e9 / RATE), None, 'camera'))
        tracker.close()
    for (result, tracked), (other, same) in zip(found[:8], found[8:]):
        assert tracked.source == same.source
        assert torch.equal(result.camera_from_world, other.camera_from_world)
        np.testing.assert_array_equal(tracked.covariance, same.covariance)
