"""stream.launch.py in the real launch: what is left when something ends."""

import importlib.util
import os
import signal
import subprocess
import sys

from fake_camera import UNPLUGGED
import fake_launch
from launch_programs import script, with_package, with_program
import pytest

pytest.importorskip('ament_index_python', reason='the launch file needs ROS 2')

LAUNCH = fake_launch.LAUNCH
DEADLINE = 600.0  # seconds until a test gives up; only one that fails ever waits so long

BRINGUP = """
import sys
from launch import LaunchDescription, LaunchService
from launch.actions import ExecuteProcess, IncludeLaunchDescription
from launch.launch_description_sources import PythonLaunchDescriptionSource

service = LaunchService()
service.include_launch_description(LaunchDescription([
    *[ExecuteProcess(cmd=['sh', '-c', other], output='screen') for other in {others}],
    IncludeLaunchDescription(
        PythonLaunchDescriptionSource({file!r}), launch_arguments={arguments}.items())]))
sys.exit(service.run())
"""


@pytest.fixture
def run_launch(tmp_path, monkeypatch):
    """Run the launch file beside other programs, with a script as the node."""
    if importlib.util.find_spec('launch_ros') is None:   # imported, it would change the log level
        pytest.skip('launch is part of a ROS 2 installation only')
    with_package(tmp_path, monkeypatch, 'xsvggt_ros')
    monkeypatch.setenv('ROS_LOG_DIR', str(tmp_path / 'log'))

    def run(node, others=(), **arguments):
        script(tmp_path / 'lib' / 'xsvggt_ros' / 'stream_node', node)
        program = BRINGUP.format(others=list(others), file=str(LAUNCH), arguments=arguments)
        process = subprocess.Popen(
            [sys.executable, '-c', program], stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            text=True, start_new_session=True)
        try:
            output, _ = process.communicate(timeout=DEADLINE)
        finally:  # what was started must not outlive a test that fails
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                print(process.communicate()[0])
        return process.returncode, output

    return run


@pytest.mark.parametrize('code', [0, 3])
def test_the_launch_ends_with_the_node(run_launch, code):
    result, output = run_launch(f'echo the node: "$@"; exit {code}', image_topic='image_raw')
    assert result == (code != 0) and 'camera_info:=camera_info' in output
    assert ('has ended with exit code 3' in output) == (code != 0)
    assert 'Traceback' not in output


@pytest.mark.parametrize('arguments, words', [
    ({'image_size': 'abc'}, ('image_size', 'a multiple of 14')),
    ({'policy': 'best'}, ('policy', 'sliding_window')),
    ({'log_level': 'verbose'}, ('log_level', 'debug')),
    ({'checkpoint': '/nowhere.pth'}, ('checkpoint', '/nowhere.pth')),
    ({'params_file': '/nowhere.yaml'}, ('params_file', '/nowhere.yaml')),
    ({'bag': '/nowhere.mcap'}, ('bag', '/nowhere.mcap')),
    ({'rviz': 'true'}, ('rviz', 'not installed')),
], ids=lambda value: next(iter(value)))
def test_nothing_is_started_with_a_wrong_argument(run_launch, arguments, words):
    result, output = run_launch('echo the node', **arguments)
    assert result == 1 and 'the node' not in output and 'Traceback' not in output
    assert any(all(word in line for word in words) for line in output.splitlines())


@pytest.mark.parametrize('arguments', [{}, {'deadline_ms': 'soon'}], ids=['node', 'argument'])
def test_a_launch_that_includes_this_one_goes_on(run_launch, tmp_path, arguments):
    mark = tmp_path / 'mark'
    wait = f'until [ -e {mark} ]; do sleep 0.05; done; ' * (not arguments)
    # A second is long enough to be told to end, in case that is done.
    result, output = run_launch(f'touch {mark}; exit 1', **arguments, others=[
        f'{wait}sleep 1; echo the other has ended in peace'])
    assert result == 1 and 'stream.launch.py: ' in output
    assert 'the other has ended in peace' in output


def test_the_whole_real_launch_ends_if_that_is_wanted(run_launch):
    result, output = run_launch('exit 0', others=['exec sleep 1000'], on_exit='shutdown')
    assert result == 0 and "'SIGINT' to process[sh-1]" in output


def test_rviz_and_recording_end_with_the_node(run_launch, tmp_path, monkeypatch):
    with_package(tmp_path, monkeypatch, 'rviz2')
    marks = [tmp_path / 'rviz', tmp_path / 'player']
    script(tmp_path / 'lib' / 'rviz2' / 'rviz2', f'touch {marks[0]}; exec sleep 1000')
    with_program(tmp_path, monkeypatch, 'ros2', f'touch {marks[1]}; exec sleep 1000')
    (tmp_path / 'flight.mcap').touch()
    wait = f'until [ -e {marks[0]} ] && [ -e {marks[1]} ]; do sleep 0.05; done; exit 5'
    result, output = run_launch(wait, rviz='true', bag=str(tmp_path / 'flight.mcap'))
    assert result == 1 and 'exit code 5' in output


def test_a_recording_that_cannot_be_played_ends_the_node(run_launch, tmp_path, monkeypatch):
    with_program(tmp_path, monkeypatch, 'ros2', 'exit 2')
    (tmp_path / 'flight.mcap').touch()
    result, output = run_launch('exec sleep 1000', bag=str(tmp_path / 'flight.mcap'))
    assert result == 1 and 'cannot be played' in output


# A node that ends once it has more images than a camera sends that is unplugged after four.
LISTENER = """
from xsvggt_ros.demo.ros_environment import prepare_ros
prepare_ros()
import rclpy
from rclpy.qos import qos_profile_sensor_data
from sensor_msgs.msg import Image

rclpy.init()
node, stamps = rclpy.create_node('listener'), []
node.create_subscription(Image, 'image_raw', stamps.append, qos_profile_sensor_data)
while len(stamps) < 6:
    rclpy.spin_once(node)
print('six images')
"""


def test_a_camera_that_is_unplugged_and_back_leaves_the_node(run_launch, tmp_path, monkeypatch):
    pytest.importorskip('av')
    (tmp_path / 'sitecustomize.py').write_text(UNPLUGGED.replace('== 40', '== 4'))
    (tmp_path / 'listener.py').write_text(LISTENER)
    monkeypatch.setenv('PYTHONPATH', os.pathsep.join(
        [str(tmp_path), *filter(None, [os.environ.get('PYTHONPATH')])]))
    script(tmp_path / 'lib' / 'xsvggt_ros' / 'camera',
           f'exec {sys.executable} -m xsvggt_ros.cli.camera "$@"')
    result, output = run_launch(f'exec {sys.executable} {tmp_path / "listener.py"}',
                                input='camera:0', image_topic='image_raw')
    assert result == 0 and 'six images' in output, output
    assert 'Plug it in again' in output and 'the camera is back' in output


def test_a_node_that_dies_is_started_again(run_launch, tmp_path):
    count = tmp_path / 'count'
    count.touch()
    # Launch loses a signal that comes while it starts a process again: it is killed instead.
    end = f'until [ $(wc -l < {count}) -ge 2 ]; do sleep 0.05; done; kill -KILL $PPID'
    result, output = run_launch(f'echo x >> {count}; exit 1', others=[end], respawn='true')
    assert result == -signal.SIGKILL and 'stream.launch.py: ' not in output
