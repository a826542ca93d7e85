"""The synthetic world: the same picture every time, and geometry that is true."""

import numpy as np
import pytest

from xsvggt_ros.cli.main import main
from xsvggt_ros.mapping.map_files import read_tum
from xsvggt_ros.recordings.image_folder import ImageFolder
from xsvggt_ros.world.path import DrivePath, ErrandPath
from xsvggt_ros.world.renderer import Intrinsics, Renderer
from xsvggt_ros.world.scene import (
    Box,
    build_scene,
    choose_room_size,
    Material,
    PATH_CLEARANCE,
    Scene,
)
from xsvggt_ros.world.sensor import Sensor
from xsvggt_ros.world.synthetic_world import SPLITS, SyntheticWorld, WorldFrame


@pytest.fixture(scope='module')
def world():
    return SyntheticWorld(0, 160, 120)


@pytest.fixture(scope='module')
def empty_room(world):
    """Return a room of 8 x 6 x 3 m without furniture."""
    return Scene((8.0, 6.0, 3.0), world.scene.walls, world.scene.textures)


def looking(x, y, z, heading):
    """Return the pose of a level camera that looks along `heading` (rad, from x to y)."""
    pose = np.eye(4)
    pose[:3, 0] = np.sin(heading), -np.cos(heading), 0.0
    pose[:3, 1] = 0.0, 0.0, -1.0
    pose[:3, 2] = np.cos(heading), np.sin(heading), 0.0
    pose[:3, 3] = x, y, z
    return pose


def unproject(frame: WorldFrame) -> np.ndarray:
    """Return the world points [H, W, 3] of all pixels, by the pixel convention."""
    k = frame.intrinsics
    u, v = np.meshgrid(np.arange(k.width), np.arange(k.height))
    rays = np.stack([(u - k.cx) / k.fx, (v - k.cy) / k.fy, np.ones(u.shape)], axis=-1)
    points = rays * frame.depth[..., None]
    return points @ frame.world_from_camera[:3, :3].T + frame.world_from_camera[:3, 3]


def test_same_seed_gives_the_same_bytes():
    first, second = (SyntheticWorld(7, 64, 48).frame(1.3) for _ in range(2))
    np.testing.assert_array_equal(first.image, second.image)
    np.testing.assert_array_equal(first.depth, second.depth)
    np.testing.assert_array_equal(first.world_from_camera, second.world_from_camera)


def test_another_seed_gives_another_world(world):
    other = SyntheticWorld(1, 160, 120)
    assert other.scene.size != world.scene.size
    assert np.abs(other.frame(0).image.astype(int) - world.frame(0).image).mean() > 10


def test_a_frame_has_the_promised_types(world):
    frame = world.frame(0.0)
    assert frame.image.shape == (120, 160, 3) and frame.image.dtype == np.uint8
    assert frame.depth.shape == (120, 160) and frame.depth.dtype == np.float32
    assert frame.intrinsics.cx == 80 and frame.intrinsics.cy == 60
    rotation = frame.world_from_camera[:3, :3]
    np.testing.assert_allclose(rotation @ rotation.T, np.eye(3), atol=1e-12)
    assert np.linalg.det(rotation) == pytest.approx(1.0)


def test_depth_of_a_wall_seen_square_on_is_its_distance(empty_room):
    camera = Intrinsics(101, 75, 90.0, 80.0, 50.0, 37.0)
    _, depth = Renderer(empty_room, camera).render(looking(2.0, 3.0, 1.5, 0.0))
    # All pixels that see the wall x = 8 have the same z-depth, 6 m.
    assert depth[37, 50] == pytest.approx(6.0, abs=1e-5)
    assert depth[37, 30] == pytest.approx(6.0, abs=1e-5)
    # Pixel (u, v) looks along ((u - cx) / fx, (v - cy) / fy, 1): the floor, 1.5 m below the
    # camera, is met at depth 1.5 * fy / (v - cy).
    assert depth[74, 50] == pytest.approx(1.5 * 80.0 / (74 - 37), abs=1e-5)
    # And the wall y = 0, 3 m to the right, at 3 * fx / (u - cx).
    assert depth[37, 100] == pytest.approx(3.0 * 90.0 / (100 - 50), abs=1e-5)


def test_a_box_hides_the_wall_exactly_where_it_stands(empty_room):
    box = Box((5.0, 3.0, 1.5), (1.0, 1.0, 1.0), 0.0, Material('crate'))
    scene = Scene(empty_room.size, empty_room.walls, empty_room.textures, [box])
    camera = Intrinsics(201, 201, 100.0, 100.0, 100.0, 100.0)
    _, depth = Renderer(scene, camera).render(looking(2.5, 3.0, 1.5, 0.0))
    # Its front is 2 m away and 1 m wide: 100 / 2 * 0.5 = 25 pixels to either side.
    row = depth[100]
    np.testing.assert_allclose(row[76:125], 2.0, atol=1e-5)
    np.testing.assert_allclose(row[[74, 126]], 5.5, atol=1e-5)


def test_a_turned_box_is_met_at_its_edge(empty_room):
    box = Box((5.0, 3.0, 1.5), (1.0, 1.0, 1.0), np.pi / 4, Material('crate'))
    scene = Scene(empty_room.size, empty_room.walls, empty_room.textures, [box])
    camera = Intrinsics(201, 201, 100.0, 100.0, 100.0, 100.0)
    _, depth = Renderer(scene, camera).render(looking(2.5, 3.0, 1.5, 0.0))
    assert depth[100, 100] == pytest.approx(2.5 - np.sqrt(0.5), abs=1e-4)


def test_a_box_around_and_behind_the_camera_is_drawn_right(empty_room):
    # Reaches from behind the camera to before it, so some corners have no projection.
    table = Box((2.0, 3.0, 1.0), (4.0, 2.0, 0.1), 0.0, Material('wood'))
    scene = Scene(empty_room.size, empty_room.walls, empty_room.textures, [table])
    camera = Intrinsics(101, 101, 50.0, 50.0, 50.0, 50.0)
    _, depth = Renderer(scene, camera).render(looking(2.0, 3.0, 1.5, 0.0))
    assert depth[100, 50] == pytest.approx(0.45 * 50.0 / 50, abs=1e-5)
    assert depth[74, 50] == pytest.approx(0.45 * 50.0 / 24, abs=1e-5)     # 0.94 m: on the table
    assert depth[60, 50] == pytest.approx(6.0, abs=1e-5)                  # over its edge


def test_all_points_lie_on_surfaces(world):
    frame = world.frame(2.0)
    points = unproject(frame).reshape(-1, 3)
    size = np.asarray(world.scene.size)
    distance = np.minimum(np.abs(points), np.abs(points - size)).min(axis=1)
    for box in world.scene.boxes:
        local = np.abs(box.local_from_world(points)) - np.asarray(box.size) / 2
        outside = np.linalg.norm(np.maximum(local, 0.0), axis=1)
        distance = np.minimum(distance, np.where(outside > 0, outside, -local.max(axis=1)))
    assert distance.max() < 1e-4


def test_two_views_agree_on_what_both_see(world):
    first, second = world.frame(3.0), world.frame(3.4)
    points = unproject(first).reshape(-1, 3)
    k = second.intrinsics
    local = (points - second.world_from_camera[:3, 3]) @ second.world_from_camera[:3, :3]
    ahead = local[:, 2] > 0.1
    u = local[ahead, 0] / local[ahead, 2] * k.fx + k.cx
    v = local[ahead, 1] / local[ahead, 2] * k.fy + k.cy
    column, row = np.rint(u).astype(int), np.rint(v).astype(int)
    # Only where the projection meets a pixel's centre: in between the depth is another one.
    seen = ((column >= 0) & (column < k.width) & (row >= 0) & (row < k.height)
            & (np.abs(u - column) < 0.1) & (np.abs(v - row) < 0.1))
    depth = local[ahead, 2][seen]
    difference = np.abs(second.depth[row[seen], column[seen]] - depth) / depth
    assert seen.sum() > 300
    # The rest is hidden from one of the two, or lies on an edge.
    assert (difference < 0.02).mean() > 0.9
    colours = first.image.reshape(-1, 3)[ahead][seen].astype(int)
    same = np.abs(colours - second.image[row[seen], column[seen]])[difference < 0.005]
    assert np.median(same) < 12


def draw(seed, kind):
    """Return a path of a kind and the room it leads through."""
    rng = np.random.default_rng(seed)
    size = choose_room_size(rng)
    path = DrivePath(rng, size) if kind == 'drive' else ErrandPath(
        rng, size, handheld=kind == 'hand')
    return path, size, rng


@pytest.mark.parametrize('kind', ['drive', 'errand', 'hand'])
@pytest.mark.parametrize('seed', range(4))
def test_the_way_is_clear_of_furniture(world, seed, kind):
    path, size, rng = draw(seed, kind)
    scene = build_scene(rng, size, path.floor_path, world.scene.textures)
    assert len(scene.boxes) > 10
    times = np.linspace(0.0, 60.0, 600)
    places = np.array([path.world_from_camera(time)[:3, 3] for time in times])
    assert scene.is_free(places).all()
    for box in scene.boxes:
        if box.centre[2] + box.size[2] / 2 > 0.2:
            assert box.ground_distance(places).min() > PATH_CLEARANCE - 0.02


def test_the_drive_is_smooth_and_closed():
    path, _, _ = draw(0, 'drive')
    lap = path.length / path.speed
    np.testing.assert_allclose(path.world_from_camera(lap + 1.0), path.world_from_camera(1.0),
                               atol=1e-9)
    poses = [path.world_from_camera(index / 30) for index in range(int(30 * lap))]
    for before, after in zip(poses, poses[1:]):
        assert np.linalg.norm(after[:3, 3] - before[:3, 3]) < 1.2 * path.speed / 30
        turn = np.trace(before[:3, :3].T @ after[:3, :3])
        assert np.arccos(np.clip((turn - 1) / 2, -1, 1)) < np.deg2rad(3.0)


@pytest.mark.slow
@pytest.mark.parametrize('kind', ['errand', 'hand'])
@pytest.mark.parametrize('seed', range(6))
def test_an_errand_is_smooth_stops_turns_and_comes_back(seed, kind):
    path, _, _ = draw(seed, kind)
    times = np.arange(0.0, 300.0, 1 / 30)
    poses = np.array([path.world_from_camera(time) for time in times])
    # A smooth step is at most 1.5 times as fast as its mean; a hand adds its swaying.
    moved = np.linalg.norm(np.diff(poses[:, :3, 3], axis=0), axis=1) * 30
    assert moved.max() < 1.5 * 0.6 + 0.15
    turned = np.einsum('nij,nij->n', poses[:-1, :3, :3], poses[1:, :3, :3])
    rate = np.arccos(np.clip((turned - 1) / 2, -1, 1)) * 30
    assert rate.max() < 1.5 * 0.7 + 0.4
    # It turns in place (and with an eased start stands still for a moment) ...
    assert ((moved < 0.16) & (rate > 0.3)).sum() > 30
    # ... looks half of the way around at least, and passes its first place again.
    heading = np.arctan2(poses[:, 1, 2], poses[:, 0, 2])
    assert len(np.unique(np.floor(heading / (np.pi / 4)))) >= 4
    away = np.linalg.norm(poses[:, :2, 3] - poses[0, :2, 3], axis=1)
    assert away.max() > 1.0 and (away[900:] < 0.05).any()


def test_no_split_shares_a_room_or_a_texture_with_another():
    worlds = [SyntheticWorld(seeds.start, 32, 24) for seeds in SPLITS.values()]
    for one, other in zip(worlds, worlds[1:] + worlds[:1]):
        assert one.scene.size != other.scene.size
        assert not np.array_equal(one.scene.textures.texels, other.scene.textures.texels)
    ranges = sorted(SPLITS.values(), key=lambda seeds: seeds.start)
    assert all(one.stop <= other.start for one, other in zip(ranges, ranges[1:]))


def test_each_wall_has_its_own_hue_in_every_room(world):
    for seed in range(3):
        tints = [wall.tint for wall in SyntheticWorld(seed, 32, 24).scene.walls[:4]]
        red, blue, green, yellow = tints
        assert red[0] > 1.3 * max(red[1:]) and blue[2] > 1.2 * max(blue[:2])
        assert green[1] > 1.2 * max(green[0], green[2]) and min(yellow[:2]) > 1.4 * yellow[2]


def test_views_from_anywhere_stand_free_and_look_everywhere():
    world, rng = SyntheticWorld(5, 48, 36), np.random.default_rng(0)
    views = [world.view(rng) for _ in range(40)]
    places = np.array([view.world_from_camera[:3, 3] for view in views])
    assert world.scene.is_free(places).all() and np.ptp(places[:, :2], axis=0).min() > 2.5
    headings = np.array([view.world_from_camera[:2, 2] for view in views])
    assert len({(x > 0, y > 0) for x, y in headings}) == 4
    assert min(np.quantile(view.depth, 0.1) for view in views) > 0.35


def test_the_sensor_adds_noise_exposure_and_blur_but_no_geometry():
    clean, seen = SyntheticWorld(3, 96, 72, clean=True), SyntheticWorld(3, 96, 72)
    np.testing.assert_array_equal(clean.frame(2.0).depth, seen.frame(2.0).depth)
    means = [(seen.frame(time).image.mean() / clean.frame(time).image.mean())
             for time in (0.0, 2.0, 4.0, 6.0)]
    assert 0.7 < min(means) < max(means) < 1.25 and np.ptp(means) > 0.005
    still = np.full((72, 96, 3), 128, np.uint8)
    sensor = Sensor(np.random.default_rng(0), 96, 72)
    first, again, later = (sensor.expose(still, time, (0.0, 0.0)) for time in (1.0, 1.0, 1.1))
    np.testing.assert_array_equal(first, again)
    assert 2.0 < first.astype(float).std() < 3.5 and (first != later).mean() > 0.5
    # A step that moves 500 pixels a second is smeared over the 6 of the shutter's time.
    step = np.zeros((72, 96, 3), np.uint8)
    step[:, 48:] = 200
    profile = sensor.expose(step, 0.0, (500.0, 0.0)).astype(float).mean(axis=(0, 2))
    assert ((profile > 10) & (profile < 195)).sum() == 6
    upright = sensor.expose(step, 0.0, (0.0, 500.0)).astype(float).mean(axis=(0, 2))
    assert ((upright > 10) & (upright < 195)).sum() == 0


def test_velocity_is_the_derivative_of_the_pose(world):
    linear, angular = world.velocity(5.0)
    pose, later = world.path.world_from_camera(5.0), world.path.world_from_camera(5.01)
    np.testing.assert_allclose(pose[:3, :3] @ linear, (later - pose)[:3, 3] / 0.01, atol=0.02)
    spin = pose[:3, :3].T @ (later - pose)[:3, :3] / 0.01
    np.testing.assert_allclose(angular, [spin[2, 1], spin[0, 2], spin[1, 0]], atol=0.02)


def test_textures_have_detail_at_several_scales(world):
    image = world.frame(0.0).image.astype(np.float32).mean(axis=2)
    for step in (1, 4, 16):
        assert np.abs(image[:, step:] - image[:, :-step]).mean() > 3.0


def test_rendered_folder_plays_and_matches_the_world(tmp_path):
    assert main(['world', 'render', '--seed', '2', '--frames', '3', '--size', '64x48', '--rate',
                 '20', '--out', str(tmp_path)]) == 0
    world = SyntheticWorld(2, 64, 48)
    folder = ImageFolder(tmp_path / 'images')
    assert folder.rate == pytest.approx(20.0)
    np.testing.assert_allclose(folder.calibration.camera_matrix, world.intrinsics.matrix())
    poses = read_tum(tmp_path / 'poses.tum')
    for index, frame in enumerate(folder.frames()):
        truth = world.frame(index / 20)
        np.testing.assert_array_equal(frame.pixels, truth.image)
        assert poses[index].stamp_ns == frame.stamp_ns
        np.testing.assert_allclose(poses[index].matrix(), truth.world_from_camera, atol=1e-6)
        depth = np.load(tmp_path / 'depth' / f'{frame.stamp_ns}.npy')
        np.testing.assert_array_equal(depth, truth.depth)


def files_in(folder):
    return {str(file.relative_to(folder)): file.read_bytes()
            for file in folder.rglob('*') if file.is_file()}


def test_a_shorter_stream_leaves_nothing_of_the_one_before(tmp_path):
    render = ['world', 'render', '--seed', '2', '--size', '32x24', '--out']
    assert main([*render, str(tmp_path / 'a'), '--frames', '5', '--rate', '20']) == 0
    for arguments in (['--frames', '2', '--rate', '20'], ['--frames', '3', '--rate', '7']):
        assert main([*render, str(tmp_path / 'a'), *arguments]) == 0
        assert main([*render, str(tmp_path / 'b'), *arguments]) == 0
        assert files_in(tmp_path / 'a') == files_in(tmp_path / 'b')


def test_an_interrupted_stream_is_whole_as_far_as_it_goes(tmp_path, monkeypatch, capsys):
    real, calls = SyntheticWorld.frame, []

    def interrupted(self, time):
        calls.append(time)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return real(self, time)

    render = ['world', 'render', '--seed', '2', '--size', '32x24', '--out', str(tmp_path)]
    with monkeypatch.context() as patch:
        patch.setattr(SyntheticWorld, 'frame', interrupted)
        assert main([*render, '--frames', '9']) == 130
    told = capsys.readouterr()
    assert f'3 of 9 images, their depth maps, poses and calibration are in {tmp_path}' in told.out
    assert not told.err
    folder = ImageFolder(tmp_path / 'images')
    stamps = [frame.stamp_ns for frame in folder.frames()]
    assert folder.calibration is not None and len(stamps) == 3
    assert [pose.stamp_ns for pose in read_tum(tmp_path / 'poses.tum')] == stamps
    # An error, here between an image and its depth map, is no different; and begun anew it goes.
    with monkeypatch.context() as patch:
        patch.setattr(np, 'save', lambda *_: (_ for _ in ()).throw(OSError('disk full')))
        assert main([*render, '--frames', '9']) == 1
    assert 'cannot write to' in capsys.readouterr().err
    assert not list((tmp_path / 'images').iterdir()) and not read_tum(tmp_path / 'poses.tum')
    assert main([*render, '--frames', '2']) == 0
    assert len(list((tmp_path / 'images').iterdir())) == 2


@pytest.mark.parametrize('name', ['images/holiday.png', 'images/1000000100000000.png',
                                  'depth/notes.txt'])
@pytest.mark.parametrize('poses', [None, '5.0 0 0 0 0 0 0 1\n', 'no poses'])
def test_other_files_are_neither_removed_nor_played_with_the_world(tmp_path, capsys, name, poses):
    (tmp_path / name).parent.mkdir()
    (tmp_path / name).write_text('precious')
    if poses is not None:
        (tmp_path / 'poses.tum').write_text(poses)
    before = files_in(tmp_path)
    assert main(['world', 'render', '--size', '32x24', '--frames', '2', '--out',
                 str(tmp_path)]) == 1
    words = capsys.readouterr().err
    assert (tmp_path / name).name in words and '--out' in words
    assert files_in(tmp_path) == before
