"""Checkpoints and parameters of the real node: wrong ones are named, and can be mended."""

from node_fixtures import robot_fixture
import pytest
from rcl_interfaces.srv import DescribeParameters
from stream_harness import ERROR, frame_tokens, make_image, OK, WARN

robot = robot_fixture('function')


def test_random_weights_are_said_everywhere(robot, start):
    node = start(model__checkpoint='random', model__image_size=56)
    status = robot.process(node, make_image(0, width=56))
    assert status.random_weights and 'random' in status.model.lower()
    diagnostic = robot.wait_for_diagnostic(node, 'Model', 'RANDOM WEIGHTS')
    assert diagnostic.level == WARN
    assert 'random weights' in node.output()


def test_the_default_checkpoint_says_what_it_knows(robot, start):
    node = start(model__checkpoint='small', model__image_size=0)
    status = robot.process(node, make_image(0, width=160, height=120))
    assert 'trained in synthetic rooms' in status.model and not status.random_weights
    assert 'synthetic rooms only and are modest in real ones' in node.output()
    assert 'network 112x84' in node.output()


@pytest.mark.parametrize('kind, words', [
    ('missing', ('nowhere.safetensors', 'Hugging Face', 'non-commercial')),
    ('truncated', ('truncated.safetensors',)),
    ('other', ('other.safetensors', 'missing', 'camera_head.trunk.0.attn.qkv.bias')),
    ('unset', ('model.checkpoint is empty', "'small'")),
])
def test_a_checkpoint_that_cannot_be_used_is_explained(robot, start, checkpoint, tmp_path,
                                                       kind, words):
    from safetensors import safe_open
    from safetensors.torch import load_file, save_file

    path = tmp_path / f'{kind}.safetensors'
    if kind == 'missing':
        path = tmp_path / 'nowhere.safetensors'
    elif kind == 'truncated':
        path.write_bytes(checkpoint.read_bytes()[:100_000])
    elif kind == 'other':
        weights = load_file(checkpoint)
        del weights['camera_head.trunk.0.attn.qkv.bias']
        with safe_open(checkpoint, 'pt') as file:
            save_file(weights, path, file.metadata())
    node = start(wait=False, model__checkpoint="''" if kind == 'unset' else path)
    status = robot.wait_for_diagnostic(node, 'Model', *words)
    assert status.level == ERROR
    assert node.process.poll() is None
    assert all(word in node.output() for word in words)


def test_a_node_that_could_not_start_can_be_mended(robot, start, checkpoint, tmp_path):
    node = start(wait=False, model__checkpoint=tmp_path / 'nowhere.pt')
    robot.wait_for_diagnostic(node, 'Model', 'nowhere.pt')
    assert robot.set_parameter('model.checkpoint', str(checkpoint)).successful
    robot.change_states('configure', 'activate')
    robot.wait_until_subscribed(node)
    robot.process(node, make_image(0))


@pytest.mark.parametrize('parameters, words', [
    ({'cache__max_tokens': -5}, ('cache.max_tokens', '-5', '1 to')),
    ({'cache__policy': 'best'}, ('cache.policy', 'best', 'xstream')),
    ({'cache__max_tokens': 'many'}, ('cache.max_tokens', 'many', 'int')),
    ({'model__image_size': 100}, ('image_size', '14')),
    ({'model__device': 'tpu'}, ('model.device', 'tpu')),
])
def test_a_wrong_parameter_is_named_and_the_node_lives(robot, start, parameters, words):
    node = start(wait=False, **parameters)
    status = robot.wait_for_diagnostic(node, 'Model', *words)
    assert status.level == ERROR
    assert node.process.poll() is None


def test_a_parameter_that_does_not_exist_is_pointed_out(robot, start):
    node = start(cache__max_token=7, cloud__max_range=3)
    assert "did you mean 'cache.max_tokens'" in node.output()
    robot.process(node, make_image(0))


def test_parameters_at_run_time(robot, start):
    node = start()
    robot.process(node, make_image(0))
    described = robot.call(
        DescribeParameters, '/xsvggt/describe_parameters',
        DescribeParameters.Request(names=['cache.max_tokens', 'cloud.max_range'])).descriptors
    assert described[0].description and described[0].integer_range[0].from_value == 1
    assert described[1].floating_point_range[0].from_value == 0.0
    refused = robot.set_parameter('cache.policy', 'full')
    assert not refused.successful and 'unconfigured' in refused.reason
    assert not robot.set_parameter('cloud.confidence_percentile', 200.0).successful
    assert robot.set_parameter('cloud.confidence_percentile', 90.0).successful
    robot.process(node, make_image(1))
    robot.wait(lambda: len(robot.received['points']) == 2, 'two clouds', node)
    before, after = (cloud.width for cloud in robot.received['points'])
    assert before == pytest.approx(0.8 * 56 * 70, rel=0.02)
    assert after == pytest.approx(0.1 * 56 * 70, rel=0.05)


def test_a_budget_without_history_warns_with_the_numbers(robot, start, network):
    least = 2 * frame_tokens(network)
    node = start(cache__max_tokens=40)
    for i in range(4):
        robot.process(node, make_image(i))
    status = robot.wait_for_diagnostic(
        node, 'KV cache', '40', f'{least} tokens', 'cache.max_tokens')
    assert status.level == WARN
    assert robot.received['cache'][-1].tokens_budget == least


def test_a_full_cache_is_healthy(robot, start, network):
    tokens = frame_tokens(network)
    budget = 100 // tokens * tokens  # in whole frames
    node = start()
    for i in range(8):
        robot.process(node, make_image(i))
    status = robot.wait_for_diagnostic(
        node, 'KV cache', f'{budget} of {budget}', 'full and steady')
    assert status.level == OK
