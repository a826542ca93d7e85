"""The kinds of faults: a registry that the fault modules fill. Needs no ROS."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

# How the node is set up for a fault, and what the camera sends then
SETUPS = {
    'camera': ('image', 'info'),
    'odometry': ('image', 'info', 'odometry'),
    'depth': ('image', 'info', 'depth'),
    'robot': ('image', 'info', 'tf', 'static'),
    'compressed': ('compressed', 'info'),
    'process': ('image', 'info'),  # as 'camera'; the process does not outlive the fault
}


@dataclass(frozen=True)
class FaultKind:
    """One kind of fault."""

    name: str
    group: str      # where it comes from, for the table
    expected: str   # what the node must do, in words
    inject: Callable[[Any], None]  # gets the Harness; returns when the fault has ended
    setup: str = 'camera'
    new_stream: bool = False  # the node may begin a new stream, and so a new map
    tries: int = 1            # in the short form

    @property
    def summary(self) -> str:
        """Return what is done, in a line."""
        return (self.inject.__doc__ or '').strip().splitlines()[0]


KINDS: dict[str, FaultKind] = {}


def fault(
    group: str, expected: str, setup: str = 'camera', new_stream: bool = False, tries: int = 1,
) -> Callable[[Callable[[Any], None]], Callable[[Any], None]]:
    """Register a function as a kind of fault; its name, with spaces, is the kind's."""
    def register(function: Callable[[Any], None]) -> Callable[[Any], None]:
        name = function.__name__.replace('_', ' ')
        if name in KINDS or setup not in SETUPS:
            raise ValueError(f'{name}, {setup}: twice, or no such setup')
        KINDS[name] = FaultKind(name, group, expected, function, setup, new_stream, tries)
        return function

    return register


class Failure(Exception):
    """The node did not do what it must; `kind`: 'hang', 'silent', 'wrong' or 'lost'."""

    def __init__(self, kind: str, words: str) -> None:
        """Say what was waited for in vain, or what came instead."""
        super().__init__(words)
        self.kind = kind


class Crash(Exception):
    """The node's process ended, or ended wrongly."""
