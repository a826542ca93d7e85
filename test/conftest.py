"""Middleware settings for all tests; they must stand before rclpy is imported."""

from importlib.util import find_spec
import logging
import os
from pathlib import Path
import re
import sys

import pytest

PROFILE = str(Path(__file__).parents[1] / 'config' / 'fastdds.xml')

os.environ.setdefault('ROS_DOMAIN_ID', str(30 + os.getpid() % 70))
os.environ.setdefault('ROS_AUTOMATIC_DISCOVERY_RANGE', 'LOCALHOST')
os.environ.setdefault('FASTDDS_DEFAULT_PROFILES_FILE', PROFILE)
# rclpy publishes nonsense for fields of a wrong type unless it is told to check them.
os.environ.setdefault('ROS_PYTHON_CHECK_FIELDS', '1')

# Triton decides when it is imported whether it compiles kernels or interprets them.
if not any(map(os.path.exists, ('/dev/nvidiactl', '/dev/nvhost-gpu', '/dev/nvgpu'))):
    os.environ.setdefault('TRITON_INTERPRET', '1')

# Before anything of the package is imported.
if all(map(find_spec, ('beartype', 'jaxtyping', 'torch'))):
    import shape_table
    import tensor_shapes

    tensor_shapes.install(shape_table.TABLE)

HERE = Path(__file__).parent
NEEDS_ROS = re.compile(
    r'^(from|import) (rclpy|\w+_msgs|std_srvs|stream_harness|fake_stream'
    r'|xsvggt_ros\.(node|msg|soak|demo))\b', re.M)

if find_spec('rclpy') is None:  # the Python part alone: what needs ROS cannot be imported
    collect_ignore = [str(file.relative_to(HERE)) for file in HERE.rglob('test_*.py')
                      if NEEDS_ROS.search(file.read_text(encoding='utf-8'))]


def pytest_addoption(parser: pytest.Parser) -> None:
    """Let the tests of the node run with another network."""
    parser.addoption('--network', default='streamvggt',
                     help='the tiny network in tests of the node that run with one only: one of '
                          '`tiny_stream.NETWORKS`')


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark tests by the folder they are in."""
    for item in items:
        folder = item.path.relative_to(HERE).parts[0]
        if folder in ('node', 'gpu'):
            item.add_marker(folder)


@pytest.fixture(autouse=True)
def one_thread():
    """
    Give each test one thread of PyTorch, until it chooses others.

    Beside busy programs several wait for each other, for as long as 25 times what one needs.
    """
    import torch  # not before the tests are: what PyTorch chooses itself is noted with them
    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def shapes(request: pytest.FixtureRequest):
    """Check shapes of tensors, except in tests that give wrong ones on purpose."""
    if 'tensor_shapes' not in sys.modules or not request.node.get_closest_marker('wrong_shapes'):
        yield
        return
    tensor_shapes.switch(False)
    yield
    tensor_shapes.switch(True)


@pytest.fixture(autouse=True)
def logging_as_found():
    """Fail a test that leaves loggers quieter than it found them: others would hear nothing."""
    loggers = logging.getLogger(), logging.getLogger('xsvggt_ros')
    before = logging.root.manager.disable, *(logger.level for logger in loggers)
    yield
    assert (logging.root.manager.disable, *(logger.level for logger in loggers)) == before


@pytest.fixture(autouse=True)
def tracebacks_end(request: pytest.FixtureRequest):
    """
    Let go of the tracebacks of exceptions among a test's parameters.

    These live as long as the session, and with them all that the frames held: a node, 32 MB.
    """
    yield
    parameters = request.node.callspec.params if hasattr(request.node, 'callspec') else {}
    for value in parameters.values():
        if isinstance(value, BaseException):
            value.__traceback__ = value.__context__ = value.__cause__ = None
