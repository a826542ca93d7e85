"""
Transforms that others publish: where one frame is in another, now or at a time. No ROS.

What is kept is bounded, whatever comes: a number of frames of each kind, of which those that are
asked for stay, and a number of transforms of each. Edges that tf2 refuses are refused here too.
"""

from bisect import bisect_left
from collections import deque, OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from difflib import get_close_matches
import math
import threading
import time
from typing import Any

import numpy as np

from xsvggt_ros.geometry.frame_names import frame_name, nanoseconds
from xsvggt_ros.geometry.quaternions import pose_matrix, quaternion_between

MAX_TRANSFORMS = 1000  # transforms of an edge on a path that was asked for: ten seconds at 100 Hz
MAX_TRANSFORMS_OF_OTHERS = 50  # transforms of another edge, until somebody asks
MAX_FRAMES = 1000  # frames with a fixed parent, and as many with one that moves
MAX_ASKED = 200  # frames that stay whatever else comes
MAX_PARENTS = 8  # of one frame, that are told apart
FORGOTTEN = 5.0  # seconds after which an edge that moves is no longer somebody's
MAX_DEPTH = 100  # edges from a frame to its root; more is a loop
UNIT_TOLERANCE = 0.01  # of the squared length of a quaternion, as tf2 has it
MAX_WARNINGS = 100  # of edges that are refused
MAX_NAME_LENGTH = 100  # of a frame, in messages
NAMED = 8  # frames that a message names

# x, y, z of the translation, then x, y, z, w of the rotation
Numbers = tuple[float, float, float, float, float, float, float]


class LookupError_(LookupError):
    """A transform that is not known; the message says what is missing, and what there is."""


@dataclass
class _Moving:
    """An edge that moves: its newest transforms by time."""

    parent: str
    transforms: deque[tuple[int, Numbers]] = field(
        default_factory=lambda: deque(maxlen=MAX_TRANSFORMS_OF_OTHERS))


class TransformTree:
    """The edges that were published; filled by the executor's thread, read by the worker's."""

    def __init__(self, warn: Callable[[str], object] = lambda message: None) -> None:
        """Begin empty; what is refused is told to ``warn``, each pair of frames once."""
        self._lock = threading.Lock()
        self._warn = warn
        # All by child, those that were heard of least recently first.
        self._static: OrderedDict[str, tuple[str, Numbers]] = OrderedDict()
        self._moving: OrderedDict[str, _Moving] = OrderedDict()
        self._claims: OrderedDict[str, OrderedDict[str, float]] = OrderedDict()  # parent: when
        self._asked: OrderedDict[str, None] = OrderedDict()  # frames on paths that were asked for
        self._refused: OrderedDict[tuple[str, str], str] = OrderedDict()  # parent, child: why
        self._warnings = 0
        self._crowded = False  # frames had to be forgotten

    def __len__(self) -> int:
        """Return how many transforms, claims and names are remembered in all."""
        with self._lock:
            return (len(self._static) + sum(len(edge.transforms) for edge in self._moving.values())
                    + sum(map(len, self._claims.values())) + len(self._asked)
                    + len(self._refused))

    def claim(self, parent: str, child: str) -> None:
        """Remember that somebody else publishes an edge that moves."""
        with self._lock:
            parents = self._claims.setdefault(child, OrderedDict())
            parents[parent] = time.monotonic()
            parents.move_to_end(parent)
            while len(parents) > MAX_PARENTS:
                parents.popitem(last=False)
            self._make_room(self._claims, child)

    def claimed_parent(self, child: str) -> str | None:
        """Return a parent that somebody else gives a frame; None if nobody does."""
        oldest = time.monotonic() - FORGOTTEN
        with self._lock:
            self._ask(child)
            if child in self._static:
                return self._static[child][0]
            claims = self._claims.get(child, OrderedDict())
            return next((parent for parent, when in claims.items() if when > oldest), None)

    def refusals(self) -> list[str]:
        """Return what was refused and not mended since, newest last."""
        with self._lock:
            return [_refusal(*edge, reason) for edge, reason in self._refused.items()]

    def add(self, message: Any, static: bool) -> bool:
        """
        Remember an edge; a child that has a static parent keeps it.

        Returns False for one that is refused, as tf2 refuses it: a quaternion that is not of unit
        length, numbers that are not finite, a frame without a name or below itself.
        """
        parent, child = frame_name(message.header.frame_id), frame_name(message.child_frame_id)
        numbers = _numbers(message)
        reason = _fault(parent, child, numbers)
        if reason:
            self._refuse(parent, child, reason)
            return False
        with self._lock:
            self._refused.pop((parent, child), None)
            if static:
                self._static[child] = parent, numbers
                self._make_room(self._static, child)
            elif child not in self._static:
                self._add_moving(parent, child, nanoseconds(message.header), numbers)
        return True

    def lookup(self, target_frame: str, source_frame: str, stamp_ns: int | None) -> np.ndarray:
        """
        Return target_from_source [4, 4] at a time, None for the newest; raise LookupError_.

        Between two transforms of an edge it is interpolated, before and after all it is not known.
        """
        target_frame, source_frame = frame_name(target_frame), frame_name(source_frame)
        with self._lock:
            up, down = self._ancestors(target_frame), self._ancestors(source_frame)
            for frame in (*up, *down):
                self._ask(frame)
            common = next((frame for frame in down if frame in up), None)
            if common is None:
                raise LookupError_(self._missing(target_frame, source_frame))
            common_from_target = self._chain(up[:up.index(common)], stamp_ns)
            common_from_source = self._chain(down[:down.index(common)], stamp_ns)
        return np.linalg.inv(common_from_target) @ common_from_source

    # Parts, with the lock held -------------------------------------------------------------------

    def _add_moving(self, parent: str, child: str, stamp_ns: int, numbers: Numbers) -> None:
        edge = self._moving.get(child)
        if edge is None or edge.parent != parent or stamp_ns < edge.transforms[-1][0]:
            edge = self._moving[child] = _Moving(parent)  # another parent, or time went back
        if child in self._asked and edge.transforms.maxlen != MAX_TRANSFORMS:
            edge.transforms = deque(edge.transforms, maxlen=MAX_TRANSFORMS)
        edge.transforms.append((stamp_ns, numbers))
        self._make_room(self._moving, child)

    def _make_room(self, frames: OrderedDict[str, Any], newest: str) -> None:
        """Note that a frame was heard of; forget another one if there are too many."""
        frames.move_to_end(newest)
        while len(frames) > MAX_FRAMES:
            oldest = next(iter(frames))
            if oldest in self._asked:  # fewer than there is room for
                frames.move_to_end(oldest)
            else:
                del frames[oldest]
                self._crowded = True

    def _ask(self, frame: str) -> None:
        """Keep a frame from now on, unless many others are asked for after it."""
        self._asked[frame] = None
        self._asked.move_to_end(frame)
        if len(self._asked) > MAX_ASKED:
            forgotten, _ = self._asked.popitem(last=False)
            if forgotten in self._moving:
                edge = self._moving[forgotten]
                edge.transforms = deque(edge.transforms, maxlen=MAX_TRANSFORMS_OF_OTHERS)

    def _parent(self, frame: str) -> str | None:
        if frame in self._static:
            return self._static[frame][0]
        return self._moving[frame].parent if frame in self._moving else None

    def _ancestors(self, frame: str) -> list[str]:
        frames = [frame]
        while (parent := self._parent(frames[-1])) is not None and len(frames) <= MAX_DEPTH:
            frames.append(parent)
        return frames

    def _chain(self, frames: list[str], stamp_ns: int | None) -> np.ndarray:
        """Return the transform from the first of these frames to the last one's parent."""
        result = np.eye(4)
        for frame in frames:
            result = _matrix(self._edge(frame, stamp_ns)) @ result
        return result

    def _edge(self, child: str, stamp_ns: int | None) -> Numbers:
        if child in self._static:
            return self._static[child][1]
        edges = self._moving[child].transforms
        if stamp_ns is None:
            return edges[-1][1]
        after = bisect_left(edges, stamp_ns, key=lambda edge: edge[0])
        if after < len(edges) and edges[after][0] == stamp_ns:
            return edges[after][1]
        if after in (0, len(edges)):
            nearest = edges[min(after, len(edges) - 1)][0]
            raise LookupError_(
                f"TF has no transform from '{child}' to '{self._moving[child].parent}' at the "
                f'requested time; the nearest is {abs(nearest - stamp_ns) * 1e-9:.3g} s away '
                '(late transforms: raise tf_timeout; otherwise compare the clocks)')
        (begin, first), (end, second) = edges[after - 1], edges[after]
        return _between(first, second, (stamp_ns - begin) / (end - begin))

    def _missing(self, target_frame: str, source_frame: str) -> str:
        """Return why there is no path between two frames, and what there is."""
        known = set(self._static) | set(self._moving)
        # Roots are nobody's child.
        known |= {parent for frame in known if (parent := self._parent(frame)) is not None}
        refused = [_refusal(*edge, reason) for edge, reason in self._refused.items()
                   if target_frame in edge or source_frame in edge]
        missing = [frame for frame in dict.fromkeys((source_frame, target_frame))
                   if frame not in known]
        if not known:
            told = ('no transform that can be used' if self._refused else 'no transform') + (
                ' has come on /tf or /tf_static yet')
        elif missing:
            told = (' and '.join(_no_frame(frame, known) for frame in missing)
                    + f'; it has {_listed(known)}')
        else:
            roots = [self._ancestors(frame)[-1] for frame in (source_frame, target_frame)]
            told = (f"TF has no path from '{source_frame}' to '{target_frame}': they are in two "
                    f"trees, below '{roots[0]}' and '{roots[1]}'")
        if refused:
            told += '; ' + '; '.join(refused[-2:])
        elif missing and self._crowded:
            told += f' (more than {MAX_FRAMES} frames came, and some were forgotten)'
        return told

    # Parts that take the lock themselves ---------------------------------------------------------

    def _refuse(self, parent: str, child: str, reason: str) -> None:
        with self._lock:
            edge = parent[:MAX_NAME_LENGTH], child[:MAX_NAME_LENGTH]
            is_new = edge not in self._refused
            self._refused[edge] = reason
            self._refused.move_to_end(edge)
            if len(self._refused) > MAX_WARNINGS:
                self._refused.popitem(last=False)
            self._warnings += is_new
        if is_new and self._warnings <= MAX_WARNINGS:
            self._warn(_refusal(*edge, reason))


def _numbers(message: Any) -> Numbers:
    move, turn = message.transform.translation, message.transform.rotation
    return move.x, move.y, move.z, turn.x, turn.y, turn.z, turn.w


def _fault(parent: str, child: str, numbers: Numbers) -> str:
    """Return why tf2 would refuse an edge; empty if it would not."""
    if not parent or not child:
        return 'a frame has no name'
    if parent == child:
        return 'a frame cannot be below itself'
    if not all(map(math.isfinite, numbers)):
        return 'it is not finite'
    turn = numbers[3:]
    if abs(sum(part * part for part in turn) - 1) > UNIT_TOLERANCE:
        return (f'its quaternion has length {math.hypot(*turn):.3g} instead of 1'
                + ('' if any(turn) else ': it was never set'))
    return ''


def _refusal(parent: str, child: str, reason: str) -> str:
    return (f"the transform from '{child}' to '{parent}' in TF is refused: {reason}; correct the "
            'node that publishes it')


def _no_frame(frame: str, known: set[str]) -> str:
    close = get_close_matches(frame, known, n=1) if len(known) <= MAX_ASKED else []
    hint = f" (did you mean '{close[0]}'?)" if close else ''
    return f"TF has no frame '{frame}'{hint}"


def _listed(frames: set[str]) -> str:
    """Return some of the names, in words."""
    names = sorted(f"'{frame[:MAX_NAME_LENGTH]}'" for frame in frames)
    more = f' and {len(names) - NAMED} others' if len(names) > NAMED else ''
    return ', '.join(names[:NAMED]) + more


def _matrix(numbers: Numbers) -> np.ndarray:
    return pose_matrix(numbers[:3], numbers[3:])


def _between(first: Numbers, second: Numbers, part: float) -> Numbers:
    """Return the transform interpolated between two."""
    x, y, z = ((1 - part) * here + part * there for here, there in zip(first[:3], second[:3]))
    return x, y, z, *quaternion_between(first[3:], second[3:], part)
