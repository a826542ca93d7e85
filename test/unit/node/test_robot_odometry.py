"""The odometry of a robot below the map: what is corrected, when it is held, and what is said."""

import numpy as np
import pytest

from xsvggt_ros.mapping.transform_tree import LookupError_
from xsvggt_ros.node.outputs.robot_odometry import LATE, RobotOdometry, StreamPose
from xsvggt_ros.node.settings import DEFAULTS
from xsvggt_ros.node.tracked_pose import Localization, LoopState, TrackedPose
from xsvggt_ros.trajectory.corrections import Corrections
from xsvggt_ros.trajectory.loop_closer import LoopReport
from xsvggt_ros.trajectory.map_frame import MapFrame
from xsvggt_ros.trajectory.projection import motion

SETTINGS = DEFAULTS.changed({
    'base_frame': 'base_link', 'robot_odom_frame': 'odom', 'publish_map_tf': True,
    'scale.mode': 'fixed'}).pose
ORIGIN = motion(np.array([0.1, -0.2, 0.4, 3.0, 1.0, -0.5]))   # of the odometry, in the room
SLIP = motion(np.array([0.0, 0.0, 0.02, 0.05, 0.0, 0.0]))     # of its wheels, at each step


class Robot:
    """Drives through a room; TF has where its wheels say that it is."""

    def __init__(self):
        self.odometry = RobotOdometry(self)
        self.truth = motion(np.array([0.0, 0.3, 0.1, 1.0, 2.0, 0.0]))
        self.wheels = np.linalg.inv(ORIGIN) @ self.truth
        self.began = self.truth           # where the stream did
        self.stamp, self.known, self.places = 0, True, {}
        self.map_frame, self.found = MapFrame.none(), 0

    def lookup(self, target_frame, source_frame, stamp_ns):
        assert (target_frame, source_frame) == ('odom', 'base_link')
        if stamp_ns not in self.places:
            raise LookupError_("TF has no frame 'odom'")
        return self.places[stamp_ns]

    def drive(self, source='tracks', slip=SLIP, is_metric=True, missed=np.eye(4), known=True):
        """Drive a step; `missed`, of the stream, was not seen. Return what is published."""
        step = motion(np.array([0.02, 0.1, -0.03, 0.2, 0.05, 0.01]))
        self.truth = self.truth @ step
        self.wheels = self.wheels @ step @ slip
        self.began = self.truth @ np.linalg.inv(missed) @ np.linalg.inv(self.truth) @ self.began
        self.stamp += 10 ** 8
        if known:
            self.places[self.stamp] = self.wheels
        loops = LoopState(self.map_frame, 3, LoopReport(self.found, {}, 0.0, 0.0),
                          np.eye(4)[None], localization=self.localization())
        self.odometry.follow(StreamPose(
            self.stamp, np.linalg.inv(self.began) @ self.truth, self.map_frame,
            TrackedPose(source, 50, 0.5, np.eye(6), None, None, loops), is_metric), SETTINGS)
        return self.odometry.map_from_robot

    def localization(self):
        localized = self.map_frame.is_localized
        return None if localized is None else Localization(
            self.stamp if localized else None, 4 if localized else 0, {}, True)

    def in_map(self):
        """Return where the robot is in the map, as TF has it."""
        return self.odometry.map_from_robot @ self.wheels


def far(first, second):
    return np.abs(first - second).max()


def test_the_map_begins_as_the_odometry_and_takes_its_drift():
    robot = Robot()
    np.testing.assert_allclose(robot.drive(), np.eye(4), atol=1e-9)
    # The room is where the odometry was when the correction began.
    map_from_room = robot.wheels @ np.linalg.inv(robot.truth)
    for _ in range(20):
        robot.drive()
        np.testing.assert_allclose(robot.in_map(), map_from_room @ robot.truth, atol=1e-9)
    assert far(robot.wheels, map_from_room @ robot.truth) > 0.5    # what there was to correct
    told = robot.odometry.correction
    assert told.state.startswith('corrects ') and not told.fault
    # What is drawn in the odometry frame of the node is where the robot is, too.
    there = robot.odometry.map_from_stream @ np.linalg.inv(robot.began) @ robot.truth
    np.testing.assert_allclose(there, robot.in_map(), atol=1e-9)


def test_an_odometry_that_jumps_does_not_move_the_robot_in_the_map():
    robot = Robot()
    robot.drive()
    map_from_room = robot.in_map() @ np.linalg.inv(robot.truth)
    robot.wheels = motion(np.array([0.5, 1.0, -0.3, 9.0, -4.0, 2.0]))   # its driver has restarted
    robot.drive()
    np.testing.assert_allclose(robot.in_map(), map_from_room @ robot.truth, atol=1e-9)


def test_a_new_stream_goes_on_where_the_odometry_has_it():
    robot = Robot()
    for _ in range(5):
        robot.drive()
    before = robot.odometry.map_from_robot
    robot.odometry.begin_stream()
    robot.began = robot.truth
    np.testing.assert_array_equal(robot.drive(is_metric=False), before)   # held meanwhile
    assert robot.odometry.map_from_stream is None
    told = robot.odometry.correction
    assert "'map' -> 'odom' is held at" in told.fault and 'scale.mode' in told.fault
    np.testing.assert_allclose(robot.drive(), before, atol=1e-9)
    assert robot.odometry.map_from_stream is not None and not robot.odometry.correction.fault
    assert far(robot.drive(), before) > 0.01     # and goes on correcting


def test_nothing_is_published_before_lengths_are_metres():
    robot = Robot()
    assert robot.drive(is_metric=False) is None and robot.odometry.map_from_stream is None
    told = robot.odometry.correction
    assert "'map' -> 'odom' is not published: lengths are not metres yet" in told.fault
    np.testing.assert_allclose(robot.drive(), np.eye(4), atol=1e-9)


def test_late_transforms_are_compared_when_they_come():
    robot = Robot()
    robot.drive()
    map_from_room = robot.in_map() @ np.linalg.inv(robot.truth)
    before = robot.odometry.map_from_robot
    np.testing.assert_array_equal(robot.drive(known=False), before)
    late, truth = robot.wheels, robot.truth
    robot.places[robot.stamp] = late
    # The newest image for whose time they are there counts.
    after = robot.drive(known=False)
    np.testing.assert_allclose(after @ late, map_from_room @ truth, atol=1e-9)
    assert far(after, before) > 0.01
    for _ in range(LATE - 1):
        robot.drive(known=False)
        assert not robot.odometry.correction.fault
    np.testing.assert_array_equal(robot.drive(known=False), after)
    told = robot.odometry.correction
    assert all(words in told.fault for words in (
        'is held at', "'base_link' is in 'odom'", "TF has no frame 'odom'", 'robot_odom_frame'))
    for _ in range(50):     # what waits is bounded
        robot.drive(known=False)
    robot.drive()
    np.testing.assert_allclose(robot.in_map(), map_from_room @ robot.truth, atol=1e-9)
    assert not robot.odometry.correction.fault


def missed_motion(robot):
    """Have the camera covered for a while; return what it has missed."""
    missed = motion(np.array([0.1, 0.0, 0.2, 1.0, 0.5, 0.0]))
    before = robot.odometry.map_from_robot
    for source in ('hold', 'network'):
        np.testing.assert_array_equal(robot.drive(source, slip=np.eye(4)), before)
    assert 'lost' in robot.odometry.correction.state and not robot.odometry.correction.fault
    return missed, before


def test_a_robot_whose_camera_is_covered_goes_on_by_its_wheels():
    robot = Robot()
    robot.drive(slip=np.eye(4))
    map_from_room = robot.in_map() @ np.linalg.inv(robot.truth)
    missed, before = missed_motion(robot)
    began = robot.began
    np.testing.assert_allclose(
        robot.drive(slip=np.eye(4), missed=missed), before, atol=1e-9)
    robot.drive()    # what is seen from now on counts again
    np.testing.assert_allclose(robot.in_map(), map_from_room @ robot.truth, atol=1e-9)
    # A loop joins what was before with what comes after: the stream knows better now.
    robot.found, robot.began = 1, began
    robot.map_frame = MapFrame(Corrections.none(), np.eye(4))
    robot.drive()
    np.testing.assert_allclose(robot.in_map(), map_from_room @ robot.truth, atol=1e-9)
    np.testing.assert_allclose(
        robot.odometry.map_from_stream, map_from_room @ began, atol=1e-9)


def test_a_camera_that_recognises_what_it_saw_needs_no_wheels():
    robot = Robot()
    robot.drive(slip=np.eye(4))
    map_from_room = robot.in_map() @ np.linalg.inv(robot.truth)
    robot.drive('hold', slip=SLIP)
    assert far(robot.in_map(), map_from_room @ robot.truth) > 0.01    # the wheels are believed
    robot.drive('matches')
    np.testing.assert_allclose(robot.in_map(), map_from_room @ robot.truth, atol=1e-9)


def test_a_saved_map_is_where_it_is():
    robot = Robot()
    robot.map_frame = MapFrame(Corrections.none(), np.eye(4), is_localized=False)
    assert robot.drive() is None
    assert 'not localised in the saved map' in robot.odometry.correction.fault
    robot.map_frame = MapFrame(Corrections.none(), np.eye(4), is_localized=True)
    robot.began = ORIGIN      # the map of the stream is the saved one now
    robot.drive()
    np.testing.assert_allclose(robot.in_map(), np.linalg.inv(ORIGIN) @ robot.truth, atol=1e-9)
    robot.odometry.begin_stream()
    before = robot.odometry.map_from_robot
    robot.map_frame = MapFrame(Corrections.none(), np.eye(4), is_localized=False)
    np.testing.assert_array_equal(robot.drive(), before)     # by the wheels, until it is found
    robot.map_frame = MapFrame(Corrections.none(), np.eye(4), is_localized=True)
    assert robot.drive(is_metric=False) is before
    assert 'neither is the saved map' in robot.odometry.correction.fault
    robot.drive()
    np.testing.assert_allclose(robot.in_map(), np.linalg.inv(ORIGIN) @ robot.truth, atol=1e-9)


@pytest.mark.parametrize('again', ['recording', 'activation'])
def test_a_recording_and_an_activation_begin_anew(again):
    robot = Robot()
    for _ in range(5):
        robot.drive()
    assert far(robot.odometry.map_from_robot, np.eye(4)) > 0.1
    if again == 'recording':
        robot.stamp = 0
    else:
        robot.odometry.forget()
        assert robot.odometry.map_from_robot is None
    np.testing.assert_allclose(robot.drive(), np.eye(4), atol=1e-9)
