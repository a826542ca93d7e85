"""What the tests of the node share: the robot, and which tiny network the node has."""

from pathlib import Path
import threading

from node_fixtures import robot_fixture
from node_networks import why_not
import pytest
from tiny_stream import NETWORKS

HERE = Path(__file__).parent


robot = robot_fixture('module')


@pytest.fixture(scope='module')
def checkpoint(tmp_path_factory, network):
    """Return the file of a tiny network."""
    from stream_harness import write_tiny_checkpoint  # see `robot_fixture`

    return write_tiny_checkpoint(tmp_path_factory.mktemp('weights'), network)


@pytest.fixture
def start(tmp_path, robot, checkpoint):
    """Start nodes that are stopped with Ctrl-C at the end of the test, quietly and with code 0."""
    from stream_harness import NodeProcess

    nodes = []

    def start_node(wait=True, **parameters):
        settings = {'model__checkpoint': checkpoint, 'model__image_size': 70,
                    'cache__max_tokens': 100} | parameters
        nodes.append(NodeProcess(tmp_path / f'node{len(nodes)}.log', **settings))
        if wait:
            robot.wait_until_subscribed(nodes[-1])
        return nodes[-1]

    yield start_node
    for node in nodes:
        node.end()


@pytest.fixture
def make_stream(monkeypatch):
    """Return what makes streams between a fake engine and fake publishers."""
    from fake_stream import PATIENCE, Stream
    import rclpy

    monkeypatch.setattr(rclpy, 'ok', lambda: True)
    streams = []

    def make(overlaps=True, **changes):
        streams.append(Stream(overlaps, **changes))
        return streams[-1]

    yield make
    for stream in streams:
        assert stream.worker.stop(PATIENCE)
        names = {thread.name for thread in threading.enumerate()}
        assert not names & {'xsvggt_worker', 'xsvggt_publishing'}


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """With another network, leave out what has none or cannot: it has run with the usual one."""
    if config.getoption('--network') == NETWORKS[0]:
        return
    for item in items:
        if item.path.parent == HERE and 'network' not in getattr(item, 'fixturenames', ()):
            item.add_marker(pytest.mark.skip(reason=why_not(item.path.name)))


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """
    Give each test that asks for it, or whose fixtures do, the name of a tiny network.

    Tests of what a network may make different are marked `both_networks`; the others have the one
    of `--network`.
    """
    if 'network' in metafunc.fixturenames:
        has_both = metafunc.definition.get_closest_marker('both_networks') is not None
        chosen = metafunc.config.getoption('--network')
        if chosen not in NETWORKS:
            raise pytest.UsageError(f'--network must be one of {", ".join(NETWORKS)}')
        names = NETWORKS if has_both else [chosen]
        metafunc.parametrize('network', names, scope='module')
