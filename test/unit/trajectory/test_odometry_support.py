"""Wheels beside the camera: through darkness, when they slip, and how long their metre is."""

from dataclasses import replace
from functools import cache

import numpy as np
import pytest
from test_odometry import errors, frame_of, noisy, start

from xsvggt_ros.geometry.quaternions import quaternion_from_matrix
from xsvggt_ros.mapping.odometry_hint import OdometryHint
from xsvggt_ros.trajectory.config import TrajectoryConfig
from xsvggt_ros.trajectory.odometry import Odometry
from xsvggt_ros.trajectory.projection import inverse, motion
from xsvggt_ros.trajectory.relative_odometry import RelativeOdometry, View
from xsvggt_ros.world.synthetic_world import SPLITS, SyntheticWorld

RATE = 5.0
COUNT = 50
DARK = range(20, 45)       # five seconds
MOUNT = motion(np.array([0.4, -1.0, 0.6, 0.15, -0.1, 0.4]))   # of the camera on the robot


@cache
def room():
    """Return a world that the camera moves through, and what it sees."""
    world = SyntheticWorld(SPLITS['test'][1], 320, 240)
    return world, [world.frame(index / RATE) for index in range(COUNT)]


def wheels(slip=None, until=COUNT / RATE, noise=0.03, seed=0):
    """
    Return an odometry at 25 Hz, in a frame of its own: the true motion with noise.

    slip: seconds within which it says three times the way.
    """
    world, _ = room()
    rng = np.random.default_rng(seed)
    hint, last, pose = OdometryHint(), None, motion(rng.normal(0, 1, 6))
    for index in range(int(until * 25) + 1):
        true = world.path.world_from_camera(index / 25) @ inverse(MOUNT)
        if last is not None:
            step = inverse(last) @ true
            step[:3, 3] *= 3 if slip and slip[0] <= index / 25 < slip[1] else 1
            length = np.linalg.norm(step[:3, 3])
            step = step @ motion(np.r_[rng.normal(0, 0.3 * noise * length, 3),
                                       rng.normal(0, noise * length, 3)])
            pose = pose @ step
        last = true
        hint.add(round(index * 4e7), tuple(pose[:3, 3]), quaternion_from_matrix(pose[:3, :3]),
                 np.zeros(36))
    return hint


def black(frame):
    return replace(frame, grey=np.zeros((240, 320), np.uint8), depth=np.ones_like(frame.depth))


def stream(dark=(), unit=1.0):
    """
    Return what the network says of the room, its poses noisy, and black images in between.

    unit: of the network's, in a metre.
    """
    _, seen = room()
    truth = [one.world_from_camera for one in seen]
    frames = []
    for index, (one, pose) in enumerate(zip(seen, noisy(truth))):
        pose[:3, 3] *= unit
        frame = frame_of(one, pose, index)
        frame = replace(frame, depth=frame.depth * np.float32(unit),
                        view=View(round(index * 1e9 / RATE), MOUNT))
        frames.append(black(frame) if index in dark else frame)
    return frames, truth


def beside(hint, given=None, **config):
    world, _ = room()
    odometry = Odometry(world.intrinsics.matrix(), (320, 240), True, TrajectoryConfig(**config),
                        RelativeOdometry(hint))
    odometry.support.given = given
    return odometry


def run(odometry, frames, truth, unit=1.0):
    """Return estimates, and their distances from the truth in the odometry frame, in metres."""
    estimates = [odometry.step(frame) for frame in frames]
    off = [np.linalg.norm(one.odom_from_camera[:3, 3] / unit
                          - (inverse(truth[0]) @ true)[:3, 3])
           for one, true in zip(estimates, truth)]
    return estimates, np.array(off)


@cache
def alone(mode, dark):
    """Return what becomes of the stream without the odometry."""
    return run(start(optimize=mode == 'optimized'), *stream(DARK if dark else ()))


def poses(estimates):
    return [one.odom_from_camera for one in estimates]


@pytest.mark.slow
@pytest.mark.parametrize('mode', ['tracked', 'optimized'])
def test_through_darkness_the_odometry_carries_and_says_so(mode):
    frames, truth = stream(DARK)
    without, lost = alone(mode, True)
    helped, off = run(beside(wheels(), optimize=mode == 'optimized'), frames, truth)
    assert {one.source for one in without[20:45]} == {'hold'}
    assert {one.source for one in helped[20:45]} == {'odometry'}
    assert {one.source for one in helped[1:20]} == {'tracks'}
    assert helped[-1].source in ('tracks', 'matches')
    moved = np.linalg.norm(truth[44][:3, 3] - truth[19][:3, 3])
    assert moved > 1.0 and off[44] < 0.2 * lost[44]
    assert errors(poses(helped), truth)[0] < 0.3 * errors(poses(without), truth)[0]
    # As sure as the odometry, which is less and less; not as unsure as who knows nothing.
    variances = np.array([np.trace(one.covariance[3:, 3:]) for one in helped])
    # A step turns what is known into other axes, in which positions alone may be surer: not all.
    volumes = np.array([np.linalg.slogdet(one.covariance)[1] for one in helped])
    assert (np.diff(volumes[19:45]) > 0).all() and variances[44] > variances[19]
    assert variances[44] < 0.1 * np.trace(without[44].covariance[3:, 3:])
    assert off[44] < 4 * np.sqrt(variances[44])
    for one in helped:
        assert np.linalg.eigvalsh(one.covariance).min() > 0


@pytest.mark.slow
def test_how_long_a_metre_is_follows_from_what_was_tracked():
    frames, truth = stream(DARK, unit=0.4)
    odometry = beside(wheels())
    helped, off = run(odometry, frames[:45], truth, unit=0.4)
    assert odometry.support.units_per_metre.value == pytest.approx(0.4, rel=0.1)
    assert {one.source for one in helped[20:]} == {'odometry'}
    assert off[44] < 0.2 * alone('optimized', True)[1][44]


@pytest.mark.slow
def test_without_a_metre_the_odometry_turns_the_camera_and_scale_mode_may_give_one():
    frames, truth = stream(range(1, 12))      # dark from the second image on
    turned, _ = run(beside(wheels()), frames[:12], truth)
    given, off = run(beside(wheels(), given=1.0), frames[:12], truth)
    true = inverse(truth[0]) @ truth[11]
    for one in (turned[-1], given[-1]):
        assert one.source == 'odometry'
        np.testing.assert_allclose(one.odom_from_camera[:3, :3], true[:3, :3], atol=0.05)
    np.testing.assert_array_equal(turned[-1].odom_from_camera[:3, 3], 0)
    assert turned[-1].covariance[3, 3] > 1.0 > 100 * given[-1].covariance[3, 3]
    assert off[-1] < 0.1 * np.linalg.norm(true[:3, 3])


@pytest.mark.slow
def test_wheels_that_slip_do_not_lead_the_camera_away():
    frames, truth = stream()
    _, without = alone('optimized', False)
    slipping, off = run(beside(wheels(slip=(4.0, 5.0))), frames, truth)
    assert {one.source for one in slipping[1:]} == {'tracks'}
    # Half a metre too far by the wheels; no more than a fifth worse, or 2 cm.
    assert off.mean() < 1.2 * without.mean() + 0.02


@pytest.mark.slow
def test_an_odometry_that_comes_late_is_caught_up_with():
    frames, truth = stream(DARK)
    whole, now = wheels(), [0.0]

    class Late:
        def newest(self):
            return min(round(now[0] * 1e9), whole.newest())

        def around(self, stamp_ns):
            return whole.around(stamp_ns) if stamp_ns <= self.newest() else None

    odometry, off = beside(Late()), []
    for index, frame in enumerate(frames[:35]):
        # While it is dark nothing comes for a second; then the rest does.
        now[0] = index / RATE - 0.1 if not 25 <= index < 30 else 4.9
        off.append(odometry.step(frame))
    sources = [one.source for one in off]
    assert sources[20:26] == ['odometry'] * 6 and sources[26:30] == ['hold'] * 4
    assert sources[30:] == ['odometry'] * 5
    miss = [np.linalg.norm(one.odom_from_camera[:3, 3] - (inverse(truth[0]) @ true)[:3, 3])
            for one, true in zip(off, truth)]
    assert miss[29] > 3 * miss[34]           # what was held has been caught up with


@pytest.mark.slow
def test_frames_whose_place_on_the_robot_is_not_known_are_as_without_odometry():
    frames, truth = stream(DARK)
    without, _ = alone('optimized', True)
    blind = [replace(frame, view=None) for frame in frames[:25]]
    found, _ = run(beside(wheels()), blind, truth)
    for one, other in zip(found, without):
        np.testing.assert_array_equal(one.odom_from_camera, other.odom_from_camera)
        np.testing.assert_array_equal(one.covariance, other.covariance)
        assert one.source == other.source
