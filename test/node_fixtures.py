"""What starts and ends robots and nodes about the tests of the node."""

from collections.abc import Callable
from typing import Any

import pytest


def robot_fixture(scope: str) -> Callable[..., Any]:
    """Return a fixture: a robot that lives as long as `scope` says, and has received nothing."""
    @pytest.fixture(scope=scope)
    def robot():
        from stream_harness import Robot  # without ROS other tests are collected, too

        robot = Robot()
        yield robot
        robot.close()

    return robot
