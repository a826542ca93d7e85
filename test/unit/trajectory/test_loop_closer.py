"""Loops are found, close the way, are refused with a reason, and cost bounded memory."""

from dataclasses import replace

from loop_scene import drifting, Room, ROUND, round_way, snapshots, wrong
import numpy as np
import pytest

from xsvggt_ros.geometry import metrics
from xsvggt_ros.geometry.similarity import scales
from xsvggt_ros.trajectory.config import TrajectoryConfig
from xsvggt_ros.trajectory.loop_closer import LoopCloser


def off(poses, true):
    return metrics.position_errors(poses[:, :3, 3], true[:, :3, 3])[1]


def closed(count=2 * ROUND + 6, config=None, change=lambda snapshot: snapshot):
    true = round_way(count)
    odometry, unit = drifting(true, np.random.default_rng(4))
    closer = LoopCloser(config or TrajectoryConfig())
    for snapshot in snapshots(Room(), true, odometry, unit):
        closer.add(change(snapshot))
    closer.close(30)
    corrected = np.array([closer.corrections.pose(number, pose)
                          for number, pose in enumerate(odometry)])
    return closer, corrected, odometry, true, unit


def test_a_second_round_takes_the_drift_of_the_first_one_out():
    closer, corrected, odometry, true, unit = closed()
    assert closer.report.found > 10
    assert off(corrected, true) < 0.3 * off(odometry, true)
    # What was seen in units that grow is brought back to that of the beginning.
    told = scales(closer.corrections.similarities)
    assert unit[-1] > 1.15 and told[-1] * unit[-1] == pytest.approx(1.0, abs=0.1)
    assert closer.report.moved > 0.02 and closer.report.turned > 0.05


def test_one_round_has_nothing_to_close():
    closer, corrected, odometry, _, _ = closed(ROUND - 6)
    assert closer.report.found == 0 and np.array_equal(corrected, odometry)


def test_loops_are_off_without_settled_places():
    closer, corrected, odometry, _, _ = closed(change=lambda one: replace(one, settled=()))
    assert closer.report.found == 0 and np.allclose(corrected, odometry)


def test_places_that_look_alike_and_lie_elsewhere_are_refused_with_a_reason():
    room, true = Room(), round_way(2 * ROUND)
    cheat = room.keyframe(1, true[1])
    beside = np.eye(4)
    beside[:3, 3] = 0, 1.5, 0
    odometry = true.copy()
    closer = LoopCloser(TrajectoryConfig())
    for snapshot in snapshots(room, true, odometry):
        number = snapshot.keyframe.id
        if number == ROUND - 2:   # nothing like keyframe 1, two steps of the circle away
            snapshot = replace(snapshot, keyframe=wrong(
                replace(snapshot.keyframe, points=cheat.points, variance=cheat.variance),
                room.keyframe(1, true[1] @ beside)))
        if number > ROUND - 2:
            break
        closer.add(snapshot)
    assert closer.report.found == 0
    assert sum(closer.report.refused.values()) > 0
    assert set(closer.report.refused) <= {'few matches', 'no pose', 'few inliers', 'no scale',
                                          'depths disagree', 'implausible'}


@pytest.mark.slow
def test_memory_is_bounded_and_loops_still_close():
    config = TrajectoryConfig(keyframes=36)
    closer, corrected, odometry, true, _ = closed(4 * ROUND, config)
    assert len(closer.corrections.keyframes) <= 36
    assert len(closer._database) <= 36 and len(closer._loops) <= 3 * 36
    assert off(corrected, true) < 0.5 * off(odometry, true)


def test_the_more_loops_there_are_the_fewer_keyframes_are_looked_for(monkeypatch):
    asked, search = [], LoopCloser._search
    monkeypatch.setattr(LoopCloser, '_search', lambda closer, new: asked.append(
        (new.id, len(closer._loops))) or search(closer, new))
    monkeypatch.setattr('xsvggt_ros.trajectory.loop_closer._SKIPPED', 10)
    closer, corrected, odometry, true, _ = closed(4 * ROUND)
    steps = [(after - before, loops) for (before, _), (after, loops) in zip(asked, asked[1:])]
    assert [step for step, _ in steps] == [1 + loops // 10 for _, loops in steps]
    assert steps[-1][0] > 3 and off(corrected, true) < 0.3 * off(odometry, true)
    # One whose pose is a guess is looked for whenever it comes.
    number = len(odometry)
    at = true[number % ROUND]
    guess = replace(Room().keyframe(number, at), guessed=True)
    for since in range(2):
        snapshot = snapshots(Room(), true[:1], true[:1])
        first = next(iter(snapshot))
        assert closer._is_due(replace(first, keyframe=replace(guess, id=number + since)))


def test_a_keyframe_that_was_only_guessed_is_put_right_by_the_loop():
    count, gap = 2 * ROUND + 6, ROUND // 2
    true = round_way(count)
    odometry = true.copy()
    jump = np.eye(4)
    jump[:3, 3] = 0.6, 0.2, -0.4
    odometry[gap:] = odometry[gap - 1] @ jump @ np.linalg.inv(true[gap - 1]) @ true[gap:]
    closer = LoopCloser(TrajectoryConfig())
    for snapshot in snapshots(Room(), true, odometry):
        if snapshot.keyframe.id == gap:
            snapshot = replace(snapshot, keyframe=replace(snapshot.keyframe, guessed=True))
        closer.add(snapshot)
    closer.close(30)
    corrected = np.array([closer.corrections.pose(number, pose)
                          for number, pose in enumerate(odometry)])
    assert off(odometry, true) > 0.2 and off(corrected, true) < 0.03
