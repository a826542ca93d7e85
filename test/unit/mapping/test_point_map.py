"""The voxel map: bounded, nothing mixed, and the same in whatever unit."""

import numpy as np
import pytest
import torch

from xsvggt_ros.mapping.map_files import cloud_from_packed, make_cloud, pack
from xsvggt_ros.mapping.point_map import PointMap
from xsvggt_ros.mapping.voxel_table import MOST_SEEN, PROBES
from xsvggt_ros.model.error_table import ErrorTable

EYE = torch.eye(4)


def packed(points, colours=None, confidence=None):
    points = np.asarray(points, np.float64).reshape(-1, 3)
    colours = np.full(points.shape, 100) if colours is None else np.asarray(colours)
    confidence = np.ones(len(points)) if confidence is None else np.asarray(confidence)
    return torch.from_numpy(pack(make_cloud(points, colours, confidence)))


def random_cloud(count, seed=0, spread=1.0):
    rng = np.random.default_rng(seed)
    return packed(rng.normal(size=(count, 3)) * spread, rng.integers(0, 256, (count, 3)),
                  rng.uniform(1, 9, count))


def random_transform(seed=0):
    rng = np.random.default_rng(seed)
    q, r = np.linalg.qr(rng.normal(size=(3, 3)))
    matrix = np.eye(4)
    matrix[:3, :3] = q * np.linalg.det(q)
    matrix[:3, 3] = rng.normal(size=3)
    return torch.from_numpy(matrix)


def contents(world):
    """Return the map's points [N, 3] and colours [N, 3] and confidence [N], in a fixed order."""
    cloud = cloud_from_packed(world.points().numpy())
    cloud = np.sort(cloud, order=['x', 'y', 'z'])
    return (np.stack([cloud[name] for name in 'xyz'], -1),
            np.stack([cloud[name] for name in ('red', 'green', 'blue')], -1).astype(int),
            cloud['confidence'])


def expected_means(clouds, size):
    """Return what the map should hold, {voxel: (position, colour, confidence)}, point by point."""
    seen = {}
    for cloud in clouds:
        frame = {}
        for row in cloud_from_packed(cloud.numpy()):
            point = np.array([row['x'], row['y'], row['z']], np.float64)
            colour = np.array([row['red'], row['green'], row['blue']], np.float64)
            frame.setdefault(tuple(np.floor(point / size).astype(int)), []).append(
                (point, colour, float(row['confidence'])))
        for voxel, rows in frame.items():
            weights = [row[2] for row in rows]
            seen.setdefault(voxel, []).append((
                np.average([row[0] for row in rows], axis=0, weights=weights),
                np.average([row[1] for row in rows], axis=0, weights=weights), np.mean(weights)))
    return {voxel: (np.average([row[0] for row in rows], axis=0, weights=[r[2] for r in rows]),
                    np.average([row[1] for row in rows], axis=0, weights=[r[2] for r in rows]),
                    np.mean([row[2] for row in rows])) for voxel, rows in seen.items()}


# What it holds -----------------------------------------------------------------------------------

def test_each_voxel_holds_the_weighted_mean_of_what_was_seen_there():
    clouds = [random_cloud(2000, seed) for seed in range(4)]
    world = PointMap(2 ** 13, voxel_size=0.4)
    for cloud in clouds:
        world.add(cloud, EYE)
    expected = expected_means(clouds, 0.4)
    points, colours, confidence = contents(world)
    assert len(points) == len(expected) > 500
    for point, colour, sure in zip(points, colours, confidence):
        mean, mean_colour, mean_sure = expected[tuple(np.floor(point / 0.4).astype(int))]
        np.testing.assert_allclose(point, mean, atol=1e-5)
        np.testing.assert_allclose(colour, mean_colour, atol=0.51)
        assert sure == pytest.approx(mean_sure, rel=1e-5)


def test_where_errors_are_known_depths_count_by_their_inverse_variance():
    world = PointMap(64, voxel_size=1.0, depth_errors=ErrorTable((1.0, 9.0), (0.2, 0.1)))
    nearer = torch.eye(4)
    nearer[2, 3] = -0.8
    world.add(packed([0, 0, 1.2], [[0, 0, 0]], [9.0]), EYE)        # is off by 0.12
    world.add(packed([0, 0, 2.4], [[90, 90, 90]], [9.0]), nearer)    # 0.24
    world.add(packed([0, 0, 1.2], [[180, 180, 180]], [1.0]), EYE)    # 0.24
    points, colours, confidence = contents(world)
    np.testing.assert_allclose(points, [(0, 0, (4 * 1.2 + 1.6 + 1.2) / 6)], atol=1e-5)
    assert colours.tolist() == [[45] * 3]
    assert confidence[0] == pytest.approx(19 / 3)   # the mean


def test_clouds_are_moved_into_the_maps_frame():
    matrix = torch.tensor([[0, -1, 0, 10], [1, 0, 0, 20], [0, 0, 1, 30], [0, 0, 0, 1.0]])
    world = PointMap(16, voxel_size=0.5)
    world.add(packed([1, 2, 3], [[1, 2, 3]], [4.0]), matrix)
    points, colours, confidence = contents(world)
    np.testing.assert_allclose(points, [(8, 21, 33)], atol=1e-5)
    assert colours.tolist() == [[1, 2, 3]] and confidence.tolist() == [4.0]


def test_adding_a_cloud_again_changes_nothing():
    cloud, transform = random_cloud(3000), random_transform()
    world = PointMap(2 ** 14, voxel_size=0.1)
    world.add(cloud, transform)
    once = contents(world)
    for _ in range(2 * MOST_SEEN):
        world.add(cloud, transform)
    for before, after in zip(once, contents(world)):
        np.testing.assert_allclose(after, before, rtol=1e-4, atol=1e-5)


def test_the_order_of_the_points_does_not_matter():
    cloud = random_cloud(3000)
    straight, turned = (PointMap(2 ** 14, voxel_size=0.2) for _ in range(2))
    straight.add(cloud, EYE)
    turned.add(cloud.flip(0), EYE)
    for a, b in zip(contents(straight), contents(turned)):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)


def test_noise_averages_out_and_what_moved_is_followed():
    rng = np.random.default_rng(0)
    world = PointMap(16, voxel_size=1.0)
    for _ in range(MOST_SEEN):
        world.add(packed([0.5 + rng.normal(0, 0.05), 0.5, 0.5]), EYE)
    assert abs(contents(world)[0][0, 0] - 0.5) < 0.03
    for _ in range(4 * MOST_SEEN):
        world.add(packed([0.9, 0.5, 0.5]), EYE)
    assert contents(world)[0][0, 0] == pytest.approx(0.9, abs=0.02)


def test_many_points_of_one_cloud_count_once():
    world = PointMap(16, voxel_size=1.0)
    world.add(packed([[0.2, 0.5, 0.5]] * 1000), EYE)
    world.add(packed([0.4, 0.5, 0.5]), EYE)
    assert contents(world)[0][0, 0] == pytest.approx(0.3, abs=1e-5)


# Bounds ------------------------------------------------------------------------------------------

@pytest.mark.parametrize('places', [1, 64, 2048])
def test_a_map_is_bounded_and_says_what_was_lost(places):
    world = PointMap(places, voxel_size=0.01)
    memory = world._table.rows.data_ptr(), world._table.keys.data_ptr()
    lost = 0
    for seed in range(6):
        cloud = random_cloud(5000, seed)
        world.add(cloud, EYE)
        fill = world.fill()
        assert fill.capacity == max(places, 64)
        assert fill.points == len(world.points()) <= fill.capacity
        assert world.voxel_size == 0.01
        lost += fill.lost
        assert fill.lost_total == lost
    assert fill.points > 0.9 * fill.capacity and fill.lost > 0.5 * 5000
    assert memory == (world._table.rows.data_ptr(), world._table.keys.data_ptr())


def test_until_four_fifths_are_taken_hardly_a_point_is_lost():
    world = PointMap(2 ** 12, voxel_size=0.001)
    for seed in range(8):
        world.add(random_cloud(2 ** 12 // 10, seed, spread=100.0), EYE)
    fill = world.fill()
    assert 0.79 < fill.points / fill.capacity <= 0.8
    assert fill.lost_total <= 2 ** 12 * 0.8 ** PROBES * 2 + 3


def test_what_is_there_survives_a_map_that_is_full():
    world = PointMap(256, voxel_size=0.01)
    first = random_cloud(100)
    world.add(first, EYE)
    before = {tuple(point) for point in np.round(contents(world)[0], 4)}
    for seed in range(1, 5):
        world.add(random_cloud(5000, seed, spread=30.0), EYE)
    assert before <= {tuple(point) for point in np.round(contents(world)[0], 4)}


@pytest.mark.parametrize('places', [64, 1024])
def test_voxels_that_meet_in_the_table_never_mix(places):
    rng = np.random.default_rng(0)
    # Whole voxels apart, far and near, each with a colour that tells which one it is.
    voxels = np.unique(rng.integers(-2 ** 19, 2 ** 19, (4000, 3)), axis=0)
    near = np.stack(np.meshgrid(*[np.arange(-3, 4)] * 3), -1).reshape(-1, 3)
    voxels = np.concatenate([near, voxels])
    colours = np.stack([voxels[:, i] * 37 % 256 for i in range(3)], -1)
    world = PointMap(places, voxel_size=1.0)
    for _ in range(3):
        world.add(packed(voxels + 0.5, colours), EYE)
    points, seen, _ = contents(world)
    np.testing.assert_allclose(points - np.floor(points), 0.5, atol=1e-3)
    where = np.floor(points).astype(int)
    np.testing.assert_array_equal(seen, np.stack([where[:, i] * 37 % 256 for i in range(3)], -1))


def test_what_is_no_number_or_too_far_is_left_out():
    cloud = random_cloud(100)
    whole = PointMap(1024, voxel_size=0.1)
    whole.add(cloud[60:], EYE)
    cloud[:10, 0], cloud[10:20, 1], cloud[20:30, 2] = np.nan, np.inf, 3e38
    cloud[30:40, 4], cloud[40:50, 4], cloud[50:60, 0] = np.nan, np.inf, -2.0 ** 20 * 0.11
    world = PointMap(1024, voxel_size=0.1)
    world.add(cloud, EYE)
    for a, b in zip(contents(world), contents(whole)):
        np.testing.assert_array_equal(a, b)
    world.add(cloud[:60], random_transform())
    world.add(cloud[60:], torch.full((4, 4), torch.nan))
    assert world.fill() == whole.fill()


def test_far_from_the_origin_points_stay_in_their_voxels():
    far = np.array([[1000.0, -1000.0, 800.0]])     # 5 cm voxels, a kilometre away
    world = PointMap(16, voxel_size=0.05)
    world.add(packed(far + 0.025), EYE)
    np.testing.assert_allclose(contents(world)[0], far + 0.025, atol=1e-3)


# Voxel sizes and units ---------------------------------------------------------------------------

def test_the_first_cloud_chooses_a_voxel_size_until_the_map_is_cleared():
    world = PointMap(2 ** 14)
    world.add(packed(np.empty((0, 3))), EYE)
    assert world.voxel_size == 0 and len(world.points()) == 0
    world.add(packed([[np.nan] * 3]), EYE)
    assert world.voxel_size == 0
    world.add(random_cloud(5000), EYE)
    size = world.voxel_size
    assert 0.02 < size < 0.04     # 5.7, the diagonal of 90 % of the points each way, over 200
    world.add(random_cloud(500, spread=50.0), EYE)
    assert world.voxel_size == size
    world.clear()
    assert world.fill().points == world.voxel_size == 0
    world.add(random_cloud(5000, spread=10.0), EYE)
    assert world.voxel_size == pytest.approx(10 * size, rel=1e-4)


@pytest.mark.parametrize('places', [64, 1024])
def test_a_map_that_chose_its_voxels_never_fills_but_gets_coarser(places):
    world = PointMap(places)
    sizes, reach = [], 0.0
    for seed in range(12):
        cloud = random_cloud(1000, seed, spread=1.0 + seed)
        reach = max(reach, cloud[:, :3].norm(dim=1).max().item())
        world.add(cloud, EYE)
        sizes.append(world.voxel_size)
        fill = world.fill()
        assert 1 <= fill.points == len(world.points()) <= fill.capacity
    for _ in range(20):
        world.add(cloud, EYE)
    assert 0.1 < world.fill().points / places <= 0.75
    assert world.fill().lost == 0
    sizes.append(world.voxel_size)
    assert sizes == sorted(sizes) and sizes[-1] > sizes[0]
    assert np.log2(sizes[-1] / sizes[0]) == pytest.approx(round(np.log2(sizes[-1] / sizes[0])))
    assert world.points()[:, :3].norm(dim=1).max() < 1.01 * reach + sizes[-1]


@pytest.mark.parametrize('points', [[[0, 0, 0]], [[5, 5, 5]] * 100, [[1e-20, 0, 0]]])
def test_a_first_cloud_without_extent_is_a_map_too(points):
    world = PointMap(64)
    world.add(packed(points), EYE)
    assert world.fill().points == 1 and world.voxel_size > 0


@pytest.mark.parametrize('factor', [0.01, 0.37, 1.0, 12.5])
def test_a_chosen_voxel_grows_with_the_unit(factor):
    cloud, transform = random_cloud(3000), random_transform()
    world = PointMap(2 ** 14)
    world.add(cloud, transform)
    before, size = contents(world), world.voxel_size
    world.rescale(factor)
    after = contents(world)
    np.testing.assert_allclose(after[0], factor * before[0], rtol=1e-4, atol=1e-5 * factor)
    np.testing.assert_array_equal(after[1], before[1])
    assert world.voxel_size == pytest.approx(factor * size)


def test_a_given_voxel_stays_as_it_is_in_another_unit():
    cloud = random_cloud(3000)
    world = PointMap(2 ** 14, voxel_size=0.05)
    world.add(cloud, EYE)
    for factor in (1.0, 4.0, 0.25):     # 1: each point is in its own voxel again
        before = contents(world)
        world.rescale(factor)
        points, colours, confidence = contents(world)
        assert world.voxel_size == 0.05
        voxels = np.floor(points / 0.05 + 1e-4)
        assert len(np.unique(voxels, axis=0)) > 0.99 * len(points)
        if factor >= 1:
            assert len(points) == len(before[0])
            np.testing.assert_allclose(points, factor * before[0], atol=1e-4)
            np.testing.assert_array_equal(colours, before[1])
            np.testing.assert_allclose(confidence, before[2], rtol=1e-5)
    world.rescale(0.1)
    assert len(world.points()) < 0.5 * len(points)
    np.testing.assert_allclose(world.points()[:, :3].norm(dim=1).max(),
                               0.1 * np.linalg.norm(points, axis=1).max(), rtol=0.1)


def test_voxels_can_be_resized_and_coarser_ones_hold_less():
    world = PointMap(2 ** 14, voxel_size=0.05)
    cloud = random_cloud(3000)
    world.add(cloud, EYE)
    fine = world.fill().points
    world.resize_voxels(0.5)
    assert world.voxel_size == 0.5
    points = contents(world)[0]
    expected = expected_means([cloud], 0.5)
    assert len(points) == len(expected) < fine
    for point in points:      # a mean of means: not weighted by the number of points in each
        assert np.linalg.norm(point - expected[tuple(np.floor(point / 0.5).astype(int))][0]) < 0.2
    world.resize_voxels(0.0)
    assert world.voxel_size == 0.5 and world.fill().points == len(points)
    world.clear()
    assert world.voxel_size == 0
    for size in (0.3, 0.0):     # of an empty map
        world.resize_voxels(size)
        assert world.voxel_size == size


def test_a_rescaled_map_goes_on_as_one_that_was_in_that_unit_from_the_start():
    clouds = [random_cloud(2000, seed) for seed in range(4)]
    grown, straight = (PointMap(2 ** 14) for _ in range(2))
    for i, cloud in enumerate(clouds):
        scaled = cloud.clone()
        scaled[:, :3] *= 2
        straight.add(scaled, EYE)
        if i == 2:
            grown.rescale(2.0)
        grown.add(scaled if i >= 2 else cloud, EYE)
    for a, b in zip(contents(grown), contents(straight)):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4)


def test_what_each_keyframe_saw_moves_by_its_own_similarity():
    world = PointMap(4096, 0.1)
    first, second = random_cloud(200, 1), random_cloud(200, 2)
    away = EYE.double().clone()
    away[0, 3] = 50.0
    world.add(first, EYE, 3)
    world.add(second, away, 8)
    turn = random_transform(3).numpy()
    turn[:3, :3] *= 1.5
    asked = []

    def similarities(keyframes):
        asked.append(keyframes.tolist())
        return np.stack([np.eye(4), turn])

    before = contents(world)[0]
    world.move(similarities)
    assert asked == [[3, 8]]
    there = before[:, 0] > 25
    expected = np.concatenate([before[~there], before[there] @ turn[:3, :3].T + turn[:3, 3]])
    found = contents(world)[0]
    # Some meet in a voxel and are one point now; the others are where they belong.
    distance = np.linalg.norm(found[:, None] - expected[None], axis=-1).min(1)
    assert len(found) > 0.8 * len(expected) and np.median(distance) < 1e-4
    assert distance.max() < 0.2


def test_an_empty_map_moves_without_asking():
    PointMap(64).move(pytest.fail)


def test_a_voxel_goes_with_the_newest_keyframe_that_saw_it():
    world = PointMap(64, 1.0)
    for keyframe in (5, 9, 7):
        world.add(packed([[0.5, 0.5, 0.5]]), EYE, keyframe)
    world.resize_voxels(0.5)
    world.move(lambda keyframes: pytest.fail() if keyframes.tolist() != [9] else np.eye(4)[None])


def test_memory_is_52_bytes_a_place():
    world = PointMap(2 ** 10)
    tensors = (world._table.keys, world._table.rows, world._table.scratch)
    assert sum(t.numel() * t.element_size() for t in tensors) == 52 * 2 ** 10
