"""stream.launch.py: what it starts, and what it refuses."""

import argparse
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import fake_launch
from launch_programs import with_package, with_program
import pytest

from xsvggt_ros import launch_arguments
from xsvggt_ros.cli.camera import add_arguments
from xsvggt_ros.launch_arguments import ALL, OTHERS, PARAMETERS

pytest.importorskip('ament_index_python', reason='the launch file needs ROS 2')

LAUNCH = fake_launch.LAUNCH


@pytest.fixture
def launch_file(monkeypatch):
    """Return a function that visits the launch file with arguments, as launch does."""
    module, lines = fake_launch.load(monkeypatch)

    def visit(context=None, **arguments):
        context = context or fake_launch.Context(**arguments)
        started = []
        for entity in module.generate_launch_description():
            if entity.kind == 'DeclareLaunchArgument':
                context.launch_configurations.setdefault(
                    entity.args[0], entity.options['default_value'])
            elif entity.kind == 'OpaqueFunction':
                started = entity.options['function'](context, *entity.options['args'])
        return SimpleNamespace(
            context=context, started=started, lines=lines, failures=context.failures)

    visit.module = module
    return visit


def node_of(launch):
    """Return the node's options; its parameters by name."""
    assert not launch.failures
    options = launch.started[0].options
    assert launch.started[0].kind == 'Node'
    file, parameters = options['parameters']
    values = {name: value for name, (value, _) in parameters.items()}
    assert all(type(value) is (list if kind == list[str] else kind)
               for value, kind in parameters.values())
    return SimpleNamespace(**options, file=file, values=values, topics=dict(options['remappings']))


def test_show_args_has_the_real_defaults_and_choices(launch_file):
    declared = {entity.args[0]: entity.options
                for entity in launch_file.module.generate_launch_description()
                if entity.kind == 'DeclareLaunchArgument'}
    assert declared.keys() == ALL.keys()
    assert declared['checkpoint']['default_value'] == 'small'
    assert declared['max_tokens']['default_value'] == '7300'
    assert declared['publish_tf']['default_value'] == 'true'
    assert declared['scale_mode']['choices'] == list(PARAMETERS['scale_mode'].choices)
    assert 'a multiple of 14' in declared['image_size']['description']
    assert all(options['description'] for options in declared.values())
    empty = {name for name, options in declared.items() if not options['default_value']}
    assert empty == {'base_frame', 'robot_odom_frame', 'localize_in', 'namespace', 'bag', 'input',
                     'input_topic', 'calibration'}
    # launch compares texts, and others write True.
    assert not any(options['choices'] and 'true' in options['choices']
                   for options in declared.values())
    for name in launch_arguments.FILES:
        assert Path(declared[name]['default_value']).is_file()


def test_what_is_not_given_is_left_to_the_parameter_file(launch_file):
    node = node_of(launch_file())
    assert (node.package, node.executable, node.name) == ('xsvggt_ros', 'stream_node', 'xsvggt')
    assert node.values == {'exit_on_failure': True} and node.file.endswith('stream.yaml')
    assert node.topics['image'] == '/camera/image_raw'
    assert node.topics['camera_info'] == '/camera/camera_info'
    # A default that is given on purpose is not the same as one that is not.
    assert node_of(launch_file(checkpoint='small')).values['model.checkpoint'] == 'small'


def test_arguments_reach_the_node(launch_file):
    node = node_of(launch_file(
        policy='full', image_size='280', deadline_ms='80', scale_mode='odometry',
        odom_hint_topic='/wheels', depth_hint_topic='depth', publish_map_tf='True', max_rate='5',
        image_topics="['/l/image','/r/image']", node_name='eye', namespace='robot1/',
        log_level='debug', exit_on_failure='false', respawn='true', base_frame='base_link'))
    assert node.values == {
        'cache.policy': 'full', 'model.image_size': 280, 'deadline_ms': 80.0, 'base_frame':
        'base_link', 'scale.mode': 'odometry', 'publish_map_tf': True, 'input.max_rate': 5.0,
        'image_topics': ['/l/image', '/r/image'], 'exit_on_failure': False}
    assert (node.topics['odom_hint'], node.topics['depth_hint']) == ('/wheels', 'depth')
    assert (node.name, node.namespace, node.respawn) == ('eye', 'robot1', True)
    assert node.ros_arguments == ['--log-level', 'debug']


@pytest.mark.parametrize('namespace, image, info', [
    ('', 'image_raw', 'camera_info'), ('robot1', 'image_raw', 'camera_info'),
    ('robot1', 'camera/image_raw', 'camera/camera_info'), ('robot1', '/image', '/camera_info')])
def test_camera_info_is_in_the_namespace_of_the_images(launch_file, namespace, image, info):
    node = node_of(launch_file(namespace=namespace, image_topic=image))
    assert (node.topics['image'], node.topics['camera_info']) == (image, info)


def test_a_given_camera_info_and_a_compressed_topic(launch_file):
    node = node_of(launch_file(image_topic='/cam/image/compressed', image_transport='compressed',
                               camera_info_topic='/calibration'))
    assert (node.topics['image'], node.topics['camera_info']) == ('/cam/image', '/calibration')


@pytest.mark.parametrize('bag, argument, expected', [
    (False, 'auto', None), (True, 'auto', True), (True, 'false', False), (False, 'True', True)])
def test_time_of_a_recording(launch_file, tmp_path, monkeypatch, bag, argument, expected):
    with_program(tmp_path, monkeypatch, 'ros2')
    (tmp_path / 'flight.mcap').touch()
    arguments = {'bag': str(tmp_path / 'flight.mcap')} if bag else {}
    values = node_of(launch_file(use_sim_time=argument, **arguments)).values
    assert values.get('use_sim_time') is expected


def test_a_recording_is_played(launch_file, tmp_path, monkeypatch):
    with_program(tmp_path, monkeypatch, 'ros2')
    monkeypatch.setenv('HOME', str(tmp_path))
    (tmp_path / 'flight').mkdir()
    (tmp_path / 'flight' / 'metadata.yaml').touch()
    launch = launch_file(bag='~/flight', bag_rate='0.5', loop='true')
    _, player = launch.started
    command = player.options['cmd']
    assert command[:4] == ['ros2', 'bag', 'play', str(tmp_path / 'flight')]
    assert command[command.index('--rate') + 1] == '0.5'
    assert '--clock' in command and '--loop' in command
    _, player = launch_file(bag='~/flight').started
    assert '--loop' not in player.options['cmd']


def camera_options(camera):
    """Return what `xsvggt camera` makes of the command line that launch would give it."""
    assert (camera.options['package'], camera.options['executable']) == ('xsvggt_ros', 'camera')
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    return parser.parse_args([*camera.options['arguments'], '--ros-args', '-r', '__ns:=/robot'])


def test_a_camera_of_this_machine_is_published(launch_file):
    launch = launch_file(input='camera:0', image_topic='eye/image', namespace='robot/')
    _, camera = launch.started
    options = camera_options(camera)
    assert (options.input, options.topic, options.wait_for_subscriber) == (
        Path('camera:0'), 'eye/image', 1)
    assert not options.restamp and not options.loop and options.calibration is None
    assert options.reconnect
    assert camera.options['namespace'] == 'robot' and node_of(launch).namespace == 'robot'
    assert 'use_sim_time' not in node_of(launch).values
    assert 'loop' in launch_file(input='/dev/video2', loop='true').lines[-1]


def test_a_video_is_published_as_of_now(launch_file, tmp_path, monkeypatch):
    monkeypatch.setenv('HOME', str(tmp_path))
    for name in ('room.mp4', 'lens.yaml'):
        (tmp_path / name).touch()
    launch = launch_file(input='~/room.mp4', calibration='~/lens.yaml', loop='true')
    node, camera = launch.started
    options = camera_options(camera)
    assert options.input == tmp_path / 'room.mp4' and options.restamp and options.loop
    assert not options.reconnect
    assert options.calibration == tmp_path / 'lens.yaml' and options.topic == '/camera/image_raw'
    end = partial(camera.options['on_exit'], context=launch.context)
    assert end(SimpleNamespace(returncode=0, action=camera)) == []
    stopped, = end(SimpleNamespace(returncode=1, action=camera))
    assert stopped.options['event'] is node and 'room.mp4' in launch.failures[0]


def test_a_camera_of_a_bag_is_chosen(launch_file, tmp_path):
    (tmp_path / 'two.mcap').touch()
    arguments = {'input': str(tmp_path / 'two.mcap')}
    _, camera = launch_file(**arguments, input_topic='/left/image_raw').started
    options = camera_options(camera)
    assert (options.input_topic, options.topic) == ('/left/image_raw', '/camera/image_raw')
    assert camera_options(launch_file(**arguments).started[1]).input_topic is None
    assert 'image_topic' in launch_file(input_topic='/left/image_raw').lines[0]
    failure, = launch_file(**arguments, input_topic='2nd').failures
    assert "input_topic:='2nd'" in failure


@pytest.mark.parametrize('code', [0, -2])
def test_the_end_of_a_recording_is_not_told_after_that_of_the_node(launch_file, tmp_path, code):
    (tmp_path / 'room.mp4').touch()
    launch = launch_file(input=str(tmp_path / 'room.mp4'))
    node, camera = launch.started
    node.options['on_exit'](SimpleNamespace(returncode=1, action=node), launch.context)
    ended = SimpleNamespace(returncode=code, action=camera)
    assert camera.options['on_exit'](ended, context=launch.context) == []
    assert launch.lines == [] and len(launch.failures) == 1


@pytest.mark.parametrize('arguments, words', [
    ({'input': '/nowhere/room.mp4'}, "input:='/nowhere/room.mp4': there is no such file"),
    ({'input': 'camera:0', 'bag': '/nowhere'}, 'both given'),
    ({'input': 'camera:0', 'image_topics': "['/left','/right']"}, 'a rig does not listen'),
    ({'input': 'camera:0', 'image_transport': 'compressed'}, 'published as raw images'),
    ({'input': 'camera:0', 'calibration': '/nowhere/lens.yaml'}, 'calibration:=')])
def test_an_input_that_cannot_be_is_refused(launch_file, tmp_path, monkeypatch, arguments, words):
    with_program(tmp_path, monkeypatch, 'ros2')
    launch = launch_file(**arguments)
    assert launch.started == [] and words in launch.failures[0]


def test_a_calibration_of_nothing_is_told(launch_file, tmp_path):
    (tmp_path / 'lens.yaml').touch()
    assert 'camera_info_topic' in launch_file(calibration=str(tmp_path / 'lens.yaml')).lines[0]


def test_rviz_follows_namespace_and_name(launch_file, tmp_path, monkeypatch):
    with_package(tmp_path, monkeypatch, 'rviz2')
    context = fake_launch.Context(rviz='true', namespace='left', node_name='eye',
                                  image_topic='image', odom_frame='odom', ros_namespace='/robot')
    _, rviz = launch_file(context).started
    topics = dict(rviz.options['remappings'])
    assert topics['/xsvggt/points'] == '/robot/left/eye/points'
    assert topics['/camera/image_raw'] == '/robot/left/image'
    assert rviz.options['arguments'][-2:] == ['-f', 'odom']


def test_rviz_that_is_not_installed_is_refused_before_the_node_starts(
        launch_file, tmp_path, monkeypatch):
    with_package(tmp_path, monkeypatch, 'xsvggt_ros')
    launch = launch_file(rviz='true')
    failure, = launch.failures
    assert launch.started == [] and 'rviz:=true' in failure and 'apt-get install' in failure


@pytest.mark.parametrize('name', ['params_file', 'checkpoint', 'bag', 'rviz_config',
                                  'localize_in'])
def test_a_file_that_is_not_there_is_refused(launch_file, tmp_path, monkeypatch, name):
    with_program(tmp_path, monkeypatch, 'ros2')
    with_package(tmp_path, monkeypatch, 'rviz2')
    launch = launch_file(**{'rviz': 'true', name: '/nowhere/file'})
    failure, = launch.failures
    assert launch.started == []
    assert f"{name}:='/nowhere/file'" in failure and 'no such file' in failure
    (tmp_path / 'folder').mkdir()
    failure, = launch_file(**{'rviz': 'true', name: str(tmp_path / 'folder')}).failures
    assert f'{name}:=' in failure and 'folder' in failure


@pytest.mark.parametrize('content, words', [
    (b'a: [1', 'cannot be read'), (b'\xff\xfe\x00', 'cannot be read'), (b'', 'ros__parameters'),
    (b'model: {checkpoint: small}', 'ros__parameters'), (b'- 1', 'ros__parameters'),
    (b'a: 2026-99-99', 'cannot be read')])
def test_a_parameter_file_without_parameters_is_refused(launch_file, tmp_path, content, words):
    (tmp_path / 'my.yaml').write_bytes(content)
    failure, = launch_file(params_file=str(tmp_path / 'my.yaml')).failures
    assert 'params_file' in failure and words in failure and '\n' not in failure


def test_a_parameter_file_of_any_namespace_is_taken(launch_file, tmp_path):
    (tmp_path / 'my.yaml').write_text('robot: {xsvggt: {ros__parameters: {deadline_ms: 5.0}}}')
    assert node_of(launch_file(params_file=str(tmp_path / 'my.yaml'))).file == str(
        tmp_path / 'my.yaml')


def test_arguments_without_effect_are_told(launch_file):
    lines = launch_file(odom_hint_topic='/odom', scale_mode='depth', loop='true').lines
    assert ['scale_mode:=odometry' in line for line in lines] == [True, False]
    assert 'loop' in lines[1] and 'use_odometry:=true' in lines[0]
    used = launch_file(odom_hint_topic='/odom', scale_mode='depth', use_odometry='true')
    assert len(used.lines) == 2    # those of before
    assert node_of(used).values['trajectory.use_odometry'] is True


@pytest.mark.parametrize('name, meant', [
    ('inpt', 'input'), ('params-file', 'params_file'), ('image_topcs', 'image_topics'),
    ('Checkpoint', 'checkpoint'), ('paramsfile', 'params_file'), ('use.sim.tme', 'use_sim_time'),
    ('robot_name', None), ('ros_namespace', None), ('base_frame_id', None),
    ('odom_frame_id', None), ('image_topic_1', None), ('image_topic2', None), ('rviz2', None)])
def test_mistyped_arguments_are_told(launch_file, name, meant):
    """The others may be of a launch file that includes this one."""
    lines = launch_file(fake_launch.Context(**{name: 'x'})).lines
    assert lines == ([f'there is no argument {name}; if it was meant for this file: did you mean '
                      f'{meant}?'] if meant else [])


def test_defaults_do_not_pass_for_given_where_the_file_is_included_again(launch_file, tmp_path):
    (tmp_path / 'my.yaml').write_text('/**: {ros__parameters: {deadline_ms: 5.0}}')
    context = fake_launch.Context(namespace='left')
    node_of(launch_file(context))
    context.launch_configurations |= {
        'namespace': 'right', 'params_file': str(tmp_path / 'my.yaml')}
    node = node_of(launch_file(context))
    assert (node.namespace, node.values) == ('right', {'exit_on_failure': True})


@pytest.mark.parametrize('code', [0, 1, -9])
def test_what_was_started_ends_with_the_node_and_nothing_else(launch_file, tmp_path, monkeypatch,
                                                              code):
    with_package(tmp_path, monkeypatch, 'rviz2')
    launch = launch_file(rviz='true')
    node, rviz = launch.started
    end = partial(node.options['on_exit'], SimpleNamespace(returncode=code, action=node))
    stopped, = end(launch.context)
    assert stopped.kind == 'EmitEvent' and stopped.options['event'] is rviz
    assert len(launch.failures) == (code != 0)
    launch.context.is_shutdown = True  # Ctrl-C ends everything without our help
    assert end(launch.context) == []


def test_a_node_that_is_started_again_stops_nothing(launch_file):
    launch = launch_file(respawn='true')
    node, = launch.started
    event = SimpleNamespace(returncode=1, action=node)
    assert node.options['on_exit'](event, launch.context) == [] and not launch.failures


def test_the_whole_launch_ends_if_that_is_wanted(launch_file):
    launch = launch_file(on_exit='shutdown')
    node, = launch.started
    action, = node.options['on_exit'](SimpleNamespace(returncode=0, action=node), launch.context)
    assert action.kind == 'Shutdown'


def test_a_chosen_middleware_profile_is_left_alone(launch_file, monkeypatch):
    old, new = 'FASTRTPS_DEFAULT_PROFILES_FILE', 'FASTDDS_DEFAULT_PROFILES_FILE'
    profile = launch_file.module.middleware_profile
    monkeypatch.setenv(new, '/home/user/my.xml')
    assert profile() == []
    monkeypatch.delenv(new)
    monkeypatch.delenv(old, raising=False)
    for distribution, variable in (('humble', old), ('jazzy', old), ('kilted', new)):
        monkeypatch.setenv('ROS_DISTRO', distribution)
        action, = profile()
        assert action.args[0] == variable and Path(action.args[1]).is_file()


def test_every_file_of_the_launch_file_is_in_config():
    for name in launch_arguments.FILES:
        assert (LAUNCH.parents[1] / 'config' / OTHERS[name].text).is_file()
