"""The wide world: what its cameras see is true, and follows from the seed."""

import numpy as np
from PIL import Image
import pytest

pytest.importorskip('embreex')
pytest.importorskip('numba')

from training.wide_world import kernels  # noqa: E402
from training.wide_world.__main__ import main as show  # noqa: E402
from training.wide_world.__main__ import write_rooms
from training.wide_world.camera import look_at, Shot  # noqa: E402
from training.wide_world.materials import Material  # noqa: E402
from training.wide_world.ray_tracer import RayTracer  # noqa: E402
from training.wide_world.room_shapes import draw_room, Room  # noqa: E402
from training.wide_world.scene import Light, Scene  # noqa: E402
from training.wide_world.sensor import expose, optical_flow  # noqa: E402
from training.wide_world.solids import Solids, TEMPLATES  # noqa: E402
from training.wide_world.textures import load_textures, SIDE  # noqa: E402
from training.wide_world.world import WideRoom  # noqa: E402
from xsvggt_ros.evaluation.datasets.layouts import open_sequences  # noqa: E402

pytestmark = pytest.mark.slow


@pytest.fixture(scope='module')
def textures():
    return load_textures(None)


@pytest.fixture(scope='module')
def room(textures):
    return WideRoom(3, textures)


@pytest.fixture(scope='module')
def clip(room):
    return room.clip(6, (56, 42))


def hollow(textures):
    """Return a tracer of a room of 4 x 3 x 2.5 m that holds nothing but a ball."""
    solids = Solids()
    solids.add('box', np.array([2.0, 1.5, 1.25]), np.array([4.0, 3.0, 2.5]), np.eye(3), 0)
    solids.add('ball', np.array([2.0, 1.5, 1.0]), np.array([0.6, 0.6, 0.6]), np.eye(3), 1)
    look = (0, 1.0, 0.0, (1.0, 1.0, 1.0), 0.0, 0.0, False)
    outline = np.array([(0, 0), (4, 0), (4, 3), (0, 3)], float)
    scene = Scene(Room(outline, 2.5, 2.5), solids.patches(), [Material(*look), Material(*look)],
                  [Light(np.array([[2.0, 1.5, 2.4]]), None, np.ones(3))], np.full(3, 0.3),
                  np.zeros((0, 3)))
    return RayTracer(scene, textures, np.random.default_rng(0))


def shot_at(position, target, frames=1, velocity=(0,) * 6, readout=0.0, size=(56, 42)):
    position, target = (np.tile(np.asarray(one, float), (frames, 1)) for one in (position, target))
    return Shot(*size, 40.0, look_at(position, target, np.zeros(frames)),
                np.tile(np.asarray(velocity, float), (frames, 1)), 0.01, readout)


def test_depth_is_what_geometry_says(textures):
    tracer = hollow(textures)
    shot = shot_at((0.5, 1.5, 1.0), (4.0, 1.5, 1.0))
    image, depth = tracer.render(shot)
    assert image.shape == (1, 42, 56, 3) and np.isfinite(image).all()
    # In the middle of the image the ball's front is 1.2 m ahead; beside it the wall, 3.5 m.
    assert depth[0, 21, 28] == pytest.approx(1.2, abs=0.03)
    columns = (np.arange(56) - 28) / 40
    row = depth[0, 5]      # above the ball: the far wall or the ceiling, whichever is nearer
    up = -(5 - 21) / 40
    expected = np.minimum.reduce([np.full(56, 3.5), np.full(56, 1.5 / up),
                                  1.5 / np.maximum(np.abs(columns), 1e-9)])
    np.testing.assert_allclose(row, expected, rtol=1e-4)


def test_pixels_between_traced_ones_are_as_if_they_were_traced(textures, room):
    tracer = room._tracer
    low, high = room.scene.room.outline.min(axis=0), room.scene.room.outline.max(axis=0)
    middle = np.array([*(low + high) / 2, 1.4])
    shot = shot_at(middle, middle + [1.0, 0.3, -0.2])
    _, depth = tracer.render(shot, smooth=False)
    rows, columns = np.mgrid[:42, :56]
    rays = np.stack([(columns - 28) / 40, (rows - 21) / 40, np.ones((42, 56))], axis=-1)
    pose = shot.world_from_camera[0]
    directions = rays.reshape(-1, 3) @ pose[:3, :3].T
    truth = tracer.distances(np.tile(middle, (len(directions), 1)), directions).reshape(42, 56)
    off = np.abs(np.log(depth[0] / truth))
    np.testing.assert_allclose(depth[0, ::2, ::2], truth[::2, ::2], rtol=2e-3)
    assert (off > 0.01).mean() < 0.02      # things thinner than two pixels may be missed


def test_frames_of_a_clip_agree_about_where_things_are(clip):
    first, other = clip.world_from_camera[0], clip.world_from_camera[1]
    height, width = clip.depths.shape[1:]
    focal = width / 2 / np.tan(clip.fields_of_view[1] / 2)
    rows, columns = np.mgrid[:height, :width]
    rays = np.stack([(columns - width / 2) / focal, (rows - height / 2) / focal,
                     np.ones((height, width))], axis=-1)
    points = (rays * clip.depths[0][..., None]) @ first[:3, :3].T + first[:3, 3]
    local = (points - other[:3, 3]) @ other[:3, :3]
    u = np.round(local[..., 0] / local[..., 2] * focal + width / 2).astype(int)
    v = np.round(local[..., 1] / local[..., 2] * focal + height / 2).astype(int)
    seen = (u >= 0) & (u < width) & (v >= 0) & (v < height) & (local[..., 2] > 0.1)
    assert seen.mean() > 0.2
    found = clip.depths[1][v[seen], u[seen]]
    assert np.median(np.abs(np.log(found / local[..., 2][seen]))) < 0.03


def test_a_clip_follows_from_its_seed(textures, clip):
    again = WideRoom(3, textures).clip(6, (56, 42))
    np.testing.assert_array_equal(again.images, clip.images)
    np.testing.assert_array_equal(again.world_from_camera, clip.world_from_camera)
    other = WideRoom(4, textures).clip(6, (56, 42))
    assert not np.array_equal(other.images, clip.images)


def test_clips_are_such_as_a_camera_takes(textures):
    for seed in range(6):
        room = WideRoom(seed, textures)
        clip = room.clip(4)
        assert clip.images.dtype == np.uint8 and clip.images.shape[:3] == clip.depths.shape
        assert np.isfinite(clip.depths).all() and clip.depths.min() > 0
        assert 20 < clip.images.mean() < 240 and clip.images.std() > 5
        assert np.deg2rad(20) < clip.fields_of_view.min()
        assert clip.fields_of_view.max() < np.deg2rad(111)
        turns = clip.world_from_camera[:, :3, :3]
        np.testing.assert_allclose(turns @ turns.transpose(0, 2, 1),
                                   np.tile(np.eye(3), (4, 1, 1)), atol=1e-9)
        assert room.scene.room.contains(clip.world_from_camera[:, :2, 3]).all()


def test_a_rolling_shutter_reads_rows_one_after_another(textures):
    tracer = hollow(textures)
    # Towards the far wall at 10 m/s: it is nearer for the last rows than for the first.
    shot = shot_at((1.0, 0.6, 1.0), (4.0, 0.6, 1.0), velocity=(0, 0, 10.0, 0, 0, 0), readout=0.02)
    _, depth = tracer.render(shot)
    steady = shot_at((1.0, 0.6, 1.0), (4.0, 0.6, 1.0))
    _, still = tracer.render(steady)
    rows = np.abs(still[0, :, 28] - 3.0) < 1e-3
    rows[:4] = False    # the ceiling is as near there
    assert rows.sum() > 5
    late = (np.arange(42)[rows] + 0.5) / 42 - 0.5
    np.testing.assert_allclose(depth[0, rows, 28], 3.0 - 0.2 * late, atol=1e-3)


def test_flow_is_how_points_move(textures):
    tracer = hollow(textures)
    velocity = np.array([0.3, -0.2, 0.5, 0.1, -0.2, 0.15])
    shot = shot_at((0.5, 1.4, 1.1), (4.0, 1.6, 1.0), velocity=velocity)
    _, depth = tracer.render(shot)
    flow = optical_flow(depth, shot)[0]
    step = 1e-4
    for row, column in ((5, 9), (21, 28), (37, 50)):
        z = float(depth[0, row, column])
        point = np.array([(column - 28) / 40 * z, (row - 21) / 40 * z, z])
        moved = point - step * (velocity[:3] + np.cross(velocity[3:], point))
        pixel = moved[:2] / moved[2] * 40 + [28, 21]
        np.testing.assert_allclose(flow[row, column], (pixel - [column, row]) / step, rtol=0.01,
                                   atol=0.02)


def test_motion_blurs_and_noise_does_not_repeat():
    picture = np.zeros((2, 20, 30, 3), np.float32)
    picture[:, :, 15:] = 0.6
    depth = np.full((2, 20, 30), 2.0, np.float32)
    still = Shot(30, 20, 25.0, np.tile(np.eye(4), (2, 1, 1)), np.zeros((2, 6)), 0.02, 0.0)
    spin = Shot(30, 20, 25.0, still.world_from_camera,
                np.tile([0, 0, 0, 0, 9.0, 0], (2, 1)).astype(float), 0.02, 0.0)
    sharp, blurred = (expose(picture, depth, shot, np.random.default_rng(1))
                      for shot in (still, spin))

    def steps(image):
        return np.abs(np.diff(image[0, 10].astype(int), axis=0)).max()

    assert steps(blurred) < 0.6 * steps(sharp)
    assert not np.array_equal(sharp[0], sharp[1])


def test_solids_are_closed_and_face_outward():
    for kind in set(TEMPLATES) - {'sheet'}:
        solids = Solids()
        size = np.array([0.5, 0.7, 0.9])
        solids.add(kind, np.array([1.0, 2.0, 3.0]), size, np.eye(3), 0)
        patches = solids.patches()
        middle = patches.corner + (patches.first + patches.second) / np.where(
            patches.triangle, 3, 2)[:, None] - [1.0, 2.0, 3.0]
        assert (np.abs(middle) <= size / 2 + 1e-9).all(), kind
        area = np.cross(patches.first, patches.second) / np.where(patches.triangle, 2, 1)[:, None]
        outward = np.sign((area * patches.normals.mean(axis=1)).sum(axis=1))
        # Of a closed surface all areas, outward, add up to nothing.
        assert np.abs((area * outward[:, None]).sum(axis=0)).max() < 0.02, kind


def test_rooms_have_many_shapes():
    rng = np.random.default_rng(0)
    rooms = [draw_room(rng) for _ in range(60)]
    assert {len(room.outline) for room in rooms} >= {4, 6, 8}
    assert any(room.top > room.height for room in rooms)
    extents = np.array([np.ptp(room.outline, axis=0).max() for room in rooms])
    assert extents.min() < 4 and extents.max() > 9 and extents.max() < 16.5
    corner = Room(np.array([(0, 0), (4, 0), (4, 2), (2, 2), (2, 5), (0, 5)], float), 2.5, 2.5)
    points = np.array([(1, 4), (3, 1), (3, 4), (-1, 1), (0.05, 3)])
    assert corner.contains(points).tolist() == [True, True, False, False, True]
    assert corner.contains(points, 0.3).tolist() == [True, True, False, False, False]


def test_textures_are_photographs_or_made(tmp_path, textures):
    rng = np.random.default_rng(0)
    for number in range(12):
        Image.fromarray(rng.integers(0, 255, (60, 70, 3), np.uint8)).save(
            tmp_path / f'Wood_{number:03}.jpg')
    Image.new('RGB', (128, 128), (200, 10, 10)).save(tmp_path / 'Paint_000.jpg')
    read = load_textures(tmp_path)
    assert len(read) == 13 and read.categories[0] == 'Paint'
    np.testing.assert_allclose(read.means[0], (200, 10, 10), atol=3)
    assert read.choose(rng, ('Paint',)) == 0 and read.choose(rng, ('Marble',)) < 13
    held, others = read.share(True), read.share(False)
    assert (len(held), len(others)) == (1, 12)
    start = 9 * len(read.texels) // 13
    np.testing.assert_array_equal(held.texels[:SIDE], read.texels[start:start + SIDE])
    assert 'Wood' in textures.categories and len(textures) > 50
    (tmp_path / 'none').mkdir()
    with pytest.raises(ValueError, match='has no .jpg'):
        load_textures(tmp_path / 'none')
    Image.new('RGB', (10, 10)).save(tmp_path / 'none/Tiny_0.png')
    with pytest.raises(ValueError, match='too small'):
        load_textures(tmp_path / 'none')


def test_light_falls_off_and_is_shadowed(textures):
    tracer = hollow(textures)
    image, _ = tracer.render(shot_at((2.0, 0.2, 2.2), (2.0, 1.5, 0.0), size=(84, 84)))
    assert kernels.SIDE == SIDE
    light = tracer._surfaces['light']
    assert light.min() >= 0 and light.max() > 3 * np.median(light)
    assert image.max() > 0.05


def test_the_world_can_be_looked_at(tmp_path, monkeypatch, capsys):
    picture = tmp_path / 'world.png'
    monkeypatch.setattr('sys.argv', ['wide_world', '--out', str(picture), '--rooms', '2',
                                     '--frames', '3'])
    show()
    assert 'frames of 112x84 a second' in capsys.readouterr().out
    with Image.open(picture) as image:
        assert image.size == (3 * 3 * 112, 2 * 84)
    monkeypatch.setattr('sys.argv', ['wide_world', '--out', str(picture), '--textures',
                                     str(tmp_path / 'nowhere')])
    with pytest.raises(SystemExit) as error:
        show()
    assert error.value.code == 1


def test_rooms_are_written_as_data_sets(textures, tmp_path, monkeypatch):
    monkeypatch.setattr('training.wide_world.__main__._SIZE', (56, 42))
    write_rooms(tmp_path, (5, 6), 3, textures)
    clip = WideRoom(6, textures).clip(3, (56, 42))
    first, second = open_sequences(tmp_path)
    assert (first.name, second.name) == ('room-5', 'room-6') and len(second) == 3
    frame = second.frame(2)
    np.testing.assert_array_equal(frame.image, clip.images[2])
    np.testing.assert_array_equal(frame.depth, clip.depths[2])
    np.testing.assert_allclose(frame.world_from_camera, clip.world_from_camera[2], atol=1e-6)
    field = 2 * np.arctan(56 / 2 / frame.intrinsics[0, 0])
    assert field == pytest.approx(clip.fields_of_view[1], rel=1e-6)
