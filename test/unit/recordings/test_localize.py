"""`xsvggt reconstruct --localize-in`: a later recording in the frame of an earlier map."""

from dataclasses import replace
import json

import numpy as np
import pytest

pytest.importorskip('matplotlib')

from recording_maker import (  # noqa: E402
    image_items,
    Messages,
    odometry_message,
    START,
    write_folder,
    write_mcap,
)
import yaml  # noqa: E402

from xsvggt_ros.cli.main import main  # noqa: E402
from xsvggt_ros.geometry import metrics  # noqa: E402
from xsvggt_ros.mapping.map_files import read_ply, read_tum  # noqa: E402
from xsvggt_ros.recordings.recording import LANDMARKS_FILE  # noqa: E402
from xsvggt_ros.recordings.tracked_frames import TrackedFrames  # noqa: E402
from xsvggt_ros.trajectory.landmark_file import read_landmarks, write_landmarks  # noqa: E402
from xsvggt_ros.world.synthetic_world import DEMO_SEED, SyntheticWorld  # noqa: E402

RATE, FRAMES, LATER = 5.0, 14, 0.9   # seconds after which the other recording begins
METRES = 2.5


def positions(folder):
    poses = read_tum(folder / 'trajectory.tum')
    return np.array([pose.position for pose in poses]), [pose.stamp_ns / 1e9 for pose in poses]


def true_positions(seconds):
    path = SyntheticWorld(DEMO_SEED, 32, 24).path
    return np.array([path.world_from_camera(second)[:3, 3] for second in seconds])


def recording(folder, seed, frames=9):
    """Write a folder of pictures of a room, and its calibration; return them."""
    world = SyntheticWorld(seed, 320, 240)
    times = LATER + np.arange(frames) / RATE
    images = folder / 'images'
    write_folder(images, [world.frame(time).image for time in times],
                 [f'{number:03}' for number in range(frames)])
    matrix = world.intrinsics.matrix()
    content = {'image_width': 320, 'image_height': 240, 'distortion_model': 'plumb_bob'}
    for name, values in (('camera_matrix', matrix), ('distortion_coefficients', np.zeros((1, 5))),
                         ('rectification_matrix', np.eye(3)),
                         ('projection_matrix', np.c_[matrix, np.zeros(3)])):
        content[name] = {'rows': values.shape[0], 'cols': values.shape[1],
                         'data': values.ravel().tolist()}
    (folder / 'camera.yaml').write_text(yaml.safe_dump(content))
    return [str(images), '--calibration', str(folder / 'camera.yaml')]


@pytest.fixture(scope='module')
def saved(tmp_path_factory):
    """Return the folder of a run whose map is saved, in metres of a kind."""
    out = tmp_path_factory.mktemp('saved')
    assert main(['reconstruct', '--frames', str(FRAMES), '--rate', str(RATE), '--size', '320x240',
                 '--scale', str(METRES), '--out', str(out)]) == 0
    return out


@pytest.mark.slow
def test_the_map_has_its_landmarks_beside_it(saved):
    landmarks = read_landmarks(saved / LANDMARKS_FILE)
    assert landmarks.is_metric and len(landmarks.keyframes) > 3 and landmarks.landmarks > 500
    report = json.loads((saved / 'report.json').read_text())
    assert LANDMARKS_FILE in report['exports']['ply']['files'] and report['localization'] is None
    # Keyframes stand where the trajectory has them.
    camera, _ = positions(saved)
    apart = np.linalg.norm(landmarks.poses[:, None, :3, 3] - camera[None], axis=2).min(1)
    assert apart.max() < 0.02 * METRES


@pytest.mark.slow
def test_a_later_recording_is_in_the_frame_and_the_unit_of_the_map(saved, tmp_path, capsys):
    source = recording(tmp_path, DEMO_SEED)
    out = tmp_path / 'out'
    before = (saved / LANDMARKS_FILE).read_bytes()
    assert main(['reconstruct', *source, '--localize-in', str(saved / LANDMARKS_FILE),
                 '--out', str(out)]) == 0
    assert 'localised in the saved map by' in capsys.readouterr().out
    report = json.loads((out / 'report.json').read_text())
    assert report['localization']['localized'] and report['scale']['metric']
    # One similarity brings both trajectories to the truth.
    there, seconds = positions(saved)
    here, _ = positions(out)
    later = LATER + np.arange(len(here)) / RATE
    to_truth = metrics.align(there, true_positions(seconds))
    off = np.linalg.norm(to_truth.points(here) - true_positions(later), axis=1)
    assert off.max() < 0.1 * metrics.spread(true_positions(seconds))
    assert (saved / LANDMARKS_FILE).read_bytes() == before
    # What is saved now can be used again, in the same frame.
    again = read_landmarks(out / LANDMARKS_FILE)
    apart = np.linalg.norm(again.poses[:, None, :3, 3] - here[None], axis=2).min(1)
    assert again.is_metric and apart.max() < 0.05 * METRES


@pytest.fixture
def unitless(saved, tmp_path):
    """Return the saved map's file as a run without metres would have written it."""
    file = tmp_path / 'saved' / LANDMARKS_FILE
    file.parent.mkdir()
    write_landmarks(file, replace(read_landmarks(saved / LANDMARKS_FILE), is_metric=False))
    return file


def bag_with_odometry(path, larger, frames=9):
    """Write pictures of the room and the camera's odometry, `larger` times as long as it was."""
    world, messages, items = SyntheticWorld(DEMO_SEED, 320, 240), Messages(), []
    stamps = [START + round(number * 1e9 / RATE) for number in range(frames)]
    times = LATER + np.arange(frames) / RATE
    for number in range(-2, 4 * frames + 4):
        pose = world.path.world_from_camera(LATER + number / (4 * RATE))
        pose[:3, 3] *= larger
        stamp = START + round(number * 1e9 / (4 * RATE))
        items.append(('/odom', 'nav_msgs/msg/Odometry', stamp,
                      odometry_message(messages, stamp, pose, 'camera')))
    pictures = image_items(messages, [world.frame(time).image for time in times], stamps)
    return write_mcap(path, sorted(items + pictures, key=lambda item: item[2]))


@pytest.mark.slow
def test_a_map_without_metres_is_not_multiplied_by_the_scale_of_a_bag(saved, unitless, tmp_path):
    bag = bag_with_odometry(tmp_path / 'later.mcap', 30.0)
    recording(tmp_path, DEMO_SEED, 1)   # for its calibration
    out = tmp_path / 'out'
    assert main(['reconstruct', str(bag), '--calibration', str(tmp_path / 'camera.yaml'),
                 '--localize-in', str(unitless), '--out', str(out)]) == 0
    report = json.loads((out / 'report.json').read_text())
    assert report['localization']['localized']
    assert report['scale'] == {'metric': False, 'metres_per_unit': None, 'uncertainty': None,
                               'source': 'saved map', 'refused': None}
    assert report['against_odometry']['compared'] > 3
    assert not read_landmarks(out / LANDMARKS_FILE).is_metric
    # Cloud and poses have the saved map's unit, not the bag's, which is 30 times as small.
    sizes = [np.median(np.linalg.norm(
        np.stack([cloud[axis] for axis in 'xyz'], 1)
        - positions(folder)[0].mean(0), axis=1))
        for folder in (saved, out) for cloud in [read_ply(folder / 'map.ply')]]
    assert sizes[1] == pytest.approx(sizes[0], rel=0.5)


@pytest.mark.slow
@pytest.mark.parametrize('option', ['--depth-topic', '--odometry-topic'])
def test_metres_are_not_asked_for_in_a_map_without_them(unitless, tmp_path, capsys, option):
    assert main(['reconstruct', '--frames', '2', '--localize-in', str(unitless), option, '/some',
                 '--out', str(tmp_path / 'out')]) == 1
    error = capsys.readouterr().err
    assert f'{option}: {unitless} is not in metres' in error and error.count('\n') == 1
    assert main(['reconstruct', '--frames', '2', '--localize-in', str(unitless), option, '/some',
                 '--scale', 'none', '--out', str(tmp_path / 'out')]) == 1
    assert 'is no bag' in capsys.readouterr().err   # that far


@pytest.mark.slow
def test_another_room_is_told_and_keeps_a_frame_of_its_own(saved, tmp_path, capsys):
    source = recording(tmp_path, DEMO_SEED + 1, frames=7)
    out = tmp_path / 'out'
    assert main(['reconstruct', *source, '--localize-in', str(saved / LANDMARKS_FILE),
                 '--out', str(out)]) == 0
    told = capsys.readouterr().out
    assert 'NOT localised' in told and 'keyframes that were not recognised: ' in told
    report = json.loads((out / 'report.json').read_text())
    assert not report['localization']['localized'] and not report['scale']['metric']
    assert sum(report['localization']['not_recognised'].values()) > 0
    assert np.linalg.norm(positions(out)[0][0]) < 1e-6   # it begins at its own origin


@pytest.mark.slow
def test_a_recording_that_is_recognised_too_late_stays_in_one_frame(
        saved, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(TrackedFrames.__init__, '__defaults__', (1_000_000, None))
    out = tmp_path / 'out'
    assert main(['reconstruct', *recording(tmp_path, DEMO_SEED), '--out', str(out),
                 '--localize-in', str(saved / LANDMARKS_FILE)]) == 0
    assert 'recognised when files were being written already' in capsys.readouterr().out
    assert not json.loads((out / 'report.json').read_text())['localization']['localized']
    assert np.linalg.norm(positions(out)[0][0]) < 1e-6


@pytest.mark.parametrize('arguments, words', [
    (['--trajectory', 'tracked'], 'needs --trajectory optimized'),
    (['--scale', '2'], 'leave --scale out'),
    ([], 'damaged, or no file of landmarks'),
])
def test_what_cannot_be_is_refused_in_one_line(tmp_path, capsys, arguments, words):
    damaged = tmp_path / 'map.landmarks.safetensors'
    damaged.write_bytes(b'nothing of the kind')
    assert main(['reconstruct', '--frames', '2', '--localize-in', str(damaged), *arguments,
                 '--out', str(tmp_path / 'out')]) == 1
    error = capsys.readouterr().err
    assert words in error and error.count('\n') == 1


def test_the_folder_of_the_saved_map_is_not_written_to(tmp_path, capsys):
    saved_map = tmp_path / 'saved' / LANDMARKS_FILE
    saved_map.parent.mkdir()
    saved_map.write_bytes(b'precious')
    (tmp_path / 'link').symlink_to(saved_map.parent)
    (tmp_path / 'linked').mkdir()
    (tmp_path / 'linked' / LANDMARKS_FILE).symlink_to(saved_map)
    for named, out in ((saved_map, saved_map.parent), (saved_map, tmp_path / 'link'),
                       (tmp_path / 'linked' / LANDMARKS_FILE, tmp_path / 'linked'),
                       (tmp_path / 'linked' / LANDMARKS_FILE, saved_map.parent)):
        assert main(['reconstruct', '--frames', '2', '--localize-in', str(named),
                     '--out', str(out)]) == 1
        error = capsys.readouterr().err
        assert f'--out {out}: has the saved map' in error and error.count('\n') == 1
    assert [file.name for file in saved_map.parent.iterdir()] == [LANDMARKS_FILE]
    assert saved_map.read_bytes() == b'precious'


@pytest.mark.slow
def test_a_run_without_keyframes_leaves_no_landmarks_of_an_earlier_one(tmp_path):
    (tmp_path / LANDMARKS_FILE).write_bytes(b'of an earlier run')
    assert main(['reconstruct', '--frames', '2', '--size', '112x84', '--image-size', '56',
                 '--trajectory', 'network', '--out', str(tmp_path)]) == 0
    assert not (tmp_path / LANDMARKS_FILE).exists()
