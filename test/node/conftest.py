"""What the tests of the node share: the robot, and which tiny network the node has."""

from pathlib import Path

from node_networks import why_not
import pytest
from tiny_stream import NETWORKS

HERE = Path(__file__).parent


@pytest.fixture(scope='module')
def robot():
    """Return a robot, which nothing is recorded of yet."""
    from stream_harness import Robot  # without ROS other tests are collected, too

    robot = Robot()
    yield robot
    robot.close()


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
