"""Arguments of the launch file: defaults, limits, and what is said of wrong ones."""

import pytest

from xsvggt_ros import launch_arguments
from xsvggt_ros.launch_arguments import ALL, PARAMETERS

pytest.importorskip('ament_index_python', reason='the launch file needs ROS 2')


def test_arguments_are_the_nodes_parameters():
    pytest.importorskip('rclpy', reason='the parameter table needs ROS 2')
    from xsvggt_ros.node.parameters import BY_NAME
    for name, argument in PARAMETERS.items():
        parameter = BY_NAME[argument.parameter]
        assert type(argument.default) is type(parameter.default), name
        assert argument.default == parameter.default, name
        assert argument.choices == parameter.choices, name
        assert argument.limits == parameter.limits, name
    assert {argument.parameter for argument in PARAMETERS.values()} >= {
        'model.checkpoint', 'cache.policy', 'scale.mode', 'deadline_ms', 'publish_map_tf'}


def test_every_default_is_a_value_of_its_argument():
    for name, argument in ALL.items():
        if argument.text:
            assert launch_arguments.read({name: argument.text}) == {name: argument.default}


@pytest.mark.parametrize('name, text, value', [
    ('image_size', '280', 280), ('deadline_ms', '80', 80.0), ('publish_tf', 'True', True),
    ('publish_tf', '0', False), ('policy', 'full', 'full'), ('use_sim_time', 'True', 'true'),
    ('image_topics', "['/left/image','right']", ['/left/image', 'right']),
    ('image_topics', '[/left/image, /right/image]', ['/left/image', '/right/image']),
    ('image_topics', '[]', ['']), ('device', 'cuda:1', 'cuda:1'), ('namespace', '/', '/'),
    ('namespace', 'robot1/', 'robot1/'), ('image_topic', '~/image', '~/image'),
    ('scale_value', '1e-3', 1e-3)])
def test_arguments_are_read(name, text, value):
    read, = launch_arguments.read({name: text}).values()
    assert read == value and type(read) is type(value)


@pytest.mark.parametrize('name, text, words', [
    ('image_size', '100', 'a whole number, 0 to 2044, a multiple of 14'),
    ('image_size', 'abc', 'a whole number'), ('image_size', '28.0', 'a whole number'),
    ('image_size', '-14', '0 to 2044'), ('deadline_ms', 'nan', 'a number, 0 to 60000'),
    ('deadline_ms', '80 ms', 'a number'), ('scale_value', '0', '1e-06 to 1000000'),
    ('max_tokens', '9' * 5000, 'a whole number'), ('publish_tf', 'maybe', 'true or false'),
    ('policy', 'best', 'sliding_window'), ('log_level', 'verbose', 'debug, info, warn'),
    ('device', 'gpu', 'cuda:N'), ('device', 'cuda:', 'cuda:N'), ('image_topic', '/a b', 'a topic'),
    ('image_topic', '/a//b', 'a topic'), ('image_topic', '/a/', 'a topic'),
    ('camera_info_topic', '2/info', 'a topic'), ('namespace', '/1', 'digit'),
    ('node_name', 'a/b', 'a name'), ('node_name', 'größe', 'a name'),
    ('image_topics', '/left', "['/left/image_raw'"), ('image_topics', '[1, 2]', 'a list'),
    ('image_topics', "['/a b']", 'a list'), ('image_topics', "['/a", 'a list'),
    ('image_topics', '{a: b}', 'a list')])
def test_a_wrong_argument_is_named_with_what_is_allowed(name, text, words):
    with pytest.raises(ValueError, match=name) as caught:
        launch_arguments.read({name: text})
    assert words in str(caught.value) and text in str(caught.value)
    assert '\n' not in str(caught.value)


def test_all_wrong_arguments_are_named_at_once():
    with pytest.raises(ValueError, match='image_size.*; policy'):
        launch_arguments.read({'image_size': '1', 'policy': 'x', 'device': 'cpu'})


@pytest.mark.parametrize('image, info', [
    ('/camera/image_raw', '/camera/camera_info'), ('image_raw', 'camera_info'),
    ('/image_raw', '/camera_info'), ('camera/image_raw', 'camera/camera_info'),
    ('~/image', '~/camera_info')])
def test_camera_info_is_beside_the_images(image, info):
    assert launch_arguments.camera_info_beside(image) == info
