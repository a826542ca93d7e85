"""A stream's place by landmarks, some of whose keyframes have depths that are off together."""

import numpy as np

from xsvggt_ros.geometry.similarity import apply_to_pose, inverse_similarity
from xsvggt_ros.trajectory.config import TrajectoryConfig
from xsvggt_ros.trajectory.landmark_alignment import align_landmarks
from xsvggt_ros.trajectory.map_search import SeenLandmarks
from xsvggt_ros.trajectory.pose_graph import similarity_of
from xsvggt_ros.trajectory.projection import project

CAMERA = np.array([[300.0, 0, 160], [0, 300.0, 120], [0, 0, 1]])
TRUE = similarity_of(np.array([0.1, 0.4, -0.05, 1.2, 0.1, 0.6, 0.3]))   # map_from_stream


def seen_along_a_way(errors):
    """
    Return nodes [8, 4, 4] and what they see, of landmarks 4 to 6 units before them.

    errors: of log depth, of each keyframe of the map, that all of its landmarks have in common.
    """
    rng = np.random.default_rng(4)
    walls = rng.uniform((-3, -2, 4), (3, 2, 6), (4 * len(errors), 10, 3)).reshape(-1, 3)
    owner = np.arange(len(walls)) % len(errors)
    eyes = np.stack([np.linspace(-0.4, 0.4, len(errors)), np.zeros(len(errors)),
                     np.zeros(len(errors))], -1)[owner]
    along = (walls - eyes) * np.exp(np.asarray(errors)[owner] + rng.normal(0, 0.02, len(walls))
                                    )[:, None]
    nodes, seen = [], []
    for number in range(8):
        pose = similarity_of(np.array([0, 0.02 * number, 0, 0.3 * number - 1, 0.1, 0.5, 0]))
        node = inverse_similarity(TRUE) @ pose
        local = (walls - pose[:3, 3]) @ pose[:3, :3]
        pixels = project(local, CAMERA)
        inside = ((pixels > 0) & (pixels < (320, 240))).all(1)
        depths = local[inside, 2] * np.exp(rng.normal(0, 0.05, inside.sum()))
        nodes.append(node)
        seen.append(SeenLandmarks(
            owner[inside], (eyes + along)[inside], along[inside], np.full(inside.sum(), 4e-4),
            pixels[inside], depths, np.ones(inside.sum()), CAMERA, 1.0))
    return np.array(nodes), seen


def missed(errors):
    """Return by how much the stream's positions are off in the map, the largest."""
    nodes, seen = seen_along_a_way(errors)
    guess = TRUE @ similarity_of(np.array([0.02, -0.03, 0.01, 0.1, -0.05, 0.1, 0.05]))
    found = align_landmarks(guess, nodes, seen, TrajectoryConfig())
    return np.linalg.norm((apply_to_pose(found, nodes) - apply_to_pose(TRUE, nodes))[:, :3, 3],
                          axis=1).max()


def test_landmarks_that_are_right_put_a_stream_where_it_is():
    assert missed([0.0] * 6) < 0.03


def test_depths_that_are_off_together_in_some_keyframes_do_not_mislead_it():
    assert missed([-0.2, -0.2, -0.2, 0, 0, 0]) < 0.02
    assert missed([0, 0, 0, 0, 0.2, 0.2]) < 0.02
