"""The parameter table, and the files that are derived from it."""

from pathlib import Path

import pytest
import yaml

from xsvggt_ros.model.weight_quantization import weight_bytes
from xsvggt_ros.node import parameter_docs
from xsvggt_ros.node.loading import load_engine, StartError
from xsvggt_ros.node.parameter_names import suggestion
from xsvggt_ros.node.parameters import BY_NAME, check_change, TABLE
from xsvggt_ros.node.settings import DEFAULTS, parameter_name

ROOT = Path(__file__).parents[3]


def flatten(tree, prefix=''):
    for key, value in tree.items():
        if isinstance(value, dict):
            yield from flatten(value, f'{prefix}{key}.')
        else:
            yield prefix + key, value


def test_names_are_unique_and_defaults_allowed():
    assert len(BY_NAME) == len(TABLE)
    for parameter in TABLE:
        assert parameter.fault(parameter.default) is None
        assert parameter.description.endswith('.')


def test_the_shipped_file_carries_every_parameter_at_its_default():
    text = (ROOT / 'config' / 'stream.yaml').read_text()
    values = dict(flatten(yaml.safe_load(text)['/**']['ros__parameters']))
    assert values == {p.name: p.default for p in TABLE}
    for p in TABLE:
        assert type(values[p.name]) is type(p.default), p.name
    assert text == parameter_docs.yaml_text(), 'run python -m xsvggt_ros.node.parameter_docs'


def test_the_docs_have_the_same_table():
    page = (ROOT / 'docs' / 'parameters.md').read_text()
    assert parameter_docs.insert_table(page) == page, \
        'run python -m xsvggt_ros.node.parameter_docs'


def test_every_parameter_is_one_field_of_the_settings():
    fields = {parameter_name(section, field): (section, field)
              for section, part in vars(DEFAULTS).items() for field in vars(part)}
    assert sorted(fields) == sorted(BY_NAME)
    for p in TABLE:
        section, field = fields[p.name]
        expected = {'image_topics': [], 'cache.memory_budget_mb': None}.get(p.name, p.default)
        assert getattr(getattr(DEFAULTS, section), field) == expected


def test_changed_settings_leave_the_others_as_they_are():
    changed = DEFAULTS.changed({'cloud.stride': 3, 'base_frame': '/base', 'use_sim_time': True})
    assert changed.cloud.stride == 3 and changed.pose.base_frame == 'base'
    assert changed.changed({'cloud.stride': 1, 'base_frame': ''}) == DEFAULTS


def test_a_height_band_without_heights_is_refused():
    band = {'occupancy.min_height': 2.0, 'occupancy.max_height': 1.5}
    with pytest.raises(ValueError, match='min_height 2 is not below occupancy.max_height 1.5'):
        DEFAULTS.changed(band).check()
    DEFAULTS.changed(band | {'occupancy.max_height': 0.0}).check()   # chosen by the node


def test_a_saved_map_needs_keyframes():
    saved = {'map.localize_in': 'map.landmarks.safetensors'}
    DEFAULTS.changed(saved).check()
    for other in ({'trajectory.mode': 'tracked'}, {'image_topics': ['left', 'right']}):
        with pytest.raises(ValueError, match='map.localize_in needs trajectory.mode optimized'):
            DEFAULTS.changed(saved | other).check()


@pytest.mark.parametrize('other, words', [
    ({'base_frame': ''}, 'robot_odom_frame needs base_frame'),
    ({'invert_tf': True, 'publish_map_tf': False}, 'robot_odom_frame and invert_tf'),
    ({'scale.mode': 'none'}, 'robot_odom_frame needs lengths in metres'),
    ({'robot_odom_frame': '/xsvggt_odom'}, 'must have different names; got xsvggt_odom, map'),
])
def test_what_an_odometry_of_the_robot_needs(other, words):
    given = DEFAULTS.changed({
        'robot_odom_frame': '/odom', 'base_frame': 'base_link', 'publish_map_tf': True,
        'scale.mode': 'depth'})
    given.check()
    given.changed({'scale.mode': 'none', 'map.localize_in': 'in_metres'}).check()
    with pytest.raises(ValueError, match=words):
        given.changed(other).check()


@pytest.mark.parametrize('name, value, word', [
    ('cache.max_tokens', 0, '1 to 1000000'),
    ('cloud.stride', 65, '1 to 64'),
    ('model.dtype', 'fp8', 'bf16'),
])
def test_a_value_out_of_range_is_explained(name, value, word):
    fault = BY_NAME[name].fault(value)
    assert name in fault and word in fault and str(value) in fault


@pytest.mark.parametrize('name, meant', [
    ('cache.max_token', "did you mean 'cache.max_tokens'?"),
    ('scale.vlaue', "did you mean 'scale.value'?"),
    ('max_tokens', "did you mean 'cache.max_tokens'?"),
    ('cach.max_tokens', "did you mean 'cache.max_tokens'?"),
])
def test_a_name_that_is_misspelt_is_known(name, meant):
    assert suggestion(name, BY_NAME) == f'; {meant}'


def test_a_name_with_another_word_gets_those_of_its_section():
    words = suggestion('scale.factor', BY_NAME)
    assert words.startswith("; 'scale' has mode, value") and 'cache' not in words
    assert suggestion('nothing_like_it', BY_NAME) == ''


@pytest.mark.parametrize('name, value, configured, accepted', [
    ('cloud.stride', 2, True, True),
    ('cloud.stride', 0, True, False),
    ('cache.max_tokens', 100, True, False),
    ('cache.max_tokens', 100, False, True),
    ('use_sim_time', True, True, True),
])
def test_changes_at_run_time(name, value, configured, accepted):
    from rclpy.parameter import Parameter

    result = check_change([Parameter(name, value=value)], configured)
    assert result.successful == accepted
    assert accepted or name in result.reason


@pytest.mark.parametrize('given, expected, faulty', [
    ("['/left/image','/right/image']", ['/left/image', '/right/image'], False),
    ('[]', [], False),
    ("['']", [], False),
    ('/left/image', [], True),
    ("['/left','/left']", [], True),
])
def test_lists_of_names(given, expected, faulty):
    import rclpy

    from xsvggt_ros.node.parameters import declare_parameters
    from xsvggt_ros.node.settings import read_settings

    context = rclpy.Context()
    rclpy.init(args=['test', '--ros-args', '-p', f'image_topics:={given}'], context=context)
    node = rclpy.create_node('test_lists', context=context)
    faults = declare_parameters(node)
    assert read_settings(node).input.image_topics == expected
    assert [fault.startswith('image_topics') for fault in faults] == [True] * faulty
    node.destroy_node()
    rclpy.shutdown(context=context)


@pytest.mark.slow
def test_weights_are_stored_as_the_parameter_says():
    def load(choice):
        settings = DEFAULTS.changed({'model.device': 'cpu', 'model.weights': choice})
        return load_engine(settings.model, settings.cache)

    sizes = [weight_bytes(load(choice).engine._model)
             for choice in ('float', 'int8_camera', 'int8')]
    assert sizes == sorted(sizes, reverse=True) and sizes[2] < 0.4 * sizes[0]
    with pytest.raises(StartError, match=r'^model\.weights fp8 needs a GPU'):
        load('fp8')
