"""The demo as a person runs it: the real node, the camera, the files, and Ctrl-C."""

import csv
import os
from pathlib import Path
import re
import signal
import subprocess
import sys
import time
from types import SimpleNamespace

from fake_camera import CAMERA, UNPLUGGED
import numpy as np
from PIL import Image
import pytest

pytest.importorskip('rclpy')
pytest.importorskip('torch')
pytest.importorskip('matplotlib')

from xsvggt_ros.mapping.map_files import format_stamp, read_ply, read_tum  # noqa: E402, I100

PATIENCE = 600  # seconds until a test gives up; only one that fails ever waits so long
SMALL = ['--image-size', '56', '--max-tokens', '60']     # 12 patches and 5 more tokens a frame


def start_demo(*arguments, env=None):
    return subprocess.Popen([sys.executable, '-m', 'xsvggt_ros.cli.demo', *SMALL, *arguments],
                            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=env)


def processes_of(folder):
    """Return the command lines of all live processes that mention `folder`."""
    found = []
    for process in Path('/proc').glob('[0-9]*'):
        try:
            words = (process / 'cmdline').read_bytes().replace(b'\0', b' ').decode()
        except OSError:
            continue
        if str(folder) in words:
            found.append(words)
    return found


def cache_rows(file):
    """Return the rows of a cache.csv, columns as attributes; stamps stay text."""
    with open(file, newline='') as table:
        return [SimpleNamespace(**{name: text if name == 'stamp' else float(text)
                                   for name, text in row.items()})
                for row in csv.DictReader(table)]


def grey_folder(folder, count):
    """Write `count` grey images with stamps as names, 20 a second; return the stamps."""
    stamps = [1403715273262142976 + index * 50_000_128 for index in range(count)]
    rng = np.random.default_rng(0)
    folder.mkdir()
    for stamp in stamps:
        Image.fromarray(rng.integers(0, 256, (60, 80), np.uint8)).save(folder / f'{stamp}.png')
    return stamps


def test_demo_leaves_map_trajectory_table_and_picture(tmp_path):
    demo = start_demo('--out', str(tmp_path), '--frames', '12', '--rate', '1', '--size', '112x84')
    words, errors = demo.communicate(timeout=PATIENCE)
    assert demo.returncode == 0, words + errors
    assert 'Traceback' not in words + errors
    assert re.search(r'12 sent, \d+ lost on the way', words)
    assert 'xsvggt_odom -> camera_optical_frame' in words
    assert 'small.safetensors' in words and 'random weights' not in words
    assert re.search(r'position error [0-9.]+ m after alignment', words)

    rows = cache_rows(tmp_path / 'cache.csv')
    poses = read_tum(tmp_path / 'trajectory.tum')
    assert 4 <= len(rows) <= 12  # a busy machine loses some
    assert [row.frame_index for row in rows] == list(range(len(rows)))
    assert all(0 < row.tokens_used <= row.tokens_budget <= 60 for row in rows)
    assert rows[0].tokens_used == 17 and rows[-1].evicted > 0
    assert all(row.latency > 0 and row.bytes_used <= row.bytes_budget for row in rows)
    # One pose per processed frame, under the image's own stamp: whole seconds apart.
    stamps = np.array([pose.stamp_ns for pose in poses])
    assert [format_stamp(stamp) for stamp in stamps] == [row.stamp for row in rows]
    assert (np.diff(stamps) % 1_000_000_000 == 0).all()
    # 80 % of each frame's 56 x 42 points, and those as sure as the last of these; thinned.
    cloud = read_ply(tmp_path / 'map.ply')
    assert 1000 < len(cloud) <= 0.95 * 56 * 42 * len(rows)
    assert all(np.isfinite(cloud[name]).all() for name in 'xyz')
    assert len(np.unique(cloud[['red', 'green', 'blue']])) > 100
    assert Image.open(tmp_path / 'reconstruction.png').size == (1920, 1080)


def test_demo_plays_a_folder_with_its_stamps(tmp_path):
    stamps = grey_folder(tmp_path / 'cam0', 8)
    demo = start_demo('--out', str(tmp_path / 'out'), '--input', str(tmp_path / 'cam0'),
                      '--rate', '2')
    words, errors = demo.communicate(timeout=PATIENCE)
    assert demo.returncode == 0, words + errors
    poses = read_tum(tmp_path / 'out' / 'trajectory.tum')
    assert poses
    assert {pose.stamp_ns for pose in poses} <= set(stamps)
    cloud = read_ply(tmp_path / 'out' / 'map.ply')
    np.testing.assert_array_equal(cloud['red'], cloud['blue'])


def test_demo_tells_what_was_left_out_and_dropped_and_what_to_do(tmp_path):
    folder = tmp_path / 'a folder'
    grey_folder(folder, 60)
    for name in ('1403715273000000000', '1403715290000000000'):
        (folder / f'{name}.png').write_bytes(b'no image')
    demo = start_demo('--out', str(tmp_path / 'out'), '--input', str(folder), '--rate', '500')
    words, errors = demo.communicate(timeout=180)
    assert demo.returncode == 0, words + errors
    assert 'calibration: none in the recording' in words
    assert 'node, WARN: these weights were trained in synthetic rooms only' in words
    assert 'node: stream begins: images 80x60' in words
    assert re.search(r'skipped 2 of 62 images: 1403715273000000000.png, 1403715290000000000.png '
                     r'\(cannot identify', words)
    sent, processed = map(int, re.search(r'(\d+) sent, .* (\d+) processed', words).groups())
    assert sent == 60 and f'{60 - processed} of 60 images were not processed' in words
    assert re.search(r'RATE=[0-9.]+ with make demo', words)
    assert f"xsvggt reconstruct '{folder}'" in words
    rows = cache_rows(tmp_path / 'out' / 'cache.csv')
    assert len(rows) == processed or 'not recorded' in words
    # Frames a second while there were frames, not of the time in which they were waited for.
    rate = float(re.search(r'rate +([0-9.]+) frames/s', words).group(1))
    assert processed < 2 or rate > 0


def test_demo_says_why_the_node_does_not_start(tmp_path):
    demo = start_demo('--out', str(tmp_path), '--checkpoint', str(tmp_path / 'missing.pth'))
    _, errors = demo.communicate(timeout=PATIENCE)
    assert demo.returncode == 1
    assert 'missing.pth' in errors and 'node.log' in errors and 'Traceback' not in errors
    assert processes_of(tmp_path) == []


def test_demo_says_that_a_folder_is_missing_before_it_starts_anything(tmp_path):
    demo = start_demo('--out', str(tmp_path / 'out'), '--input', str(tmp_path / 'nowhere'))
    _, errors = demo.communicate(timeout=PATIENCE)
    assert demo.returncode == 1
    assert 'nowhere: no such file or folder' in errors and 'Traceback' not in errors
    assert not (tmp_path / 'out').exists()


def start_camera_demo(folder, camera):
    """Start the demo with what stands for a camera; its results go to `folder`/out."""
    pytest.importorskip('av')
    (folder / 'sitecustomize.py').write_text(camera)
    return start_demo('--out', str(folder / 'out'), '--input', 'camera:0',
                      '--parameter', f'odom_frame:=odom{folder.name}',
                      env={**os.environ, 'PYTHONPATH': str(folder)})


def wait_for_stream(demo, log):
    """Wait until the node has said in its log that a stream begins."""
    end = time.monotonic() + PATIENCE
    while not log.exists() or 'stream begins' not in log.read_text():
        assert time.monotonic() < end and demo.poll() is None
        time.sleep(0.1)


def test_a_camera_that_is_unplugged_leaves_what_was_recorded(tmp_path):
    out = tmp_path / 'out'
    out.mkdir()
    (out / 'reconstruction.png').write_bytes(b'of an earlier run')
    demo = start_camera_demo(tmp_path, UNPLUGGED)
    words, errors = demo.communicate(timeout=PATIENCE)
    assert demo.returncode == 1 and 'Traceback' not in words + errors, words + errors
    assert 'the camera has stopped: No such device' in errors
    assert 'ended by an error' in words and str(out / 'map.ply') in words
    assert len(read_tum(out / 'trajectory.tum')) > 0 and len(read_ply(out / 'map.ply')) > 0
    assert not (out / 'reconstruction.png').exists()
    assert processes_of(tmp_path.name) == []


def test_ctrl_c_once_more_leaves_the_files_without_a_picture(tmp_path):
    demo = start_camera_demo(tmp_path, CAMERA)
    try:
        wait_for_stream(demo, tmp_path / 'out' / 'node.log')
        time.sleep(1)
        demo.send_signal(signal.SIGINT)
        while not (tmp_path / 'out' / 'cache.csv').exists():   # the last one before the picture
            assert demo.poll() is None
            time.sleep(0.02)
        demo.send_signal(signal.SIGINT)
        words, errors = demo.communicate(timeout=PATIENCE)
    finally:
        demo.kill()
    assert demo.returncode == 0 and 'Traceback' not in words + errors, words + errors
    for name in ('map.ply', 'trajectory.tum', 'cache.csv'):
        assert str(tmp_path / 'out' / name) in words and (tmp_path / 'out' / name).exists()
    assert processes_of(tmp_path.name) == []


def test_ctrl_c_is_how_a_camera_of_this_machine_ends(tmp_path):
    demo = start_camera_demo(tmp_path, CAMERA)
    try:
        wait_for_stream(demo, tmp_path / 'out' / 'node.log')
        time.sleep(1)     # a few more images; how many does not matter
        demo.send_signal(signal.SIGINT)
        words, errors = demo.communicate(timeout=PATIENCE)
    finally:
        demo.kill()
    assert demo.returncode == 0 and 'Traceback' not in words + errors, words + errors
    assert processes_of(tmp_path.name) == []
    assert 'the camera is ended' in words and 'KV cache' in words
    for name in ('map.ply', 'trajectory.tum', 'reconstruction.png'):
        assert str(tmp_path / 'out' / name) in words and (tmp_path / 'out' / name).exists()


# Points that are expected to be off by more than nothing are dropped: poses come, but no points.
NO_POINTS = ['--parameter', 'cloud.max_error:=1e-9']


@pytest.mark.parametrize('playing, earlier, parameter', [
    (False, False, []), (True, False, []), (False, True, []), (True, True, NO_POINTS)])
def test_ctrl_c_ends_everything_quietly(tmp_path, playing, earlier, parameter):
    # The folder's path stands on the camera's command line, the checkpoint's on the node's.
    grey_folder(tmp_path / 'cam0', 1000)
    if earlier:
        (tmp_path / 'out').mkdir()
        for name in ('map.ply', 'reconstruction.png'):
            (tmp_path / 'out' / name).write_bytes(b'of an earlier run')
    demo = start_demo('--out', str(tmp_path / 'out'), '--input', str(tmp_path / 'cam0'),
                      '--parameter', f'odom_frame:=odom{tmp_path.name}', *parameter)
    try:
        log = tmp_path / 'out' / 'node.log'
        end = time.monotonic() + PATIENCE
        while len(processes_of(tmp_path.name)) < 3 or not log.exists() or (
                playing and 'stream begins' not in log.read_text()):
            assert time.monotonic() < end and demo.poll() is None
            time.sleep(0.1)
        time.sleep(2 * bool(parameter))   # for some poses
        demo.send_signal(signal.SIGINT)
        words, errors = demo.communicate(timeout=PATIENCE)
    finally:
        demo.kill()
    assert demo.returncode == 0, words + errors
    assert 'Traceback' not in words + errors
    assert processes_of(tmp_path.name) == []
    assert (str(tmp_path / 'out' / 'trajectory.tum') in words) != earlier
    assert (tmp_path / 'out' / 'trajectory.tum').exists() != earlier
    if earlier:
        assert 'keeps its earlier map' in words
        for name in ('map.ply', 'reconstruction.png'):
            assert (tmp_path / 'out' / name).read_bytes() == b'of an earlier run'
