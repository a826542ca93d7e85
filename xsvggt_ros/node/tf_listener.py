"""Transforms that others publish: where one frame is in another, now or at a time."""

from bisect import bisect_left
from collections import deque
import threading
import time

from geometry_msgs.msg import TransformStamped
import numpy as np
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile
from std_msgs.msg import Header
from tf2_msgs.msg import TFMessage
import torch

from xsvggt_ros.geometry import matrix_to_quaternion, quaternion_to_matrix
from xsvggt_ros.node.messages import nanoseconds

MOST = 1000  # transforms of one edge that are remembered: ten seconds at 100 Hz
FORGOTTEN = 5.0  # seconds after which an edge that moves is no longer somebody's
DEEPEST = 100  # edges from a frame to its root; more is a loop


class LookupError_(LookupError):
    """A transform that is not known; the message says what is missing."""


class TransformTree:
    """The edges that were published; filled by the executor's thread, read by the worker's."""

    def __init__(self) -> None:
        """Begin empty."""
        self._lock = threading.Lock()
        self._parents: dict[str, str] = {}
        self._static: dict[str, np.ndarray] = {}  # parent_from_child, by child
        self._moving: dict[str, deque[tuple[int, np.ndarray]]] = {}
        # By child: its parents, and when an edge to them came last; never old if it is static.
        self._claims: dict[str, dict[str, float]] = {}

    def claim(self, parent: str, child: str, static: bool) -> None:
        """Remember that somebody else publishes an edge."""
        with self._lock:
            self._claims.setdefault(child, {})[parent] = np.inf if static else time.monotonic()

    def claimed_parent(self, child: str) -> str | None:
        """Return a parent that somebody else gives a frame; None if nobody does."""
        oldest = time.monotonic() - FORGOTTEN
        with self._lock:
            claims = self._claims.get(child, {})
            return next((parent for parent, when in claims.items() if when > oldest), None)

    def add(self, edge: TransformStamped, static: bool) -> None:
        """Remember an edge; a child that has a static parent keeps it."""
        parent, child = edge.header.frame_id.lstrip('/'), edge.child_frame_id.lstrip('/')
        stamp_ns, matrix = nanoseconds(edge.header), _matrix(edge)
        if parent == child or not np.isfinite(matrix).all():
            return
        with self._lock:
            if static:
                self._static[child] = matrix
                self._parents[child] = parent
            elif child not in self._static:
                edges = self._moving.setdefault(child, deque(maxlen=MOST))
                if self._parents.get(child) != parent or edges and stamp_ns < edges[-1][0]:
                    edges.clear()  # another parent, or time went back
                edges.append((stamp_ns, matrix))
                self._parents[child] = parent

    def lookup(self, target_frame: str, source_frame: str, stamp_ns: int | None) -> np.ndarray:
        """
        Return target_from_source [4, 4] at a time, None for the newest; raise LookupError_.

        Between two transforms of an edge it is interpolated, before and after all it is not known.
        """
        with self._lock:
            up, down = self._ancestors(target_frame), self._ancestors(source_frame)
            common = next((frame for frame in down if frame in up), None)
            if common is None:
                missing = [frame for frame in (target_frame, source_frame)
                           if frame not in self._parents]
                because = (f"; nothing is known of '{missing[0]}'" if missing else '')
                raise LookupError_(
                    f"TF has no way from '{source_frame}' to '{target_frame}'{because}")
            common_from_target = self._chain(up[:up.index(common)], stamp_ns)
            common_from_source = self._chain(down[:down.index(common)], stamp_ns)
        return np.linalg.inv(common_from_target) @ common_from_source

    def _ancestors(self, frame: str) -> list[str]:
        frames = [frame]
        while frames[-1] in self._parents and len(frames) <= DEEPEST:
            frames.append(self._parents[frames[-1]])
        return frames

    def _chain(self, frames: list[str], stamp_ns: int | None) -> np.ndarray:
        """Return the transform from the first of these frames to the last one's parent."""
        result = np.eye(4)
        for frame in frames:
            result = self._edge(frame, stamp_ns) @ result
        return result

    def _edge(self, child: str, stamp_ns: int | None) -> np.ndarray:
        if child in self._static:
            return self._static[child]
        edges = self._moving[child]
        if stamp_ns is None:
            return edges[-1][1]
        after = bisect_left(edges, stamp_ns, key=lambda edge: edge[0])
        if after < len(edges) and edges[after][0] == stamp_ns:
            return edges[after][1]
        if after in (0, len(edges)):
            nearest = edges[min(after, len(edges) - 1)][0]
            raise LookupError_(
                f"TF has '{child}' in '{self._parents[child]}' not at the time asked for; the "
                f'nearest is {abs(nearest - stamp_ns) * 1e-9:.3g} s away')
        (begin, first), (end, second) = edges[after - 1], edges[after]
        return _between(first, second, (stamp_ns - begin) / (end - begin))


class TfListener:
    """Listens to /tf and /tf_static."""

    def __init__(self, node: Node) -> None:
        """Subscribe; the node's executor does the rest."""
        self._node = node
        self._tree = TransformTree()
        # The stamps of our own edges, by (parent, child): all others are somebody else's.
        self._own: dict[tuple[str, str], deque[int]] = {}
        latched = QoSProfile(depth=100, durability=DurabilityPolicy.TRANSIENT_LOCAL)
        self._subscriptions = [
            node.create_subscription(TFMessage, '/tf', self._on_moving, 100),
            node.create_subscription(TFMessage, '/tf_static', self._on_static, latched)]

    def lookup(
        self, target_frame: str, source_frame: str, stamp_ns: int | None,
    ) -> np.ndarray:
        """Return target_from_source [4, 4] as `TransformTree.lookup` does."""
        return self._tree.lookup(target_frame, source_frame, stamp_ns)

    def expect(self, edges: list[tuple[str, str]], header: Header) -> None:
        """Know edges (parent, child) as our own before they are published with this stamp."""
        for edge in edges:
            self._own.setdefault(edge, deque(maxlen=MOST)).append(nanoseconds(header))

    def other_parent(self, child: str) -> str | None:
        """Return the parent that another node gives a frame; None if nobody does."""
        return self._tree.claimed_parent(child)

    def destroy(self) -> None:
        """Listen no more."""
        for subscription in self._subscriptions:
            self._node.destroy_subscription(subscription)

    def _on_moving(self, message: TFMessage) -> None:
        for edge in message.transforms:
            parent, child = edge.header.frame_id.lstrip('/'), edge.child_frame_id.lstrip('/')
            try:  # once: a second one with this stamp is of another node with the same images
                self._own.get((parent, child), deque()).remove(nanoseconds(edge.header))
            except ValueError:
                self._tree.claim(parent, child, static=False)
            self._tree.add(edge, static=False)

    def _on_static(self, message: TFMessage) -> None:
        for edge in message.transforms:
            self._tree.claim(edge.header.frame_id.lstrip('/'), edge.child_frame_id.lstrip('/'),
                             static=True)
            self._tree.add(edge, static=True)


def _matrix(edge: TransformStamped) -> np.ndarray:
    move, turn = edge.transform.translation, edge.transform.rotation
    matrix = np.eye(4)
    quaternion = torch.tensor((turn.x, turn.y, turn.z, turn.w), dtype=torch.float64)
    matrix[:3, :3] = quaternion_to_matrix(quaternion).numpy()
    matrix[:3, 3] = move.x, move.y, move.z
    return matrix


def _between(first: np.ndarray, second: np.ndarray, part: float) -> np.ndarray:
    """Return the transform a part of the way from one to another that is not far from it."""
    turns = matrix_to_quaternion(torch.from_numpy(np.stack([first, second])[:, :3, :3]))
    sign = -1.0 if turns[0] @ turns[1] < 0 else 1.0
    matrix = (1 - part) * first + part * second
    matrix[:3, :3] = quaternion_to_matrix((1 - part) * turns[0] + part * sign * turns[1]).numpy()
    return matrix
