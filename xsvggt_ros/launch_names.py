"""
Names given to stream.launch.py that are no arguments of it.

Neither ROS nor torch is imported, as in `launch_arguments`.
"""

from collections.abc import Iterable
import difflib
import re

from xsvggt_ros.launch_arguments import ALL

ALIKE = 0.85  # how alike a name must be to one that was meant, 1 for the same


def mistyped(names: Iterable[str]) -> list[str]:
    """
    Return a line for each name that is no argument, and looks as if one was meant.

    launch takes any name without a word. Others may belong to whoever includes the launch file,
    whose arguments nobody can tell from mistakes: a word more (base_frame_id) or a number
    (image_topic2) makes a name another one; letters do not.
    """
    lines = []
    for name in names:
        meant = None if name in ALL else _meant(re.sub('[.-]', '_', name.lower()))
        if meant is not None:
            lines.append(f'there is no argument {name}; if it was meant for this file: did you '
                         f'mean {meant}?')
    return lines


def _meant(name: str) -> str | None:
    """Return the argument that was meant by a name, if it is close to one."""
    for argument in difflib.get_close_matches(name, ALL, len(ALL), ALIKE):
        is_joined = name.replace('_', '') == argument.replace('_', '')
        if is_joined or _shape(name) == _shape(argument):
            return argument
    return None


def _shape(name: str) -> tuple[int, list[str]]:
    """Return how many words a name has, and its numbers."""
    return name.count('_'), re.findall(r'\d+', name)
