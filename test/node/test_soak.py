"""The soak: its script, its judgement, its faults inside the node; and one run of it."""

import json
import mmap
from pathlib import Path
import signal
import subprocess
import sys
import threading
import time

import numpy as np
import pytest

pytest.importorskip('rclpy')
from nav_msgs.msg import Odometry  # noqa: E402, I100
from sensor_msgs.msg import Image, PointCloud2  # noqa: E402
import torch  # noqa: E402

from xsvggt_ros.model.network import FramePrediction  # noqa: E402
from xsvggt_ros.msg import StreamStatus  # noqa: E402
from xsvggt_ros.node import messages  # noqa: E402
from xsvggt_ros.soak import checks, patches, script  # noqa: E402
from xsvggt_ros.soak.faults import KINDS  # noqa: E402
from xsvggt_ros.soak.kinds import SETUPS  # noqa: E402
from xsvggt_ros.soak.node_process import remove_leftovers  # noqa: E402
from xsvggt_ros.soak.observer import _Life, _MapWatch  # noqa: E402

# The script --------------------------------------------------------------------------------------


def test_there_are_enough_kinds_and_each_says_what_it_does():
    assert len(KINDS) >= 60
    for kind in KINDS.values():
        assert kind.summary.endswith('.') and kind.expected and kind.group
    assert {kind.setup for kind in KINDS.values()} == set(SETUPS)


def test_the_kinds_are_there_whoever_else_is_imported():
    program = 'from xsvggt_ros.soak.faults import KINDS; print(len(KINDS))'
    told = subprocess.run([sys.executable, '-c', program], capture_output=True, text=True)
    assert told.returncode == 0 and int(told.stdout) == len(KINDS), told.stderr


def test_a_seed_makes_a_script_and_another_one_another():
    kinds = KINDS.values()
    assert script.write_script(kinds, 1) == script.write_script(kinds, 1)
    assert script.write_script(kinds, 1) != script.write_script(kinds, 2)
    with pytest.raises(ValueError, match='no kinds'):
        script.write_script([], 1, 10)


def test_the_short_form_has_every_kind():
    steps = script.write_script(KINDS.values(), 5)
    counts = {name: sum(step.kind.name == name for step in steps) for name in KINDS}
    assert counts == {name: kind.tries for name, kind in KINDS.items()}
    assert steps[-1].kind.setup == 'process'


def test_the_long_form_leaves_a_process_alive_for_three_rounds():
    steps = script.write_script(KINDS.values(), 5, 1000)
    assert len(steps) >= 1000
    rounds = {step.round for step in steps if step.kind.setup == 'process'}
    assert rounds == set(range(2, max(step.round for step in steps) + 1, 3))
    process = [step for step in steps if step.kind.setup == 'process']
    ordinary = [step for step in steps if step.kind.name == 'padded rows']
    assert len(process) // len({step.kind.name for step in process}) in (
        len(ordinary), len(ordinary) - 1, len(ordinary) - 2)


# Faults inside the node --------------------------------------------------------------------------

@pytest.mark.parametrize('point', patches.POINTS)
def test_what_is_to_be_broken_exists(point):
    owner, name = patches.locate(point)
    assert callable(getattr(owner, name))


def test_stages_of_a_frame_are_points():
    assert set(patches.FRAME_POINTS) <= set(patches.POINTS)


def shell_of(point='decode', original=lambda value: value + 1):
    made = patches.Patches()
    return made, made.shell(point, original)


@pytest.mark.parametrize('effect, error', [
    ('exception', RuntimeError), ('memory error', MemoryError), ('exit', SystemExit),
    ('generator exit', GeneratorExit), ('disk full', OSError), ('value error', ValueError),
    ('out of memory', torch.OutOfMemoryError)])
def test_an_armed_function_fails_as_often_as_asked(effect, error):
    made, shell = shell_of()
    fired = []
    made.arm('decode', effect, 2, lambda: fired.append(effect))
    for _ in range(2):
        with pytest.raises(error):
            shell(1)
    assert shell(1) == 2 and len(fired) == 2


def test_a_late_exception_comes_after_the_work():
    work = []
    made, shell = shell_of(original=lambda: work.append(1))
    made.arm('decode', 'late exception', 1, lambda: None)
    with pytest.raises(RuntimeError):
        shell()
    assert work == [1]


def test_a_hang_lasts_until_it_is_released():
    made, shell = shell_of()
    begun, results = threading.Event(), []
    made.arm('decode', 'hang', 1, begun.set)
    thread = threading.Thread(target=lambda: results.append(shell(1)))
    thread.start()
    assert begun.wait(60) and not results
    made.release()
    thread.join()
    assert results == [2] and shell(2) == 3


def test_what_was_not_armed_is_left_alone():
    made, shell = shell_of()
    made.arm('step', 'exception', 1, lambda: None)
    assert shell(1) == 2
    with pytest.raises(KeyError):
        made.arm('no such point', 'exception', 1, lambda: None)
    with pytest.raises(KeyError):
        made.arm('decode', 'no such effect', 1, lambda: None)


def prediction():
    return FramePrediction(
        pose_encoding=torch.ones(9), depth=torch.ones(4, 5), depth_confidence=torch.ones(4, 5),
        points=None, points_confidence=None)


@pytest.mark.parametrize('effect, name', [
    ('nan depth', 'depth'), ('infinite depth', 'depth'), ('nan confidence', 'depth_confidence'),
    ('nan pose', 'pose_encoding'), ('zero rotation', 'pose_encoding'),
    ('huge position', 'pose_encoding'), ('nan field of view', 'pose_encoding')])
def test_a_prediction_is_poisoned_in_one_field(effect, name):
    whole = prediction()
    result = patches.poisoned(whole, patches.EFFECTS[effect])
    changed = [field for field in ('pose_encoding', 'depth', 'depth_confidence')
               if not torch.equal(getattr(result, field), getattr(whole, field))]
    assert changed == [name]
    assert torch.equal(whole.depth, torch.ones(4, 5))


def test_one_number_of_a_tensor_becomes_nan():
    result = patches.poisoned(torch.ones(2, 3, 4), '*: nan')
    assert result.shape == (2, 3, 4) and int(torch.isnan(result).sum()) == 1


# What must hold of messages ----------------------------------------------------------------------

def healthy_odometry():
    message = Odometry()
    message.pose.pose.orientation.w = 1.0
    return message


@pytest.mark.parametrize('spoil', [
    lambda m: setattr(m.pose.pose.position, 'x', float('nan')),
    lambda m: setattr(m.pose.pose.position, 'y', 1e30),
    lambda m: setattr(m.pose.pose.orientation, 'w', 0.5),
    lambda m: setattr(m.pose.pose.orientation, 'w', float('nan')),
    lambda m: setattr(m.twist.twist.angular, 'z', float('inf')),
    lambda m: setattr(m.pose, 'covariance', -np.eye(6).ravel()),
    lambda m: setattr(m.twist, 'covariance', np.full(36, np.nan))])
def test_odometry_that_is_ill_is_found(spoil):
    message = healthy_odometry()
    assert checks.odometry_faults(message) == []
    spoil(message)
    assert checks.odometry_faults(message)


def cloud(rows):
    return messages.point_cloud(healthy_odometry().header, np.asarray(rows, np.float32))


def test_clouds_that_are_ill_are_found():
    rows = np.ones((7, 5), np.float32)
    assert checks.cloud_faults(cloud(rows)) == []
    assert checks.cloud_faults(PointCloud2()) == []
    for column, value in ((0, np.nan), (2, 1e30), (4, np.inf)):
        ill = rows.copy()
        ill[3, column] = value
        assert checks.cloud_faults(cloud(ill)), column
    short = cloud(rows)
    short.data = short.data[:-1]
    assert checks.cloud_faults(short)


def depth_image(values):
    return messages.image(healthy_odometry().header, np.asarray(values, np.float32), '32FC1')


def test_maps_that_are_ill_are_found():
    known = np.ones((3, 4))
    gap = np.where(np.eye(3, 4), np.nan, known)
    assert checks.map_image_faults(depth_image(known), gaps=False) == []
    assert checks.map_image_faults(depth_image(gap), gaps=True) == []
    assert checks.map_image_faults(depth_image(gap), gaps=False)
    assert checks.map_image_faults(depth_image(np.full((3, 4), np.nan)), gaps=True)
    assert checks.map_image_faults(depth_image(np.where(np.eye(3, 4), 1e30, known)), gaps=True)
    assert checks.map_image_faults(Image(width=1, height=1), gaps=True)


def test_a_way_of_two_streams_is_found():
    known = {1, 2, 3, 5}
    assert checks.trajectory_faults([1, 2, 2, 5], known) == []
    assert checks.trajectory_faults([2, 1], known)
    assert checks.trajectory_faults([1, 4], known)
    assert checks.trajectory_faults([1, 5], known, earlier={1})


def status(received, processed, dropped=0, resets=0, state=StreamStatus.TRACKING):
    return StreamStatus(
        frames_received=received, frames_processed=processed, frames_dropped=dropped,
        reset_count=resets, state=state)


def test_counters_that_do_not_add_up_are_found():
    assert _Life().follow(status(5, 3, 1)) == []
    assert _Life().follow(status(9, 3, 1)) != []   # five images are nowhere
    assert _Life().follow(status(3, 3, 1)) != []   # one was counted twice


def test_counters_that_go_back_are_found():
    life = _Life()
    assert life.follow(status(50, 49)) == []
    assert life.follow(status(50, 49, state=StreamStatus.WAITING)) == []
    assert life.follow(status(40, 39)) != []
    assert life.follow(status(41, 40, resets=1)) == []
    assert life.follow(status(42, 41)) != []


def test_a_map_that_loses_points_is_found():
    watch = _MapWatch()
    stream = ('0', '0.1')
    assert [watch.follow(stream, points) for points in (100, 200, 200)] == ['', '', '']
    assert watch.follow(stream, 5) == ''   # perhaps in the middle of a reset
    assert '200' in watch.follow(stream, 7)
    assert watch.follow(('1', '0.1'), 1) == ''
    assert watch.follow(('1', '0.2'), 0) == ''


# Processes ---------------------------------------------------------------------------------------

def test_shared_memory_is_removed_when_nobody_uses_it():
    file = Path(f'/dev/shm/xsvggt_soak_test_{id(object())}')
    lock = file.with_name(file.name + '_el')
    file.write_bytes(bytes(4096))
    lock.touch()
    try:
        with open(file, 'r+b') as opened, mmap.mmap(opened.fileno(), 0):
            assert remove_leftovers({file}) == 0 and file.exists()
        assert remove_leftovers({file}) == 2 and not file.exists() and not lock.exists()
    finally:
        for one in (file, lock):
            one.unlink(missing_ok=True)


def run_soak(*arguments):
    return subprocess.run(
        [sys.executable, '-m', 'xsvggt_ros.cli.soak', *arguments], capture_output=True,
        text=True)


def test_kinds_are_listed_and_unknown_ones_are_named():
    listed = run_soak('--list')
    assert listed.returncode == 0 and all(name in listed.stdout for name in KINDS)
    wrong = run_soak('--only', 'no such thing')
    assert wrong.returncode == 1 and 'no such thing' in wrong.stderr
    assert 'Traceback' not in wrong.stderr


def test_a_run_says_what_it_found(tmp_path):
    file = tmp_path / 'soak.json'
    result = run_soak('--short', '--only', 'padded rows', '--json', str(file))
    assert result.returncode == 0, result.stdout + result.stderr
    content = json.loads(file.read_text())
    assert [fault['name'] for fault in content['faults']] == ['padded rows']
    assert content['faults'][0]['outcome'] == 'recovered'
    assert content['faults'][0]['recovery_s'] > 0


def nodes_of(folder):
    """Return the processes that keep a log in a folder."""
    found = []
    for process in Path('/proc').glob('[0-9]*'):
        try:
            if (process / 'fd' / '1').resolve().parent == folder:
                found.append(process.name)
        except OSError:
            continue
    return found


def wait_for(condition):
    deadline = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.mark.parametrize('number, code', [(signal.SIGINT, 130), (signal.SIGKILL, -9)])
def test_no_node_is_left_behind(tmp_path, number, code):
    soak = subprocess.Popen(
        [sys.executable, '-m', 'xsvggt_ros.cli.soak', '--short', '--only', 'black white',
         '--logs', str(tmp_path)], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    try:
        wait_for(lambda: nodes_of(tmp_path))
        for line in soak.stdout:
            if line.startswith('[1/'):
                break
        soak.send_signal(number)
        words = soak.stdout.read()
        assert soak.wait(120) == code, words
    finally:
        soak.kill()
    wait_for(lambda: not nodes_of(tmp_path))
    if number == signal.SIGINT:
        assert 'interrupted' in words and '1 injections' in words and 'Traceback' not in words


def test_many_images(tmp_path):
    file = tmp_path / 'endurance.json'
    result = run_soak('--frames', '40', '--json', str(file))
    content = json.loads(file.read_text())
    assert content['frames'] >= 40, result.stdout + result.stderr
    assert [content[name] for name in ('crashes', 'hangs', 'non_finite', 'lost')] == [0] * 4
    assert len(content['latency_last']) == 2
