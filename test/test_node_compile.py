"""model.compile in the real node: frames go on meanwhile, and the node ends when it is told."""

import pytest
from stream_harness import make_image, NodeProcess, Robot, write_tiny_checkpoint


@pytest.fixture
def robot():
    robot = Robot()
    yield robot
    robot.close()


def test_the_node_serves_while_it_compiles_and_ends_at_once(tmp_path, robot, monkeypatch):
    monkeypatch.setenv('XSVGGT_NATIVE', '0')  # or there is nothing to compile
    node = NodeProcess(
        tmp_path / 'node.log', model__image_size=70, model__compile='true', cache__max_tokens=100,
        model__checkpoint=write_tiny_checkpoint(tmp_path / 'tiny.safetensors'))
    robot.wait_until_subscribed(node)
    for index in range(3):
        robot.process(node, make_image(index))
    robot.wait(lambda: 'are being compiled' in node.output(), 'the compiler to begin', node)
    model = robot.wait(lambda: robot.diagnostic('Model'), 'diagnostics', node)
    assert {'kernels', 'graphs', 'compile'} <= {value.key for value in model.values}
    code, seconds = node.stop()
    assert code == 0 and seconds < 20, node.output()
    assert 'Traceback' not in node.output() and 'from now on' not in node.output()
