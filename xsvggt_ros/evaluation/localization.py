"""
Localisation in a saved map: from other paths through its room, and from other rooms.

    python -m xsvggt_ros.evaluation.localization --json FILE [--first N] [--rooms N] [--starts N]

Each room of the test split is mapped on its own path; then a camera begins somewhere else in it,
on another path, and is looked for in that map, and in the map of the next room.
"""

import argparse
from dataclasses import dataclass
from pathlib import Path
import sys
import tempfile
from typing import Any

import numpy as np
import torch

from xsvggt_ros.console.environment import device_name, package_version
from xsvggt_ros.console.errors import ToolError
from xsvggt_ros.console.measurement import load_network, write_json
from xsvggt_ros.console.tables import markdown_table
from xsvggt_ros.evaluation.eval_streams import EvalSource, EvalStream, WorldSource
from xsvggt_ros.evaluation.tracking import begin_odometry, predict_tracked, tracked_frames
from xsvggt_ros.geometry import metrics
from xsvggt_ros.geometry.similarity import apply_to_pose
from xsvggt_ros.trajectory.config import TrajectoryConfig
from xsvggt_ros.trajectory.history import History
from xsvggt_ros.trajectory.landmark_file import ENDING, read_landmarks, write_landmarks
from xsvggt_ros.trajectory.landmark_map import landmark_map, LandmarkMap
from xsvggt_ros.trajectory.localizer import Localizer
from xsvggt_ros.world.path import draw_path
from xsvggt_ros.world.synthetic_world import SPLITS

_RATE = 5.0
_MAPPED, _SEARCHED = 100, 80     # frames
_WIDTH = 0.25                    # metres that a path keeps from what stands in the room
_RIGHT = 0.1, 3.0                # of the spread, degrees
_DRAWN = 2000                    # paths at most, until one is free


class OtherPathSource(WorldSource):
    """A synthetic world on another path than its own, from a moment of it on."""

    def __init__(self, seed: int, number: int, frames: int, rate: float) -> None:
        """Take path `number` of world `seed`; raises ToolError if there is no free one."""
        super().__init__(seed, frames, rate)
        self.name = f'world {seed}, path {number}'
        rng = np.random.default_rng((seed, number))
        for _ in range(_DRAWN):
            self._world.path = draw_path(rng, self._world.scene.size, 0.6)
            self._begin = float(rng.uniform(0, 30))
            if self._is_free():
                return
        raise ToolError(f'{self.name}: no path is free of what stands there')

    def _is_free(self) -> bool:
        positions = np.array([
            self._world.path.world_from_camera(self._begin + index / self._rate)[:3, 3]
            for index in range(len(self))])
        beside = _WIDTH * np.array([[0, 0, 0], [1, 0, 0], [-1, 0, 0], [0, 1, 0], [0, -1, 0]])
        return bool(self._world.scene.is_free(positions[:, None] + beside).all())


@dataclass(frozen=True)
class _Run:
    """A stream, its trajectory in the end, and what a localizer said at each keyframe."""

    stream: EvalStream
    history: History
    live: list[tuple[int, np.ndarray]]   # frame, where it was in the map: once it is believed


def track(source: EvalSource, loaded: Any, landmarks: list[LandmarkMap]) -> list[_Run]:
    """Return a stream's run; one for each map that it is looked for in, or one without."""
    stream, predicted = predict_tracked(source, loaded)
    config = TrajectoryConfig()
    odometry = begin_odometry(predicted, stream, True, config)
    history = History(config)
    localizers = [Localizer(one, config) for one in landmarks]
    live: list[list[tuple[int, np.ndarray]]] = [[] for _ in localizers]
    for index, frame in enumerate(tracked_frames(predicted, stream)):
        estimate = odometry.step(frame)
        history.add(estimate, odometry)
        for localizer, poses in zip(localizers, live):
            if estimate.is_keyframe:
                localizer.add(odometry.snapshot, history.loops)
            if localizer.map_from_stream is not None:
                poses.append((index, apply_to_pose(localizer.map_from_stream, history.live[-1])))
    history.finish(odometry)
    return [_Run(stream, history, poses) for poses in live or [[]]]


def measure(seed: int, run: _Run, mapped: _Run, name: str) -> dict[str, Any]:
    """Return whether a stream was localised in its own room's map, when, and how well."""
    row: dict[str, Any] = {'name': name, 'world': seed, 'localized': bool(run.live)}
    if not run.live:
        return row | {'right': False}
    true_map = mapped.stream.world_from_camera
    final = mapped.history.final()
    to_truth = metrics.align(final[:, :3, 3], true_map[:, :3, 3])
    # As of all trajectories, see `metrics.rotation_error`: orientations by orientations.
    turn = metrics.nearest_rotation(
        (true_map[:, :3, :3] @ final[:, :3, :3].transpose(0, 2, 1)).mean(0))
    frames = [frame for frame, _ in run.live]
    poses = np.array([pose for _, pose in run.live])
    true = run.stream.world_from_camera[frames]
    off = np.linalg.norm(to_truth.points(poses[:, :3, 3]) - true[:, :3, 3], axis=1)
    turned = metrics.angles(turn @ poses[:, :3, :3], true[:, :3, :3])
    position = float(np.sqrt((off ** 2).mean())) / metrics.spread(true_map[:, :3, 3])
    return row | {'after_seconds': frames[0] / _RATE, 'position': position,
                  'rotation_deg': float(turned.mean()), 'first_position': float(
                      off[0] / metrics.spread(true_map[:, :3, 3])),
                  'right': bool(position < _RIGHT[0] and turned.mean() < _RIGHT[1])}


def saved(run: _Run) -> LandmarkMap:
    """Return the map of a run, written and read again."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f'map{ENDING}'
        write_landmarks(path, landmark_map(run.history.loops.kept, np.eye(4), 1.0, False))
        return read_landmarks(path)


def table(rows: list[dict[str, Any]]) -> str:
    """Return the rows as Markdown."""
    lines = [[row['name'], *(('-',) * 3 if not row['localized'] else (
        f"{row['after_seconds']:.1f} s", f"{row['position']:.3f}", f"{row['rotation_deg']:.2f}")),
        'believed' if row['elsewhere'] else 'refused'] for row in rows]
    return markdown_table(['start', 'localized after', 'position / spread', 'rotation deg',
                           'in another room'], lines)


def main(arguments: list[str] | None = None) -> int:
    """Measure, print and write the table; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--first', type=int, default=0, metavar='N', help='room of the split')
    parser.add_argument('--rooms', type=int, default=5, metavar='N', help='two or more')
    parser.add_argument('--starts', type=int, default=2, metavar='N', help='in each room')
    parser.add_argument('--checkpoint', default='small', metavar='FILE')
    parser.add_argument('--json', type=Path, metavar='FILE', required=True)
    options = parser.parse_args(arguments)
    try:
        loaded = load_network(options.checkpoint, 'auto', torch.device('cpu'))
        torch.set_num_threads(1)
        seeds = SPLITS['test'][options.first:options.first + options.rooms]
        mapped = [track(WorldSource(seed, _MAPPED, _RATE), loaded, [])[0] for seed in seeds]
        maps = [saved(run) for run in mapped]
        rows = []
        for number, seed in enumerate(seeds):
            for start in range(1, options.starts + 1):
                source = OtherPathSource(seed, start, _SEARCHED, _RATE)
                here, there = track(source, loaded, [maps[number], maps[number - 1]])
                rows.append(measure(seed, here, mapped[number], source.name)
                            | {'elsewhere': bool(there.live)})
                print(rows[-1], file=sys.stderr, flush=True)
        print(table(rows))
        write_json(options.json, {
            'version': package_version(), 'device': device_name(torch.device('cpu')),
            'model': loaded.description, 'rows': rows,
            'right': sum(row['right'] for row in rows), 'starts': len(rows),
            'localized': sum(row['localized'] for row in rows),
            'believed_elsewhere': sum(row['elsewhere'] for row in rows)})
    except ToolError as error:
        print(f'localization: {error}', file=sys.stderr)
        return 1
    return 0


if __name__ == '__main__':
    sys.exit(main())
