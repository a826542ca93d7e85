"""A stream finds itself in a saved map, in its own time, and never in another room."""

from dataclasses import replace

from loop_scene import Room, ROUND, round_way, snapshots
import numpy as np
import pytest
from safetensors.numpy import load

from xsvggt_ros.geometry.similarity import apply_to_pose, scales
from xsvggt_ros.trajectory.config import TrajectoryConfig
from xsvggt_ros.trajectory.landmark_file import _map_of, to_bytes
from xsvggt_ros.trajectory.landmark_map import KeptKeyframes, landmark_map
from xsvggt_ros.trajectory.localizer import describe_refusals, Localizer
from xsvggt_ros.trajectory.loop_closer import LoopCloser
from xsvggt_ros.trajectory.map_search import MapMatch, MapSearch, SeenLandmarks
from xsvggt_ros.trajectory.pose_graph import similarity_of

CONFIG = TrajectoryConfig()
UNIT = 1.7       # of the stream, for one of the map's


@pytest.fixture(scope='module')
def saved():
    """Return a room's map, as it comes from its file."""
    room, way = Room(), round_way(ROUND)
    keyframes = tuple(room.keyframe(number, pose) for number, pose in enumerate(way))
    return _map_of(to_bytes(landmark_map(KeptKeyframes(keyframes, way), np.eye(4), 1.0, False)))


def other_way(count=10, begin=7):
    """Return the true poses of a camera that takes another way through the room."""
    poses = round_way(begin + count)[begin:]
    beside = np.array([0.02, 0.05, 0, 0.15, -0.1, 0.1, 0])
    return poses @ similarity_of(beside)


def odometry_of(true, unit=UNIT):
    """Return the poses as a stream has them that begins at the first one."""
    poses = np.linalg.inv(true[0]) @ true
    poses[:, :3, 3] *= unit
    return poses


def followed(saved, true, room=None, localizer=None):
    """Return a localizer that has had a whole stream, and what the stream has become."""
    localizer = localizer or Localizer(saved, CONFIG)
    closer = LoopCloser(CONFIG)
    for snapshot in snapshots(room or Room(), true, odometry_of(true),
                              np.full(len(true), UNIT)):
        closer.add(snapshot)
        localizer.add(snapshot, closer)
    return localizer, closer


def off(localizer, true):
    """Return by how much positions [N] and rotations [N] (deg) miss in the map."""
    placed = apply_to_pose(localizer.map_from_stream, odometry_of(true))
    turned = np.einsum('nij,nij->n', placed[:, :3, :3], true[:, :3, :3])
    return (np.linalg.norm(placed[:, :3, 3] - true[:, :3, 3], axis=1),
            np.degrees(np.arccos(np.clip((turned - 1) / 2, -1, 1))))


def test_a_stream_finds_itself_with_the_scale_of_the_map(saved):
    true = other_way()
    localizer, _ = followed(saved, true)
    report = localizer.report
    assert report.is_localized and report.confirmations >= CONFIG.localize_confirmations
    assert report.since == CONFIG.localize_confirmations - 1
    position, angle = off(localizer, true)
    assert position.max() < 0.03 and angle.max() < 0.5
    assert scales(localizer.map_from_stream) == pytest.approx(1 / UNIT, rel=0.03)


def test_fewer_keyframes_than_confirmations_are_not_believed(saved):
    localizer, _ = followed(saved, other_way(CONFIG.localize_confirmations - 1))
    assert localizer.map_from_stream is None and not localizer.report.is_localized
    assert localizer.report.since is None


def test_another_room_is_never_believed(saved):
    localizer, _ = followed(saved, other_way(20), Room(seed=1))
    assert localizer.map_from_stream is None and not localizer.report.is_localized
    assert sum(localizer.report.refused.values()) == 20


def test_a_poster_that_hangs_in_another_room_is_not_that_room(saved):
    home, other = Room().keyframe(0, np.eye(4)), Room(seed=1).keyframe(0, np.eye(4))
    rng = np.random.default_rng(0)
    poster = rng.permutation(len(home.points))[:30]   # where it is, all of it is as it was there
    room = np.arange(len(poster), len(other.points))

    def mixed(of_poster, of_room):
        return np.concatenate([of_poster[poster], of_room[room]])

    seen = replace(other.features, ids=np.arange(len(other.points)),
                   pixels=mixed(home.features.pixels, other.features.pixels),
                   descriptors=mixed(home.features.descriptors, other.features.descriptors))
    mixed_up = replace(home, features=seen, points=mixed(home.points, other.points),
                       variance=np.full(len(other.points), 1e-4))
    search = MapSearch(saved, CONFIG)
    found = search.find(mixed_up, np.empty((0, 0), np.uint8))
    assert isinstance(found, MapMatch) and found.inliers >= 25   # it is recognised, and yet
    assert found.share < CONFIG.localize_share
    there = search.find(home, np.empty((0, 0), np.uint8))
    assert isinstance(there, MapMatch) and there.share > 0.9


class Stream:
    """A stream whose keyframes stand in a row, whatever else is known of it."""

    def node(self, keyframe):
        return None if keyframe < 0 else node_of(keyframe)


def node_of(keyframe):
    pose = np.eye(4)
    pose[0, 3] = 0.1 * keyframe
    return pose


def sighting(keyframe, map_from_stream, share=0.6, second=0, inliers=60):
    """Return how a keyframe of Stream is recognised, with landmarks that say the same."""
    node = node_of(keyframe)
    camera = np.array([[300.0, 0, 160], [0, 300.0, 120], [0, 0, 1]])
    rng = np.random.default_rng(abs(keyframe))
    pixels = rng.uniform((0, 0), (320, 240), (40, 2))
    depths = rng.uniform(2, 4, 40)
    local = np.concatenate([pixels - camera[:2, 2], np.full((40, 1), 300.0)], 1) / 300 * (
        depths[:, None])
    placed = map_from_stream @ node
    points = local @ placed[:3, :3].T + placed[:3, 3]
    return MapMatch(keyframe, placed, 3.0, inliers, share, second, SeenLandmarks(
        points, points - placed[:3, 3], np.full(40, 1e-3), pixels, depths, np.ones(40), camera,
        1.0))


HERE = similarity_of(np.array([0, 1.0, 0, 2, 0, 1, 0.3]))
THERE = similarity_of(np.array([0, -0.5, 0, -4, 0, 1, 0.3]))


def taken(saved, sightings):
    localizer = Localizer(saved, CONFIG)
    for one in sightings:
        localizer.take(one, Stream())
    return localizer


def test_two_answers_are_none(saved):
    both = [sighting(number, (HERE, THERE)[number % 2]) for number in range(12)]
    assert taken(saved, both).map_from_stream is None
    # More of one than of the other are believed, and the others do not pull at it.
    localizer = taken(saved, both + [sighting(number, HERE) for number in range(12, 18)])
    assert np.allclose(localizer.map_from_stream, HERE, atol=1e-3)


def test_what_is_not_clear_does_not_count(saved):
    localizer = taken(saved, [sighting(number, HERE, share=0.1) for number in range(5)]
                      + [sighting(number, HERE, second=50) for number in range(5, 10)]
                      + [sighting(-1, HERE)] * 5 + ['few matches'] * 2)
    assert localizer.map_from_stream is None
    assert localizer.report.refused == {
        'too little of what should be seen': 5, 'ambiguous': 5, 'few matches': 2}
    assert describe_refusals(localizer.report) == (
        "keyframes that were not recognised: 5 (too little is seen of the map's landmarks), "
        '5 (several places fit), 2 (too few features look like the map)')


@pytest.mark.slow
def test_what_is_believed_is_corrected_slowly(saved):
    localizer = taken(saved, [sighting(number, HERE) for number in range(5)])
    moved = HERE.copy()
    moved[:3, 3] += 0.1
    before = localizer.map_from_stream
    steps = []
    for number in range(5, 40):
        localizer.take(sighting(number, moved), Stream())
        node = Stream().node(number)
        now = localizer.map_from_stream
        steps.append(np.linalg.norm(((now - before) @ node)[:3, 3]))
        before = now
    assert max(steps) < 0.5 * np.sqrt(3) * 0.1   # of the whole correction, at once
    assert np.allclose(before, moved, atol=0.03) and localizer.report.confirmations > 20


def test_a_stream_that_is_taken_elsewhere_is_found_there(saved):
    localizer = taken(saved, [sighting(number, HERE) for number in range(6)])
    for number in range(6, 20):
        localizer.take(sighting(number, THERE), Stream())
    assert np.allclose(localizer.map_from_stream, THERE, atol=1e-3)


def test_the_map_is_only_read(saved):
    before = load(to_bytes(saved))
    followed(saved, other_way(6))
    after = load(to_bytes(saved))
    assert all(np.array_equal(after[name], values, equal_nan=True)
               for name, values in before.items())


def test_a_stream_without_features_is_nowhere(saved):
    room, true = Room(), other_way(1)
    keyframe = room.keyframe(0, true[0])
    seen = keyframe.features
    nothing = replace(keyframe, features=replace(
        seen, pixels=seen.pixels[:0], descriptors=seen.descriptors[:0], ids=seen.ids[:0]),
        points=keyframe.points[:0], variance=keyframe.variance[:0])
    assert MapSearch(saved, CONFIG).find(nothing, np.zeros((240, 320), np.uint8)) == 'few matches'
