"""The keyframes of a stream in a row, and what joins each to the one before."""

from collections.abc import Sequence

import numpy as np

from xsvggt_ros.geometry.similarity import inverse_similarity
from xsvggt_ros.trajectory.corrections import Corrections
from xsvggt_ros.trajectory.keyframe import Snapshot
from xsvggt_ros.trajectory.pose_graph import Edges

# Standard deviations of a step from keyframe to keyframe; of depth where they are lengths.
_STEP = np.array([0.003] * 3 + [0.006] * 3 + [0.006])
_GUESS = np.array([0.15] * 3 + [0.3] * 3 + [0.1])
_TURN = 1.0              # lengths, of depth, that a radian counts


class KeyframeChain:
    """
    Keyframes by number, ascending: the odometry's poses, and nodes of the graph.

    nodes [K, 4, 4]: similarities, map_from_keyframe.
    """

    def __init__(self) -> None:
        """Begin without keyframes."""
        self.keyframes: np.ndarray = np.empty(0, np.int64)
        self.poses: np.ndarray = np.empty((0, 4, 4))
        self.nodes: np.ndarray = np.empty((0, 4, 4))
        self._variance: np.ndarray = np.empty((0, 7))    # of the step from the one before
        self._depth: np.ndarray = np.empty(0)
        self._guessed: np.ndarray = np.empty(0, bool)
        self._joints: dict[int, np.ndarray] = {}   # over gaps: before_from_keyframe

    def __len__(self) -> int:
        """Return how many keyframes there are."""
        return len(self.keyframes)

    def __contains__(self, keyframe: int) -> bool:
        """Return whether there is a keyframe."""
        row = int(np.searchsorted(self.keyframes, keyframe))
        return row < len(self.keyframes) and bool(self.keyframes[row] == keyframe)

    @property
    def has_gaps(self) -> bool:
        """Return whether a keyframe is joined by a guess."""
        return bool(self._guessed.any())

    @property
    def newest_pose(self) -> np.ndarray:
        """Return the odometry's pose [4, 4] of the newest keyframe."""
        return self.poses[-1]

    def rows(self, keyframes: Sequence[int] | np.ndarray) -> np.ndarray:
        """Return the rows of keyframes that there are."""
        return np.searchsorted(self.keyframes, keyframes)

    def before(self, keyframe: int) -> int:
        """Return the keyframe before one."""
        return int(self.keyframes[self.rows([keyframe])[0] - 1])

    def update(self, snapshot: Snapshot, corrections: Corrections) -> None:
        """Add a snapshot's keyframe, and move those that the window moved."""
        keyframe = snapshot.keyframe
        known = keyframe.depth[np.isfinite(keyframe.depth) & (keyframe.depth > 0)]
        depth = float(np.median(known)) if len(known) else float(
            self._depth[-1] if len(self._depth) else 1.0)
        sigma = (_GUESS if keyframe.guessed else _STEP).copy()
        sigma[3:6] *= depth
        self.keyframes = np.append(self.keyframes, keyframe.id)
        self.poses = np.concatenate([self.poses, snapshot.poses[-1:]])
        self.nodes = np.concatenate([self.nodes, snapshot.poses[-1:]])
        self._variance = np.concatenate([self._variance, sigma[None] ** 2])
        self._depth = np.append(self._depth, depth)
        self._guessed = np.append(self._guessed, keyframe.guessed)
        self.move(snapshot.ids, snapshot.poses, corrections)
        gap = snapshot.gap
        if gap is not None and gap.keyframe in self:
            self._joints[gap.keyframe] = gap.before_from_keyframe
            self._variance[self.rows([gap.keyframe])[0]] = gap.sigma ** 2

    def move(self, keyframes: np.ndarray, poses: np.ndarray, corrections: Corrections) -> None:
        """Move keyframes to where the window says that they are; nodes follow."""
        rows = np.searchsorted(keyframes, self.keyframes)
        there = rows < len(keyframes)
        there[there] = keyframes[rows[there]] == self.keyframes[there]
        self.poses[there] = poses[rows[there]]
        self.nodes[there] = corrections.at(self.keyframes[there]) @ self.poses[there]

    def edges(self) -> Edges:
        """Return what joins each keyframe to the one before."""
        count = len(self.keyframes)
        measured = inverse_similarity(self.poses[:-1]) @ self.poses[1:]
        for keyframe, joint in self._joints.items():
            measured[self.rows([keyframe])[0] - 1] = joint
        rows = np.arange(max(0, count - 1))
        return Edges(rows, rows + 1, measured, self._variance[1:] ** -0.5,
                     np.full(len(rows), np.inf))

    def corrections(self) -> Corrections:
        """Return what the nodes say about the odometry's poses."""
        return Corrections(self.keyframes.copy(), self.nodes @ inverse_similarity(self.poses))

    def placed(self) -> Corrections:
        """Return the nodes, map_from_keyframe: of what keyframes saw in their own frames."""
        return Corrections(self.keyframes.copy(), self.nodes.copy())

    # Memory --------------------------------------------------------------------------------------

    def most_crowded(self, newest: int) -> int:
        """Return the keyframe between whose neighbours is least; never the first or `newest`."""
        end = len(self.keyframes) - newest
        before, after = self.poses[:end - 2], self.poses[2:end]
        length = np.linalg.norm(before[:, :3, 3] - after[:, :3, 3], axis=1)
        length = length / self._depth[1:end - 1]
        cosine = (np.einsum('nij,nij->n', before[:, :3, :3], after[:, :3, :3]) - 1) / 2
        apart = length + _TURN * np.arccos(np.clip(cosine, -1, 1))
        return int(self.keyframes[1 + int(np.argmin(apart))])

    def joint(self, keyframe: int) -> tuple[np.ndarray, np.ndarray]:
        """Return a keyframe in the frame of the one before [4, 4], and its variance [7]."""
        row = int(self.rows([keyframe])[0])
        joint = self._joints.get(keyframe)
        if joint is None:
            joint = inverse_similarity(self.poses[row - 1]) @ self.poses[row]
        return joint, self._variance[row]

    def remove(self, keyframe: int) -> None:
        """Forget a keyframe; the one after it is joined to the one before it."""
        row = int(self.rows([keyframe])[0])
        if row + 1 < len(self.keyframes):
            after = int(self.keyframes[row + 1])
            if keyframe in self._joints or after in self._joints:
                self._joints[after] = self.joint(keyframe)[0] @ self.joint(after)[0]
            self._variance[row + 1] += self._variance[row]
            self._guessed[row + 1] |= self._guessed[row]
        for name in ('keyframes', 'poses', 'nodes', '_variance', '_depth', '_guessed'):
            setattr(self, name, np.delete(getattr(self, name), row, 0))
        self._joints.pop(keyframe, None)
