"""Loops that are closed in the midst of a keyframe: what was seen is where they say, whenever."""

import numpy as np
import pytest
from test_stream_trajectory import followed_to_the_end, RATE, trajectory

from xsvggt_ros.trajectory.corrections import Corrections
from xsvggt_ros.trajectory.projection import motion
from xsvggt_ros.world.synthetic_world import SPLITS, SyntheticWorld


@pytest.fixture
def states(monkeypatch):
    """Return what is told of loops at each image, one being closed after each keyframe."""
    poses = {}

    def closing(closer, snapshot, search):
        poses.update(zip(snapshot.ids.tolist(), snapshot.poses))
        numbers = np.array(sorted(poses))
        similarity = motion(np.array([0, 0.05, 0, 0.1, 0, 0])) @ np.diag([1.1, 1.1, 1.1, 1])
        moved = np.array([np.linalg.matrix_power(similarity, number) for number in numbers])
        closer.nodes = Corrections(numbers, moved @ np.array([poses[k] for k in numbers]))
        closer.corrections = Corrections(numbers, moved)

    monkeypatch.setattr('xsvggt_ros.trajectory.loop_closer.LoopCloser.add', closing)
    world = SyntheticWorld(SPLITS['test'][1], 320, 240)
    tracker = trajectory(correction='off')
    found = [followed_to_the_end(tracker, world.frame(index / RATE / 2), 2 * index)[1].loops
             for index in range(16)]
    tracker.close()
    return found


def test_it_does_not_matter_when_loops_are_followed(states):
    changed = [index for index in range(1, len(states))
               if states[index].map_frame is not states[index - 1].map_frame]
    within = [index for index in changed if states[index].keyframe == states[index - 1].keyframe]
    assert len(within) > 2
    last, longest = states[-1].map_frame, 0.0
    for index, state in enumerate(states):
        number = np.array([state.placement])
        moves = [last.moves(before.map_frame, number)[0] for before in states[:index + 1]]
        np.testing.assert_allclose(moves, [moves[-1]] * (index + 1), atol=1e-9)
        longest = max(longest, np.linalg.norm(moves[-1][:3, 3]))
    assert longest > 0.1
    # Nor does what is seen at a loop move by that loop.
    for index in within:
        moved = states[index].map_frame.moves(states[0].map_frame,
                                              np.array([states[index].placement]))
        np.testing.assert_allclose(moved[0], np.eye(4), atol=1e-9)
