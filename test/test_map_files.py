"""Maps and ways on disk: what is written can be read, exactly, and nothing is overwritten."""

import resource

import numpy as np
import pytest

from xsvggt_ros.engine import map_files
from xsvggt_ros.engine.map_files import make_cloud
from xsvggt_ros.engine.trajectory import StampedPose, Trajectory

POSE = StampedPose(7, (1.0, 2.0, 3.0), (0.0, 0.0, 0.0, 1.0))


def random_cloud(count, seed=0):
    rng = np.random.default_rng(seed)
    return make_cloud(rng.normal(size=(count, 3)), rng.integers(0, 256, (count, 3)),
                      rng.uniform(1, 9, count))


def random_rotation(rng):
    q, r = np.linalg.qr(rng.normal(size=(3, 3)))
    q *= np.sign(np.diag(r))
    return q * np.linalg.det(q)


# PLY and TUM -------------------------------------------------------------------------------------

@pytest.mark.parametrize('count', [0, 1, 1000])
def test_ply_round_trip(tmp_path, count):
    cloud = random_cloud(count)
    map_files.write_ply(tmp_path / 'a.ply', cloud, 'weights: none')
    np.testing.assert_array_equal(map_files.read_ply(tmp_path / 'a.ply'), cloud)


def test_ply_is_what_other_programs_expect(tmp_path):
    map_files.write_ply(tmp_path / 'a.ply', random_cloud(3))
    header, _, body = (tmp_path / 'a.ply').read_bytes().partition(b'end_header\n')
    assert header.decode().splitlines() == [
        'ply', 'format binary_little_endian 1.0', 'element vertex 3', 'property float x',
        'property float y', 'property float z', 'property uchar red', 'property uchar green',
        'property uchar blue', 'property float confidence']
    assert len(body) == 3 * 19


def test_ply_of_others_is_read_and_damage_is_named(tmp_path):
    file = tmp_path / 'a.ply'
    head = (b'ply\nformat binary_little_endian 1.0\ncomment hello\nelement vertex 1\n'
            b'property double x\nproperty uchar red\nelement face 0\n'
            b'property list uchar int vertex_indices\nend_header\n')
    file.write_bytes(head + np.float64(1.5).tobytes() + b'\x07')
    vertex = map_files.read_ply(file)[0]
    assert vertex['x'] == 1.5 and vertex['red'] == 7
    file.write_bytes(head + b'\x00')
    with pytest.raises(ValueError, match='cut off'):
        map_files.read_ply(file)
    file.write_bytes(b'no ply')
    with pytest.raises(ValueError, match='not a PLY'):
        map_files.read_ply(file)


@pytest.mark.parametrize('line, words', [
    (b'element vertex', 'a property of the unknown|first element|no number'),
    (b'element vertex -1', 'no number of vertices'),
    (b'element vertex 99999999999999999999', 'no number of vertices'),
    (b'element vertex 999999999999999', 'cut off after 0 of 999999999999999 points'),
    (b'element vertex 1\nproperty half x', "unknown type 'half'"),
    (b'element vertex 1\nproperty list uchar int x', 'a vertex with a list'),
    (b'element vertex 1', 'first element must be vertex, with properties'),
    (b'element face 1\nproperty float x\nelement vertex 1', 'first element must be vertex'),
    (b'element vertex 1\nproperty float x\nproperty float x', 'x'),
    (b'comment ' + b'x' * 10_000, 'no end'),
])
def test_a_ply_header_that_promises_what_is_not_there_is_refused(tmp_path, line, words):
    file = tmp_path / 'a.ply'
    last = b'' if b'property' in line or line.endswith(b'1') else b'property float x\n'
    file.write_bytes(b'ply\nformat binary_little_endian 1.0\n' + line + b'\n' + last
                     + b'end_header\n')
    with pytest.raises(ValueError, match=words) as caught:
        map_files.read_ply(file)
    assert str(file) in str(caught.value) or 'x' == words


def test_a_tum_line_of_other_length_is_named(tmp_path):
    (tmp_path / 'a.tum').write_text('1.5 0 0 0 0 0 0 1\n2.5 0 0 0\n')
    with pytest.raises(ValueError, match=r"a\.tum: a pose has 8 numbers, .* line '2.5 0 0 0'"):
        map_files.read_tum(tmp_path / 'a.tum')


def test_tum_keeps_every_nanosecond(tmp_path):
    # Floats would round all of these to the next 238 ns.
    stamps = [1403715273262142976, 1403715273262142977, 1700000000000000001, 5, 999_999_999]
    poses = [StampedPose(stamp, (1.5, -2.0, 1e-9), (0.0, 0.0, 0.6, 0.8)) for stamp in stamps]
    map_files.write_tum(tmp_path / 'a.tum', poses)
    assert map_files.read_tum(tmp_path / 'a.tum') == poses
    lines = (tmp_path / 'a.tum').read_text().splitlines()
    assert lines[1] == '1403715273.262142976 1.5 -2 1e-09 0 0 0.6 0.8'


def test_packed_clouds_are_the_same_clouds():
    cloud = random_cloud(500)
    packed = map_files.pack(cloud)
    assert packed.shape == (500, 5) and packed.dtype == np.float32
    np.testing.assert_array_equal(map_files.cloud_from_packed(packed), cloud)


# Saving ------------------------------------------------------------------------------------------

def test_a_map_is_saved_under_new_names(tmp_path):
    folder = tmp_path / 'not' / 'yet'
    saved = [map_files.save_map(folder, random_cloud(10 + i), [POSE] * i) for i in range(4)]
    assert len(set(sum(saved, ()))) == len(list(folder.iterdir())) == 8
    for i, (ply, tum) in enumerate(saved):
        assert ply.suffix == '.ply' and tum.with_suffix('') == ply.with_suffix('')
        np.testing.assert_array_equal(map_files.read_ply(ply), random_cloud(10 + i))
        assert map_files.read_tum(tum) == [POSE] * i


def test_a_full_disk_leaves_no_half_a_map(tmp_path):
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, limits[1]))
    try:
        with pytest.raises(OSError):
            map_files.save_map(tmp_path, random_cloud(5000), [POSE])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert list(tmp_path.iterdir()) == []
    map_files.save_map(tmp_path, random_cloud(5000), [POSE])


def test_a_folder_that_cannot_be_made_is_an_os_error(tmp_path):
    (tmp_path / 'file').write_text('in the way')
    with pytest.raises(OSError, match='file'):
        map_files.save_map(tmp_path / 'file' / 'maps', random_cloud(5), [POSE])


# The trajectory ----------------------------------------------------------------------------------

@pytest.mark.parametrize('count', [0, 1, 8, 9, 16, 17, 1000])
def test_a_trajectory_is_bounded_even_and_from_the_beginning(count):
    way = Trajectory(max_poses=8)
    for i in range(count):
        way.add(StampedPose(i, (float(i), 0.0, 0.0), (0.0, 0.0, 0.0, 1.0)))
    stamps = [pose.stamp_ns for pose in way.poses()]
    assert stamps == list(range(0, count, way.stride))
    assert len(way) == len(stamps) and min(count, 5) <= len(stamps) <= 8
    assert (way.stride == 1) == (count <= 8)
    way.rescale(2.5)
    assert [pose.position[0] for pose in way.poses()] == [2.5 * stamp for stamp in stamps]
    way.clear()
    assert len(way) == 0 and way.stride == 1 and way.poses() == []


def test_a_trajectory_keeps_every_digit():
    way = Trajectory(4)
    pose = StampedPose(1403715273262142977, (1 / 3, -2 / 7, 1e-9), (0.1, 0.2, 0.3, 0.9))
    way.add(pose)
    assert way.poses() == [pose]


def test_quaternions_and_matrices_agree():
    rng = np.random.default_rng(0)
    turns = [random_rotation(rng) for _ in range(50)]
    turns += [np.diag([1.0, -1, -1]), np.diag([-1.0, 1, -1]), np.diag([-1.0, -1, 1]), np.eye(3)]
    for rotation in turns:
        matrix = np.eye(4)
        matrix[:3, :3], matrix[:3, 3] = rotation, (1, 2, 3)
        pose = StampedPose.from_matrix(5, matrix)
        assert pose.quaternion[3] >= 0
        np.testing.assert_allclose(pose.matrix(), matrix, atol=1e-12)
    # And the sign convention is the usual one: 90 degrees about z turns x into y.
    turned = StampedPose(0, (0, 0, 0), (0, 0, np.sqrt(0.5), np.sqrt(0.5))).matrix()
    np.testing.assert_allclose(turned[:3, :3] @ (1, 0, 0), (0, 1, 0), atol=1e-12)
