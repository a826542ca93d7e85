"""Files of landmarks: what was written comes back, and no damage gets further than one line."""

from dataclasses import replace
import os
from pathlib import Path

from loop_scene import Room, round_way
import numpy as np
import pytest
from safetensors.numpy import load, save

from xsvggt_ros.geometry.similarity import scales
from xsvggt_ros.trajectory import landmark_file
from xsvggt_ros.trajectory.landmark_file import (
    LandmarkFileError,
    read_landmarks,
    to_bytes,
    write_landmarks,
)
from xsvggt_ros.trajectory.landmark_map import KeptKeyframes, landmark_map
from xsvggt_ros.trajectory.pose_graph import similarity_of

NOTES = {'format': 'xsvggt landmarks', 'version': '1', 'metric': 'no'}


@pytest.fixture(scope='module')
def kept():
    room, way = Room(landmarks=600), round_way(4)
    keyframes = [room.keyframe(number, pose) for number, pose in enumerate(way)]
    keyframes[2].points[3] = np.nan
    return KeptKeyframes(tuple(keyframes), way)


@pytest.fixture(scope='module')
def content(kept):
    return to_bytes(landmark_map(kept, np.eye(4), 1.0, False))


def refused(path, content):
    path.write_bytes(content)
    with pytest.raises(LandmarkFileError) as error:
        read_landmarks(path)
    assert str(path) in str(error.value) and '\n' not in str(error.value)
    return str(error.value)


def changed(content, notes=NOTES, **arrays):
    return save({**load(content), **arrays}, notes)


def test_what_was_written_comes_back(kept, tmp_path):
    path = tmp_path / f'map{landmark_file.ENDING}'
    saved = landmark_map(kept, np.eye(4), 1.0, True)
    write_landmarks(path, saved)
    read = read_landmarks(path)
    assert read.is_metric and read.landmarks == saved.landmarks
    assert read.landmarks == sum(len(keyframe.points) for keyframe in kept.keyframes) - 1
    assert np.allclose(read.poses, saved.poses)
    for there, here in zip(read.keyframes, saved.keyframes):
        assert np.array_equal(there.features.descriptors, here.features.descriptors)
        assert np.allclose(there.points, here.points, rtol=1e-6)
        assert np.allclose(there.features.pixels, here.features.pixels, atol=1e-2)
        assert np.array_equal(there.thumbnail, here.thumbnail)
        assert there.size == here.size and np.array_equal(there.camera, here.camera)
    assert [file.name for file in tmp_path.iterdir()] == [path.name]
    assert os.path.getsize(path) < 60 * saved.landmarks + 4000 * len(saved.keyframes)


def test_a_map_is_in_the_unit_and_frame_of_its_points(kept):
    larger = similarity_of(np.array([0, 0.2, 0, 1, 2, 3, np.log(2)]))
    frame = similarity_of(np.array([0.1, 0, 0, 5, 0, 0, 0]))
    saved = landmark_map(replace(kept, nodes=larger @ kept.nodes), frame, 3.0, False)
    assert np.allclose(scales(saved.poses), 1)
    here, there = kept.keyframes[1], saved.keyframes[1]
    assert np.allclose(there.points, 6 * here.points) and np.allclose(there.depth, 6 * here.depth)
    # A landmark is where the point is that it was.
    point = np.append(here.points[0], 1.0)
    stretched = np.diag([3, 3, 3, 1]) @ larger @ kept.nodes[1] @ point
    assert np.allclose(frame @ stretched, saved.poses[1] @ np.append(there.points[0], 1.0))


def test_the_end_of_a_file_may_be_missing_anywhere(content, tmp_path):
    for length in (0, 4, 8, 100, len(content) // 2, len(content) - 1):
        refused(tmp_path / 'cut', content[:length])
    refused(tmp_path / 'long', content + b'0')


def test_flipped_bytes_are_refused_or_harmless(content, tmp_path):
    rng = np.random.default_rng(0)
    path = tmp_path / 'flipped'
    for _ in range(150):
        damaged = bytearray(content)
        # Half of them in the header and the beginning, where each counts most.
        at = int(rng.integers(1500 if rng.uniform() < 0.5 else len(content)))
        damaged[at] ^= 1 << int(rng.integers(8))
        path.write_bytes(damaged)
        try:
            read = read_landmarks(path)
        except LandmarkFileError:
            continue
        assert all(np.isfinite(keyframe.points).all() for keyframe in read.keyframes)
        assert np.isfinite(read.poses).all()


@pytest.mark.parametrize('name, change, words', [
    ('points', lambda old: np.full_like(old, np.nan), 'points'),
    ('points', lambda old: -old, 'behind'),
    ('points', lambda old: old.astype(np.float64), 'float64'),
    ('points', lambda old: old[:-1], 'descriptors|variances'),
    ('variances', lambda old: -old, 'variances'),
    ('poses', lambda old: 2 * old, 'poses'),
    ('poses', lambda old: old * [[-1], [1], [1]], 'poses'),
    ('poses', lambda old: np.full_like(old, np.inf), 'poses'),
    ('cameras', lambda old: 0 * old, 'cameras'),
    ('cameras', lambda old: old + 1, 'cameras'),
    ('sizes', lambda old: 0 * old, 'sizes'),
    ('counts', lambda old: old + 1, 'more or fewer'),
    ('counts', lambda old: old[:0], '0 keyframes'),
    ('depths', lambda old: -old, 'depths'),
    ('thumbnails', lambda old: old[:, :5], 'thumbnails'),
    ('more', lambda old: np.zeros(3, np.float32), 'others'),
])
def test_every_number_is_bounded(content, tmp_path, name, change, words):
    old = load(content).get(name)
    new = change(old)
    words_told = refused(tmp_path / 'odd', changed(content, **{name: np.ascontiguousarray(
        new, new.dtype if old is None or name == 'points' else old.dtype)}))
    assert any(word in words_told for word in words.split('|'))


def test_other_files_are_told_from_damaged_ones(content, tmp_path):
    assert 'version 7' in refused(tmp_path / 'new', changed(content, {**NOTES, 'version': '7'}))
    assert 'landmarks' in refused(tmp_path / 'weights', save({'w': np.zeros(3)}))
    refused(tmp_path / 'text', b'ply\nformat ascii 1.0\n' * 20)
    refused(tmp_path / 'deep', (100_000).to_bytes(8, 'little') + b'[' * 100_000)
    with pytest.raises(LandmarkFileError, match='No such file'):
        read_landmarks(tmp_path / 'none')
    with pytest.raises(LandmarkFileError, match='not a file'):
        read_landmarks(tmp_path)


def test_a_file_that_is_too_large_is_not_read(tmp_path, monkeypatch, content):
    monkeypatch.setattr(landmark_file, 'MOST_BYTES', 1000)
    assert 'at most 1000' in refused(tmp_path / 'large', content)


def test_a_failed_save_leaves_the_earlier_file_and_nothing_else(kept, tmp_path, monkeypatch):
    path = tmp_path / 'map'
    path.write_bytes(b'earlier')

    def fail(*_):
        raise OSError('no space left')

    monkeypatch.setattr(os, 'replace', fail)
    with pytest.raises(OSError, match='no space'):
        write_landmarks(path, landmark_map(kept, np.eye(4), 1.0, False))
    assert [file.name for file in tmp_path.iterdir()] == ['map']
    assert path.read_bytes() == b'earlier'
    with pytest.raises(ValueError, match='no keyframes'):
        write_landmarks(path, landmark_map(KeptKeyframes.none(), np.eye(4), 1.0, False))


def test_the_cloud_of_a_map_is_told_from_its_landmarks(content, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    cloud = b'ply\nformat binary_little_endian 1.0\n' + bytes(100)
    (tmp_path / 'map.ply').write_bytes(cloud)
    wanted = tmp_path / f'map{landmark_file.ENDING}'
    for named, words in (
            ('map.ply', f'name the {landmark_file.ENDING} file'), ('none', 'cannot be read')):
        with pytest.raises(LandmarkFileError, match=words) as error:
            read_landmarks(Path(named))
        assert str(tmp_path / named) in str(error.value)   # wherever it is read
    wanted.write_bytes(content)
    for named in (Path('map.ply'), tmp_path):
        with pytest.raises(LandmarkFileError, match=f'name {wanted}, which is there'):
            read_landmarks(named)
