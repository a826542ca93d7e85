"""Closes loops: recognises places seen again, and keeps a graph of all keyframes."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from xsvggt_ros.geometry.similarity import apply_to_pose, scales
from xsvggt_ros.trajectory.config import TrajectoryConfig
from xsvggt_ros.trajectory.corrections import Corrections
from xsvggt_ros.trajectory.keyframe import Keyframe, Snapshot
from xsvggt_ros.trajectory.keyframe_chain import KeyframeChain
from xsvggt_ros.trajectory.keyframe_database import KeyframeDatabase
from xsvggt_ros.trajectory.landmark_map import KeptKeyframes
from xsvggt_ros.trajectory.loop_check import Loop, LoopCheck
from xsvggt_ros.trajectory.loop_gate import is_plausible
from xsvggt_ros.trajectory.pose_graph import Edges, solve_graph

_LOOPS_A_KEYFRAME = 2    # that are taken
_MOST_LOOPS = 3          # for each keyframe of the budget, kept
_SKIPPED = 150           # loops for each of which one more keyframe is passed over
_WIDTHS = (10.0, 1.0)     # of the kernel: what is far off is not given up at once
_SHARED = 12             # landmarks with which two keyframes are joined anyway


@dataclass(frozen=True)
class LoopReport:
    """
    What became of the loops.

    found: loops closed so far. refused: how many pairs of keyframes that look alike were refused,
    by reason. moved: by how far the newest keyframe was moved in all, in the trajectory's unit;
    turned: in rad.
    """

    found: int
    refused: dict[str, int]
    moved: float
    turned: float


class LoopCloser:
    """
    Snapshots of keyframes in, corrections out, in bounded memory.

    All is called by one thread at a time; `corrections`, `nodes`, `report`, `keyframes` and `kept`
    are replaced as a whole, so that others may read them.
    """

    def __init__(self, config: TrajectoryConfig) -> None:
        """Begin without keyframes."""
        self._config = config
        self._database = KeyframeDatabase()
        self._check = LoopCheck(config)
        self._chain = KeyframeChain()
        self._loops: list[Loop] = []
        self._refused: Counter[str] = Counter()
        self._found = 0
        self.corrections = Corrections.none()
        self.nodes = Corrections.none()   # map_from_keyframe; never older than corrections
        self.report = LoopReport(0, {}, 0.0, 0.0)
        self.keyframes: np.ndarray = np.empty((0, 4, 4))   # map_from_keyframe
        self.kept = KeptKeyframes.none()
        self._unsettled: dict[int, Keyframe] = {}
        self._since = 0   # keyframes since one was last looked for

    def add(self, snapshot: Snapshot, search: bool = True) -> bool:
        """Take a new keyframe; return whether a loop was closed. search: whether to look."""
        self._chain.update(snapshot, self.corrections)
        self._unsettled[snapshot.keyframe.id] = snapshot.keyframe
        self._settle(snapshot.settled)
        loops = self._search(snapshot.keyframe) if search and self._is_due(snapshot) else []
        self._loops += loops
        self._found += len(loops)
        if loops or snapshot.gap is not None:
            self.close(self._config.loop_iterations)
        self._thin()
        self._show()
        return bool(loops)

    def finish(self, keyframes: np.ndarray, poses: np.ndarray, settled: Sequence[Keyframe],
               iterations: int) -> None:
        """
        Bring all into agreement at the end.

        keyframes [K] and poses [K, 4, 4]: world_from_camera where they are by then; settled:
        keyframes whose landmarks are as they stay.
        """
        self._chain.move(keyframes, poses, self.corrections)
        self._settle(settled)
        self.close(iterations)
        self._show()

    def node(self, keyframe: int) -> np.ndarray | None:
        """Return the map from a keyframe, a similarity [4, 4]; None if it is not kept."""
        if keyframe not in self._chain:
            return None
        return np.array(self._chain.nodes[self._chain.rows([keyframe])[0]])

    def close(self, iterations: int) -> None:
        """Bring all keyframes into agreement with the loops."""
        if not self._loops and not self._chain.has_gaps:
            return
        edges = self._edges()
        for width in _WIDTHS:
            self._chain.nodes = solve_graph(
                self._chain.nodes, replace(edges, cauchy=width * edges.cauchy), iterations).nodes
        self._publish()

    # Parts ---------------------------------------------------------------------------------------

    def _is_due(self, snapshot: Snapshot) -> bool:
        """
        Return whether to look for this keyframe.

        The more loops there are, the longer the graph takes, and the less a further one tells: a
        camera that goes round in the same room would be at it for ever longer.
        """
        self._since += 1
        is_due = (snapshot.keyframe.guessed or snapshot.gap is not None
                  or self._since > len(self._loops) // _SKIPPED)
        if is_due:
            self._since = 0
        return is_due

    def _settle(self, keyframes: Sequence[Keyframe]) -> None:
        for keyframe in keyframes:
            self._unsettled.pop(keyframe.id, None)
            if keyframe.id in self._chain:
                self._database.add(keyframe)

    def _show(self) -> None:
        """Publish where the keyframes are, and what is seen from them."""
        self.nodes = self._chain.placed()
        self.keyframes = apply_to_pose(self._chain.nodes, np.eye(4))
        keyframes = (*self._database.keyframes, *self._unsettled.values())
        rows = self._chain.rows([keyframe.id for keyframe in keyframes])
        self.kept = KeptKeyframes(keyframes, self._chain.nodes[rows])

    def _search(self, new: Keyframe) -> list[Loop]:
        """Return the loops that a new keyframe closes; count those that are refused."""
        found: list[Loop] = []
        for keyframe in self._candidates(new):
            loop = self._check.loop(self._database[keyframe], new)
            if isinstance(loop, Loop) and not is_plausible(loop, self._chain, self._edges(found),
                                                           self._config.loop_gate):
                loop = 'implausible'
            if isinstance(loop, str):
                self._refused[loop] += 1
                self._report()
                continue
            found.append(loop)
            if len(found) == _LOOPS_A_KEYFRAME:
                break
        return found

    def _candidates(self, new: Keyframe) -> list[int]:
        """Return ids of the keyframes that look most like a new one, to compare it with."""
        config = self._config
        keyframes, scores = self._database.scores(new.thumbnail)
        scores = np.where(keyframes <= new.id - 2 * config.window, scores, -1.0)
        order = np.argsort(-scores, kind='stable')
        chosen: list[int] = []
        for row in order[scores[order] > config.loop_similarity].tolist():
            keyframe = int(keyframes[row])
            shared = np.isin(self._database[keyframe].features.ids, new.features.ids).sum()
            if shared < _SHARED and all(abs(keyframe - one) > 1 for one in chosen):
                chosen.append(keyframe)
            if len(chosen) == config.loop_candidates:
                break
        return chosen

    def _edges(self, more: list[Loop] | None = None) -> Edges:
        loops = self._loops + (more or [])
        edges = self._chain.edges()
        if not loops:
            return edges
        return edges.joined(Edges(
            self._chain.rows([loop.first for loop in loops]),
            self._chain.rows([loop.second for loop in loops]),
            np.array([loop.first_from_second for loop in loops]),
            1 / np.array([loop.sigma for loop in loops]),
            np.full(len(loops), self._config.loop_cauchy)))

    def _publish(self) -> None:
        self.nodes = self._chain.placed()
        self.corrections = self._chain.corrections()
        self._report()

    def _report(self) -> None:
        newest, pose = self.corrections.similarities[-1], self._chain.newest_pose
        turn = newest[:3, :3] / scales(newest)
        moved = np.linalg.norm((newest @ pose)[:3, 3] - pose[:3, 3])
        angle = np.arccos(np.clip((np.trace(turn) - 1) / 2, -1, 1))
        self.report = LoopReport(self._found, dict(self._refused), float(moved), float(angle))

    # Memory --------------------------------------------------------------------------------------

    def _thin(self) -> None:
        """Drop keyframes beyond the budget: what joins them is joined to the ones before."""
        while len(self._chain) > self._config.keyframes:
            gone = self._chain.most_crowded(2 * self._config.window)
            before = self._chain.before(gone)
            joint, variance = self._chain.joint(gone)
            self._loops = [_rejoined(loop, gone, before, joint, variance) for loop in self._loops]
            self._loops = [loop for loop in self._loops if loop.first != loop.second]
            self._chain.remove(gone)
            if gone in self._database:
                self._database.remove(gone)
        most = _MOST_LOOPS * self._config.keyframes
        if len(self._loops) > most:
            best = sorted(range(len(self._loops)), key=lambda row: -self._loops[row].inliers)
            self._loops = [self._loops[row] for row in sorted(best[:most])]


def _rejoined(loop: Loop, gone: int, before: int, joint: np.ndarray,
              variance: np.ndarray) -> Loop:
    """Return a loop of keyframe `before` where it was of `gone`; joint: before_from_gone."""
    if loop.first == gone:
        loop = replace(loop, first=before, first_from_second=joint @ loop.first_from_second,
                       sigma=np.sqrt(loop.sigma ** 2 + variance))
    if loop.second == gone:
        loop = replace(loop, second=before, first_from_second=loop.first_from_second
                       @ np.linalg.inv(joint), sigma=np.sqrt(loop.sigma ** 2 + variance))
    return loop
