"""The files in examples/ run, and show what they say they show."""

import ast
from importlib.util import module_from_spec, spec_from_file_location
import logging
from pathlib import Path
import re
import sys
import time
from types import ModuleType

import fake_launch
import numpy as np
import pytest

from xsvggt_ros import launch_arguments

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / 'examples'
FILES = sorted(FOLDER.glob('*.py'))
DEADLINE = 60.0  # seconds any single condition may take; far more than it should


@pytest.fixture(autouse=True)
def threads():
    """Leave PyTorch the threads that it had."""
    try:
        import torch
    except ImportError:
        yield
        return
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def load(number: int) -> ModuleType:
    """Return an example as a module."""
    path, = FOLDER.glob(f'{number}_*.py')
    spec = spec_from_file_location(f'example_{number}', path)
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def numbers(line: str) -> list[float]:
    return [float(word) for word in re.findall(r'[+-]?\d+\.?\d*', line)]


def test_examples_are_numbered_listed_and_say_how_to_run():
    assert [path.name.partition('_')[0] for path in FILES] == ['1', '2', '3', '4', '5']
    readme = (FOLDER / 'README.md').read_text()
    assert re.findall(r'\]\((.+)\)', readme) == [path.name for path in FILES]
    assert '(examples/README.md)' in (ROOT / 'README.md').read_text()
    for path in FILES:
        assert f' examples/{path.name}' in ast.get_docstring(ast.parse(path.read_text()))


# 1: the engine on a folder -----------------------------------------------------------------------


@pytest.mark.slow
def test_a_folder_becomes_poses_and_a_cloud(tmp_path, capsys):
    pytest.importorskip('torch')
    image = pytest.importorskip('PIL.Image')
    from xsvggt_ros.mapping.map_files import read_ply
    from xsvggt_ros.world.synthetic_world import SyntheticWorld
    world = SyntheticWorld(width=112, height=84)
    for index in range(3):
        image.fromarray(world.frame(index / 2).image).save(tmp_path / f'{index}.png')
    load(1).main([str(tmp_path), str(tmp_path / 'cloud.ply')])
    *poses, last = capsys.readouterr().out.splitlines()
    assert [line.partition(':')[0] for line in poses] == ['0.png', '1.png', '2.png']
    places = np.array([numbers(line.partition(':')[2]) for line in poses])
    assert places.shape == (3, 3) and np.abs(places[2] - places[0]).max() > 0
    cloud = read_ply(tmp_path / 'cloud.ply')
    assert len(cloud) == numbers(last)[0] > 1000
    depth = np.median(cloud['z'])
    assert 0.5 * np.median(world.frame(0.0).depth) < depth < 2 * np.median(world.frame(0.0).depth)


def test_a_folder_that_is_not_there_is_one_line(tmp_path):
    pytest.importorskip('torch')
    pytest.importorskip('PIL.Image')
    with pytest.raises(SystemExit, match='missing: no such file or folder'):
        load(1).main([str(tmp_path / 'missing')])


# 2: a policy -------------------------------------------------------------------------------------


@pytest.mark.slow
def test_the_policy_reaches_back_further_than_a_window(capsys):
    pytest.importorskip('torch')
    from xsvggt_ros.kv_cache.retention import POLICIES
    try:
        load(2).main(['9'])
    finally:
        POLICIES.pop('thinned_history', None)
    thinned, window = (numbers(line.partition('tokens ')[2])
                       for line in capsys.readouterr().out.splitlines())
    assert sum(thinned) == sum(window) == 4 * window[0]
    for kept in (thinned, window):
        assert len(kept) == 9 and kept[0] == kept[-1] == window[0]
    assert window[1:6] == [0] * 5
    assert all(0 < kept < window[0] / 3 for kept in thinned[2:6])


# 3: points in numpy ------------------------------------------------------------------------------


def packed_cloud(*shape: int) -> np.ndarray:
    """Return a cloud whose x, y, z and confidence are 0.5 apart, and whose colour is 1, 2, 3."""
    packed = np.arange(np.prod(shape) * 5, dtype=np.float32).reshape(*shape, 5) / 2
    packed[..., 3] = np.array(0x010203, np.uint32).view(np.float32)
    return packed


def cloud_message(packed: np.ndarray):
    pytest.importorskip('torch')
    header = pytest.importorskip('std_msgs.msg').Header(frame_id='camera')
    from xsvggt_ros.node import messages
    return messages.point_cloud(header, packed)


@pytest.mark.parametrize('shape', [(6,), (2, 3)], ids=['points', 'organised'])
def test_points_are_read_where_they_lie(shape):
    pytest.importorskip('rclpy')
    example, packed = load(3), packed_cloud(*shape)
    message = cloud_message(packed)
    points = example.view(message)
    assert points.shape == (message.height, message.width)
    for column, name in enumerate(('x', 'y', 'z', None, 'confidence')):
        if name:
            np.testing.assert_array_equal(points[name].ravel(), packed[..., column].ravel())
    np.testing.assert_array_equal(example.colours(points['rgb']).reshape(-1, 3), [[1, 2, 3]] * 6)
    message.data[0:4] = type(message.data)('B', np.float32(-7).tobytes())
    assert points['x'][0, 0] == -7, 'this is a copy'


def test_padding_and_missing_bytes():
    pytest.importorskip('rclpy')
    example, packed = load(3), packed_cloud(2, 3)
    message = cloud_message(packed)
    row, padding = message.row_step, b'\xff' * 8
    data = message.data.tobytes()
    message.data = type(message.data)('B', data[:row] + padding + data[row:] + padding)
    message.row_step = row + len(padding)
    np.testing.assert_array_equal(example.view(message)['z'], packed[..., 2])
    message.height = 3
    with pytest.raises(ValueError, match='3 x 3 points'):
        example.view(message)
    assert example.view(cloud_message(packed_cloud(0))).size == 0


def test_the_node_reads_what_is_published(monkeypatch):
    rclpy = pytest.importorskip('rclpy')
    from rclpy.executors import SingleThreadedExecutor
    example, message = load(3), cloud_message(packed_cloud(2, 3))
    context = rclpy.Context()
    rclpy.init(context=context)
    reader = example.PointReader(context=context)
    lines = []
    monkeypatch.setattr(reader.get_logger(), 'info', lines.append)
    publisher = reader.create_publisher(type(message), 'points', 1)
    executor = SingleThreadedExecutor(context=context)
    executor.add_node(reader)
    try:
        end = time.monotonic() + DEADLINE
        while not lines and time.monotonic() < end:
            publisher.publish(message)
            executor.spin_once(timeout_sec=0.1)
    finally:
        executor.shutdown()
        reader.destroy_node()
        rclpy.shutdown(context=context)
    assert lines and lines[0].startswith("6 points in 'camera': nearest z 1.00")
    assert lines[0].endswith('mean colour 1 2 3')


# 4: with RTAB-Map --------------------------------------------------------------------------------


def launch_modules() -> dict[str, tuple[str, ...]]:
    """Return the names that the launch file takes of each module of launch and launch_ros."""
    path, = FOLDER.glob('4_*.launch.py')
    return {node.module: tuple(alias.name for alias in node.names)
            for node in ast.parse(path.read_text()).body if isinstance(node, ast.ImportFrom)}


@pytest.fixture
def rtabmap(monkeypatch):
    """Return what the launch file declares, includes and starts, with stand-ins for launch."""
    modules = launch_modules()
    for name in {name.partition('.')[0] for name in modules} | modules.keys():
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    for name, members in modules.items():
        for member in members:
            kind = list if member == 'LaunchDescription' else fake_launch.action(member)
            setattr(sys.modules[name], member, kind)
    entities = load(4).generate_launch_description()
    return {kind: [entity for entity in entities if entity.kind == kind]
            for kind in ('DeclareLaunchArgument', 'IncludeLaunchDescription', 'Node')}


def published() -> dict[str, str]:
    """Return the type of every topic that the node publishes, by its private name."""
    text = (ROOT / 'xsvggt_ros' / 'node' / 'outputs' / 'publishers.py').read_text()
    return {topic: kind for kind, topic in re.findall(r"_create\(\s*(\w+), '(~/[^']+)'", text)}


def test_rtabmap_subscribes_to_what_the_node_publishes(rtabmap):
    node, = rtabmap['Node']
    assert (node.options['package'], node.options['executable']) == ('rtabmap_slam', 'rtabmap')
    include, = rtabmap['IncludeLaunchDescription']
    given = dict(include.options['launch_arguments'])
    prefix = f"/{given['node_name']}/"
    kinds = {name: published()['~/' + topic.removeprefix(prefix)]
             for name, topic in node.options['remappings']}
    assert kinds == {'rgb/image': 'Image', 'rgb/camera_info': 'CameraInfo',
                     'depth/image': 'Image', 'odom': 'Odometry'}


def test_the_stream_is_included_with_arguments_that_it_takes(rtabmap):
    include, = rtabmap['IncludeLaunchDescription']
    source, = include.args
    path, = source.args
    (package, *parts), = path.args
    assert package.args == ('xsvggt_ros',) and ROOT.joinpath(*parts).is_file()
    declared = {entity.args[0]: entity.options['default_value']
                for entity in rtabmap['DeclareLaunchArgument']}
    texts = {name: declared[value.args[0]] if not isinstance(value, str) else value
             for name, value in include.options['launch_arguments']}
    assert launch_arguments.read(texts)['publish_map_tf'] is False  # its parent would be a second


def test_both_have_the_same_robot_and_clock(rtabmap):
    include, = rtabmap['IncludeLaunchDescription']
    given = dict(include.options['launch_arguments'])
    parameters, = rtabmap['Node'][0].options['parameters']
    for of_rtabmap, of_stream in (('frame_id', 'base_frame'), ('use_sim_time', 'use_sim_time')):
        value, = parameters[of_rtabmap].args
        assert value.args == given[of_stream].args == (of_stream,)


def test_the_real_launch_takes_the_file():
    level = logging.getLogger().level
    try:
        pytest.importorskip('launch')   # changes the root logger's level
        pytest.importorskip('launch_ros')
        assert len(load(4).generate_launch_description().entities) == 5
    finally:
        logging.getLogger().setLevel(level)


# 5: an evaluation --------------------------------------------------------------------------------


@pytest.mark.slow
def test_the_evaluation_is_one_line(capsys):
    pytest.importorskip('torch')
    load(5).main(['--rooms', '1', '--frames', '4'])
    line, = capsys.readouterr().out.splitlines()
    found = re.search(r'AbsRel ([\d.]+), .* ATE ([\d.]+) m .* rotation ([\d.]+) deg', line)
    assert 0 < float(found[1]) < 0.3 and float(found[3]) < 45, line  # 0.32: the same everywhere


def test_a_checkpoint_that_is_not_there_is_one_line():
    pytest.importorskip('torch')
    with pytest.raises(SystemExit, match=r'there is no checkpoint .*nowhere\.pth'):
        load(5).main(['/nowhere.pth'])
