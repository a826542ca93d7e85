"""Maps and ways on disk: what is written can be read, exactly, and nothing is overwritten."""

import fcntl
import os
import resource
import signal
import subprocess
import sys
import threading
import time

import numpy as np
import pytest

from xsvggt_ros.mapping import map_files
from xsvggt_ros.mapping.map_files import make_cloud
from xsvggt_ros.mapping.trajectory import StampedPose, Trajectory

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
        'property uchar blue', 'property float quality', 'property float confidence']
    assert len(body) == 3 * 23


def test_points_that_are_not_finite_are_in_no_ply(tmp_path):
    cloud = random_cloud(6)
    cloud['x'][1], cloud['z'][4] = np.nan, np.inf
    map_files.write_ply(tmp_path / 'a.ply', cloud)
    np.testing.assert_array_equal(map_files.read_ply(tmp_path / 'a.ply'), cloud[[0, 2, 3, 5]])


def test_other_readers_get_the_same_points(tmp_path):
    plyfile, cloud = pytest.importorskip('plyfile'), random_cloud(50)
    map_files.write_ply(tmp_path / 'a.ply', cloud, 'weights: schön')
    vertices = plyfile.PlyData.read(tmp_path / 'a.ply')['vertex']
    for name in cloud.dtype.names:
        np.testing.assert_array_equal(vertices[name], cloud[name])
    np.testing.assert_array_equal(vertices['quality'], cloud['confidence'])


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
    with pytest.raises(ValueError, match=r'a\.tum, line 2: a pose has 8 numbers, .* 4$'):
        map_files.read_tum(tmp_path / 'a.tum')


@pytest.mark.parametrize('comment, line', [
    ('weights: jürgen/größe.pth', rb'weights: j\xfcrgen/gr\xf6\xdfe.pth'),
    ('two\nlines\rand\ttab', b'two lines and tab'), ('面', rb'\u9762'),
    ('broken \udcfc name', b'broken   name')])
def test_ply_headers_are_ascii(tmp_path, comment, line):
    file = tmp_path / 'a.ply'
    map_files.write_ply(file, random_cloud(3), comment)
    assert b'\ncomment ' + line + b'\nelement' in file.read_bytes()
    np.testing.assert_array_equal(map_files.read_ply(file), random_cloud(3))


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


def test_other_files_get_the_name_of_the_map(tmp_path):
    for number in range(2):   # the second one gets another name, all of it
        files = map_files.save_map(tmp_path, random_cloud(3), [POSE], others={
            '.landmarks.safetensors': b'landmarks %d' % number})
        assert [file.name.partition('.')[2] for file in files] == [
            'ply', 'tum', 'landmarks.safetensors']
        assert len({file.name.partition('.')[0] for file in files}) == 1
        assert files[2].read_bytes() == b'landmarks %d' % number
    assert len(list(tmp_path.iterdir())) == 6


def test_all_files_of_a_map_have_names_or_none(tmp_path, monkeypatch):
    real = map_files._move_to_new

    def failing(part, file):
        if file.suffix == '.safetensors':
            raise OSError('no space left')
        real(part, file)

    monkeypatch.setattr(map_files, '_move_to_new', failing)
    with pytest.raises(OSError, match='no space'):
        map_files.save_map(tmp_path, random_cloud(3), [POSE],
                           others={'.landmarks.safetensors': b'landmarks'})
    assert list(tmp_path.iterdir()) == []


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


@pytest.mark.parametrize('error', [MemoryError, KeyboardInterrupt, SystemExit, OSError,
                                   ValueError, GeneratorExit])
@pytest.mark.parametrize('place', ['poses', 'link', 'second link'])
def test_whatever_is_raised_leaves_nothing(tmp_path, monkeypatch, error, place):
    def poses():
        yield POSE
        if place == 'poses':
            raise error

    real, calls = map_files._move_to_new, []

    def failing(part, file):
        calls.append(file)
        if place != 'poses' and len(calls) == (2 if place == 'second link' else 1):
            raise error
        real(part, file)

    monkeypatch.setattr(map_files, '_move_to_new', failing)
    with pytest.raises((error, RuntimeError)):   # Python itself turns some into others
        map_files.save_map(tmp_path, random_cloud(10), poses())
    assert list(tmp_path.iterdir()) == []


SAVING = """
import sys, time
from pathlib import Path
import numpy as np
from xsvggt_ros.mapping import map_files
def poses():
    print('writing', flush=True)
    sys.stdin.read()
    return
    yield
map_files.save_map(Path(sys.argv[1]), np.zeros(10, map_files.CLOUD_DTYPE), poses())
"""


def start_saving(folder):
    """Return a process that is in the middle of saving a map to `folder`."""
    process = subprocess.Popen([sys.executable, '-c', SAVING, folder], stdin=subprocess.PIPE,
                               stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == 'writing\n'
    return process


@pytest.mark.parametrize('end', [signal.SIGKILL, signal.SIGTERM])
def test_what_a_dead_process_left_is_removed_by_the_next_save(tmp_path, end):
    with start_saving(tmp_path) as process:
        parts = list(tmp_path.iterdir())
        assert len(parts) == 2
        assert all(part.suffix == '.part' and f'.{process.pid}.' in part.name for part in parts)
        process.send_signal(end)
    assert set(tmp_path.iterdir()) == set(parts)     # nothing that looks like a map
    saved = map_files.save_map(tmp_path, random_cloud(5), [POSE])
    assert set(tmp_path.iterdir()) == set(saved)


def test_what_a_living_process_writes_is_left_to_it(tmp_path):
    with start_saving(tmp_path) as process:
        parts = set(tmp_path.iterdir())
        saved = map_files.save_map(tmp_path, random_cloud(5), [POSE])
        assert set(tmp_path.iterdir()) == parts | set(saved)
        process.stdin.close()
        assert process.wait(600) == 0
    files = sorted(tmp_path.iterdir())
    assert len(files) == 4 and {file.suffix for file in files} == {'.ply', '.tum'}


def test_what_others_left_stays(tmp_path):
    host, dead = map_files._HOST, 2 ** 22 + 1    # no process can have this number
    names = ['map_20260101_120000.ply.part', 'notes.part', f'map_x.{host}.{dead}.part',
             f'map_20260101_120000.elsewhere.{dead}.0123abcd.ply.part',
             f'map_20260101_120000.{host}.{os.getpid()}.0123abcd.ply.part',
             f'map_20260101_120000.{host}.1.0123abcd.tum.part']
    own = f'map_20260101_120000.{host}.{dead}.0123abcd.tum.part'
    for name in [*names, own]:
        (tmp_path / name).touch()
    locked = tmp_path / f'map_20260101_120000.{host}.{dead}.ffffffff.ply.part'
    with open(locked, 'wb') as file:   # as by a container with the same host name
        fcntl.flock(file, fcntl.LOCK_EX)
        map_files.save_map(tmp_path, random_cloud(5), [POSE])
    left = {file.name for file in tmp_path.iterdir()}
    assert left >= {*names, locked.name} and own not in left
    assert len(left) == len(names) + 3


@pytest.mark.parametrize('links', [True, False])
def test_maps_saved_at_the_same_time_do_not_replace_each_other(tmp_path, monkeypatch, links):
    if not links:   # as on a USB stick
        def refuse(*arguments):
            raise PermissionError(1, 'Operation not permitted')
        monkeypatch.setattr(os, 'link', refuse)
    monkeypatch.setattr(time, 'strftime', lambda form: 'map_20260101_120000')
    start, results = threading.Barrier(8), {}

    def save(count):
        start.wait()
        results[count] = map_files.save_map(tmp_path, random_cloud(count), [POSE] * count)

    threads = [threading.Thread(target=save, args=(count,)) for count in range(1, 9)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(list(tmp_path.iterdir())) == 16
    for count, (ply, tum) in results.items():
        assert ply.stem == tum.stem
        np.testing.assert_array_equal(map_files.read_ply(ply), random_cloud(count))
        assert len(map_files.read_tum(tum)) == count


def test_a_single_file_that_has_the_name_is_kept(tmp_path, monkeypatch):
    monkeypatch.setattr(time, 'strftime', lambda form: 'map_20260101_120000')
    (tmp_path / 'map_20260101_120000.tum').write_text('old')
    (tmp_path / 'map_20260101_120000_2.ply').symlink_to(tmp_path / 'nowhere')
    ply, tum = map_files.save_map(tmp_path, random_cloud(5), [POSE])
    assert ply.name == 'map_20260101_120000_3.ply' and tum.exists()
    assert (tmp_path / 'map_20260101_120000.tum').read_text() == 'old'
    assert not (tmp_path / 'map_20260101_120000.ply').exists()


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


def test_a_pose_with_a_stamp_ahead_of_those_after_it_is_forgotten():
    way = Trajectory(8)
    for stamp in (10, 20, 99, 30, 30, 40):
        way.add(StampedPose(stamp, (0.0, 0.0, 0.0), (0.0, 0.0, 0.0, 1.0)))
    assert [pose.stamp_ns for pose in way.poses()] == [10, 20, 30, 30, 40]
    way.add(StampedPose(5, (0.0, 0.0, 0.0), (0.0, 0.0, 0.0, 1.0)))  # no lone one: all are kept
    assert [pose.stamp_ns for pose in way.poses()] == [10, 20, 30, 30, 40, 5]


def test_the_first_pose_of_open3d_s_files_is_not_lost(tmp_path):
    """Open3D 0.20 forgets the end of the comment's line."""
    file = tmp_path / 'a.tum'
    file.write_text('# TUM trajectory, format: <t> <x> <y> <z> <qx> <qy> <qz> <qw>'
                    '0 1 2 3 0 0 0 1\n1 4 5 6 0 0 0 1\n')
    assert [pose.position for pose in map_files.read_tum(file)] == [(1, 2, 3), (4, 5, 6)]
    for comment in ('# <t> <x> <qw>', '# <qw> of whom', '# 0 1 2 3 0 0 0 1'):
        file.write_text(f'{comment}\n1 4 5 6 0 0 0 1\n')
        assert [pose.position for pose in map_files.read_tum(file)] == [(4, 5, 6)]
