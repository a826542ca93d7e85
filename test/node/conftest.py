"""What the tests of the node share: the robot, and which tiny network the node has."""

import pytest
from tiny_stream import NETWORKS


@pytest.fixture(scope='module')
def robot():
    """Return a robot, which nothing is recorded of yet."""
    from stream_harness import Robot  # without ROS other tests are collected, too

    robot = Robot()
    yield robot
    robot.close()


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
