"""Layouts of data sets: KITTI, rendered rooms, and how folders are recognised."""

import logging

from dataset_folders import (
    colour,
    flat,
    kitti,
    message,
    only,
    P2,
    rendered,
    seven_scenes,
    tum,
    TURNED,
    TURNED_TUM,
)
import numpy as np
import pytest

from xsvggt_ros.cli.main import main
from xsvggt_ros.console.errors import ChoiceError
from xsvggt_ros.evaluation.datasets.layouts import LAYOUTS, open_sequences
from xsvggt_ros.evaluation.datasets.sequence import NoTruthError
from xsvggt_ros.geometry.quaternions import quaternion_from_matrix
from xsvggt_ros.world.synthetic_world import SyntheticWorld


def test_frames_of_rendered_rooms_are_in_the_order_of_time(tmp_path):
    recording = only(rendered(tmp_path / 'room'))
    frames = [recording.frame(index) for index in range(3)]
    assert [frame.image[0, 0, 0] for frame in frames] == [10, 12, 11]
    assert [frame.depth[0, 0] for frame in frames] == [1, 3, 2]
    assert [frame.world_from_camera[0, 3] for frame in frames] == [0, 2, 1]
    # Half the size of what the calibration is for.
    np.testing.assert_allclose(np.diag(frames[0].intrinsics), (10, 11, 1))


@pytest.mark.slow
def test_what_the_world_writes_is_read_as_it_was(tmp_path):
    assert main(['world', 'render', '--seed', '2', '--frames', '3', '--size', '32x24',
                 '--out', str(tmp_path / 'room')]) == 0
    recording, world = only(tmp_path / 'room'), SyntheticWorld(2, 32, 24)
    for index in range(3):
        seen, truth = recording.frame(index), world.frame(index / 10)
        np.testing.assert_array_equal(seen.image, truth.image)
        np.testing.assert_array_equal(seen.depth, truth.depth)
        np.testing.assert_allclose(seen.world_from_camera, truth.world_from_camera, atol=1e-6)
        np.testing.assert_allclose(seen.intrinsics, world.intrinsics.matrix())


def test_depth_of_rendered_rooms_may_be_missing_or_unknown(tmp_path):
    folder = rendered(tmp_path / 'room')
    (folder / 'depth' / '9.npy').unlink()
    depth = flat(2.0)
    depth[0, :3] = np.nan, np.inf, -1
    np.save(folder / 'depth' / '10.npy', depth)
    recording = only(folder)
    assert recording.frame(0).depth is None
    assert recording.frame(1).depth[0, :4].tolist() == [0, 0, 0, 2]


@pytest.mark.parametrize('write, expected', [
    (lambda folder: (folder / 'depth/9.npy').write_bytes(b'no'), 'depth/9.npy: cannot be read'),
    (lambda folder: np.save(folder / 'depth/9.npy', np.zeros(3)), '9.npy: not a depth map'),
    (lambda folder: np.save(folder / 'depth/9.npy', np.zeros((2, 2), int)), 'not a depth map'),
])
def test_depth_of_rendered_rooms_that_is_none(tmp_path, write, expected):
    write(rendered(tmp_path / 'room'))
    assert expected in message(tmp_path / 'room', frame=0)


@pytest.mark.parametrize('write, expected', [
    (lambda folder: (folder / 'images/a.png').write_bytes(b''), 'a.png: its name is no time'),
    (lambda folder: (folder / 'poses.tum').write_text('1 2 3\n'), 'poses.tum, line 1: a pose has'),
    (lambda folder: (folder / 'camera_info.yaml').write_text('[]'), 'camera_info.yaml'),
    (lambda folder: (folder / 'camera_info.yaml').write_text(
        (folder / 'camera_info.yaml').read_text().replace('0, 0, 0, 0, 0', '0.3, 0, 0, 0, 0')),
     'its lens is distorted; rectify'),
    (lambda folder: [file.unlink() for file in (folder / 'images').iterdir()], 'no .png'),
])
def test_rendered_rooms_that_cannot_be_opened(tmp_path, write, expected):
    write(rendered(tmp_path / 'room'))
    assert expected in message(tmp_path / 'room')


# KITTI -------------------------------------------------------------------------------------------

def test_a_frame_of_kitti(tmp_path):
    recording = only(kitti(tmp_path))
    assert recording.name == 'KITTI 00'
    assert len(recording) == 2
    frame = recording.frame(1)
    assert frame.image[0, 0, 0] == 11
    assert frame.image.shape == (4, 12, 3)
    assert frame.depth is None
    np.testing.assert_allclose(frame.intrinsics, P2[:, :3])
    np.testing.assert_allclose(frame.world_from_camera[:3, :3], TURNED[:3, :3])


def test_a_point_is_seen_by_camera_2_of_kitti_where_p2_projects_it(tmp_path):
    frame = only(kitti(tmp_path)).frame(1)
    in_camera_0 = np.array([3.0, -1.0, 12.0, 1.0])
    expected = P2 @ in_camera_0
    in_camera_2 = np.linalg.inv(frame.world_from_camera) @ TURNED @ in_camera_0
    seen = frame.intrinsics @ in_camera_2[:3]
    np.testing.assert_allclose(seen / seen[2], expected / expected[2], rtol=1e-9)
    # 45 pixels at a focal length of 700 are 6 cm, of which 600 * 0.005 are from the depth: camera
    # 2 is to the left of camera 0, which a turn about y makes forward (+z).
    assert frame.world_from_camera[2, 3] - 3.0 == pytest.approx((45 - 600 * 0.005) / 700)


def test_the_number_of_a_kitti_picture_tells_its_pose(tmp_path):
    sequence = kitti(tmp_path)
    (sequence / 'image_2' / '000000.png').unlink()
    recording = only(sequence)
    assert len(recording) == 1
    np.testing.assert_allclose(recording.frame(0).world_from_camera[:3, :3], TURNED[:3, :3])


def test_fewer_poses_than_pictures(tmp_path):
    sequence = kitti(tmp_path, poses=[np.eye(4)])
    assert only(sequence).frame(0).world_from_camera is not None
    found = message(sequence, frame=1)
    assert f'{tmp_path}/poses/00.txt: 1 poses, none for 000001.png' in found


def test_a_kitti_picture_without_a_number(tmp_path):
    sequence = kitti(tmp_path)
    (sequence / 'image_2' / '000000.png').rename(sequence / 'image_2' / 'left.png')
    assert 'left.png: its name is no number' in message(sequence, frame=1)


@pytest.mark.parametrize('content, expected', [
    ('P0: 1\n', "calib.txt: no line 'P2: ...'"),
    ('P0: 1\nP2: 1 2 3\n', 'calib.txt, line 2: 4 values instead of 13'),
    ('P2: 0 0 0 0 0 0 0 0 0 0 0 0\n', 'calib.txt, line 1: no camera matrix'),
])
def test_malformed_calibration_of_kitti(tmp_path, content, expected):
    sequence = kitti(tmp_path)
    (sequence / 'calib.txt').write_text(content)
    assert expected in message(sequence)


def test_malformed_poses_of_kitti(tmp_path):
    sequence = kitti(tmp_path)
    (tmp_path / 'poses' / '00.txt').write_text('1 0 0 0 0 1 0 0 0 0 1 0\n1 0 0\n')
    assert 'poses/00.txt, line 2: 3 values instead of 12' in message(sequence)


# Folders -----------------------------------------------------------------------------------------

def test_folders_of_sequences_are_recognised_and_sorted(tmp_path):
    for name in ('fire/seq-02', 'fire/seq-01', 'chess/seq-03'):
        seven_scenes(tmp_path / '7' / name, count=1)
    (tmp_path / '7' / 'chess' / 'TestSplit.txt').write_text('sequence3')
    for name in ('rgbd_dataset_freiburg2_desk', 'rgbd_bonn_crowd', 'rgbd_dataset_freiburg1_xyz'):
        tum(tmp_path / 'rgbd' / name)
    for name in ('10', '02'):
        kitti(tmp_path / 'odometry', name)

    def names(folder):
        return [recording.name for recording in open_sequences(folder)]

    scenes = ['chess/seq-03', 'fire/seq-01', 'fire/seq-02']
    assert names(tmp_path / '7') == scenes
    assert names(tmp_path / '7' / 'fire') == scenes[1:]
    assert names(tmp_path / '7' / 'fire' / 'seq-02') == scenes[2:]
    assert names(str(tmp_path / 'rgbd')) == [
        'rgbd_bonn_crowd', 'rgbd_dataset_freiburg1_xyz', 'rgbd_dataset_freiburg2_desk']
    assert [type(one) for one in open_sequences(tmp_path / 'rgbd')] == [
        LAYOUTS['bonn'], LAYOUTS['tum'], LAYOUTS['tum']]
    assert names(tmp_path / 'odometry') == names(tmp_path / 'odometry' / 'sequences') == [
        'KITTI 02', 'KITTI 10']


@pytest.mark.parametrize('layout', ['7scenes', 'tum', 'kitti'])
def test_a_layout_that_is_named_leaves_out_the_others(tmp_path, layout):
    seven_scenes(tmp_path / 'all' / 'seq-01', count=1)
    tum(tmp_path / 'all' / 'desk')
    kitti(tmp_path / 'all')
    found = open_sequences(tmp_path / 'all', layout)
    assert [type(one) for one in found] == [LAYOUTS[layout]]


def test_the_folder_may_be_the_current_one(tmp_path, monkeypatch):
    monkeypatch.chdir(kitti(tmp_path, '07'))
    assert only('.').name == 'KITTI 07'
    monkeypatch.chdir(tum(tmp_path / 'rgbd_bonn_box'))
    assert type(only('.')) is LAYOUTS['bonn']


def test_sequences_may_lie_two_levels_down_but_no_deeper(tmp_path):
    tum(tmp_path / 'a' / 'b' / 'c')
    assert only(tmp_path / 'a').name == 'c'
    assert 'no sequence found' in message(tmp_path)


def test_hidden_folders_are_not_searched(tmp_path):
    tum(tmp_path / 'a')
    tum(tmp_path / '.b')
    assert only(tmp_path).name == 'a'


def test_nothing_recognised_tells_what_layouts_look_like(tmp_path):
    colour(tmp_path / 'pictures' / '0.png', 0)
    found = message(tmp_path)
    assert found.startswith(f'{tmp_path}: no sequence found in it; give a folder that is or holds')
    for name, kind in LAYOUTS.items():
        assert f'  {name}: {kind.looks_like}' in found
    for word in ('frame-000000.color.png', 'rgb.txt', 'rgbd_bonn_', 'image_2/', 'poses/00.txt'):
        assert word in found
    tum(tmp_path / 'desk')
    found = message(tmp_path, 'kitti')
    assert 'calib.txt' in found
    assert 'rgb.txt' not in found


def test_what_is_no_folder(tmp_path):
    assert message(tmp_path / 'none').startswith(f'{tmp_path}/none: no such folder')
    (tmp_path / 'file').write_text('')
    assert message(tmp_path / 'file').startswith(f'{tmp_path}/file: not a folder')


def test_a_layout_that_does_not_exist(tmp_path):
    with pytest.raises(ChoiceError, match="no layout 'euroc'; choose from auto, 7scenes, bonn, "):
        open_sequences(tmp_path, 'euroc')


def without_truth(tmp_path, layout):
    """Write two sequences, the second without poses; return their folder and the missing file."""
    if layout == 'kitti':
        kitti(tmp_path, '10')
        kitti(tmp_path, '11', poses=[])
        return tmp_path, 'sequences/11', tmp_path / 'poses' / '11.txt'
    write, missing = {'7scenes': (seven_scenes, 'frame-000000.pose.txt'),
                      'tum': (tum, 'groundtruth.txt')}[layout]
    write(tmp_path / 'a')
    missing = write(tmp_path / 'b') / missing
    missing.unlink()
    return tmp_path, 'b', missing


@pytest.mark.parametrize('layout', ['7scenes', 'tum', 'kitti'])
def test_a_sequence_without_ground_truth(tmp_path, layout, caplog):
    folder, sequence, missing = without_truth(tmp_path, layout)
    with pytest.raises(NoTruthError) as error:
        open_sequences(folder / sequence)
    expected = f'{missing}: missing, so the true poses are not known; unpack it there'
    assert str(error.value).startswith(expected)
    # Among others it is left out, and said so.
    caplog.clear()
    with caplog.at_level(logging.WARNING):
        recordings = open_sequences(folder)
    assert len(recordings) == 1
    assert [record.getMessage().startswith(expected) for record in caplog.records] == [True]
    assert caplog.records[0].getMessage().endswith('; left out')


def test_quaternions_of_the_tests_are_what_they_claim():
    quaternion = [float(word) for word in TURNED_TUM.split()[3:]]
    np.testing.assert_allclose(quaternion_from_matrix(TURNED[:3, :3]), quaternion, atol=1e-12)
