"""A map has the landmarks that keyframes have, in one frame, and nothing else of them."""

from dataclasses import replace

from loop_scene import Room, round_way
import numpy as np
import pytest

from xsvggt_ros.trajectory.landmark_map import KeptKeyframes, landmark_map
from xsvggt_ros.trajectory.pose_graph import similarity_of

SIMILARITY = similarity_of(np.array([0.1, 0.2, -0.3, 1, 2, 3, np.log(2)]))


@pytest.fixture
def kept():
    room, way = Room(landmarks=300), round_way(3)
    return KeptKeyframes(tuple(room.keyframe(number, pose) for number, pose in enumerate(way)),
                         way)


def world(landmarks):
    return [keyframe.points @ pose[:3, :3].T + pose[:3, 3]
            for keyframe, pose in zip(landmarks.keyframes, landmarks.poses)]


@pytest.mark.parametrize('spoil', [
    lambda keyframe: keyframe.points.__setitem__((2, 1), np.nan),
    lambda keyframe: keyframe.points.__setitem__(2, -keyframe.points[2]),
    lambda keyframe: keyframe.points.__setitem__((2, 0), np.inf),
    lambda keyframe: keyframe.variance.__setitem__(2, 0.0),
    lambda keyframe: keyframe.variance.__setitem__(2, np.nan)])
def test_a_feature_without_a_landmark_is_left_out_with_all_that_is_its(kept, spoil):
    old = kept.keyframes[1]
    old.variance[:] = np.linspace(0.1, 0.2, len(old.variance))
    spoil(old)
    new = landmark_map(kept, np.eye(4), 1.0, False).keyframes[1]
    for there, here in ((new.features.ids, old.features.ids),
                        (new.features.pixels, old.features.pixels),
                        (new.features.descriptors, old.features.descriptors),
                        (new.points, old.points), (new.variance, old.variance)):
        np.testing.assert_array_equal(there, np.delete(here, 2, axis=0))
    assert new.features.keyframe == old.features.keyframe == 1


def test_a_keyframe_without_landmarks_is_left_out_with_its_pose(kept):
    kept.keyframes[1].points[:] = np.nan
    saved = landmark_map(kept, np.eye(4), 1.0, True)
    assert [keyframe.id for keyframe in saved.keyframes] == [0, 2] and saved.is_metric
    np.testing.assert_allclose(saved.poses, kept.nodes[[0, 2]])
    assert saved.landmarks == sum(len(kept.keyframes[row].points) for row in (0, 2)) > 0


def test_keyframes_that_are_moved_take_their_landmarks_along(kept):
    before = world(landmark_map(kept, np.eye(4), 1.0, False))
    moved = landmark_map(kept.moved(SIMILARITY), np.eye(4), 1.0, False)
    for there, here in zip(world(moved), before):
        np.testing.assert_allclose(there, here @ SIMILARITY[:3, :3].T + SIMILARITY[:3, 3])
    assert kept.moved(SIMILARITY).keyframes is kept.keyframes


def test_each_keyframe_is_scaled_by_its_own_unit(kept):
    true = landmark_map(kept, np.eye(4), 1.0, False)
    units = (0.5, 1.0, 3.0)
    drifted = KeptKeyframes(
        tuple(replace(keyframe, points=unit * keyframe.points,
                      depth=np.float32(unit) * keyframe.depth)
              for keyframe, unit in zip(kept.keyframes, units)),
        np.stack([node @ np.diag([1 / unit] * 3 + [1]) for node, unit in zip(kept.nodes, units)]))
    found = landmark_map(drifted, np.eye(4), 1.0, False)
    np.testing.assert_allclose(found.poses, true.poses, atol=1e-12)
    for there, here in zip(found.keyframes, true.keyframes):
        np.testing.assert_allclose(there.points, here.points)
        np.testing.assert_allclose(there.depth, here.depth, rtol=1e-6)


def test_what_the_stream_goes_on_with_is_not_changed(kept):
    nodes, points = kept.nodes.copy(), kept.keyframes[0].points.copy()
    depth = kept.keyframes[0].depth.copy()
    landmark_map(kept.moved(SIMILARITY), SIMILARITY, 3.0, True)
    np.testing.assert_array_equal(kept.nodes, nodes)
    np.testing.assert_array_equal(kept.keyframes[0].points, points)
    np.testing.assert_array_equal(kept.keyframes[0].depth, depth)


def test_of_no_keyframes_there_is_an_empty_map():
    saved = landmark_map(KeptKeyframes.none().moved(SIMILARITY), np.eye(4), 2.0, False)
    assert saved.keyframes == () and saved.landmarks == 0 and saved.poses.shape == (0, 4, 4)
