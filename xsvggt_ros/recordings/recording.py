"""What is known of a run when it is over, and how it is written to a folder. No ROS."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
import os
from pathlib import Path
import statistics

import numpy as np

from xsvggt_ros.console.errors import ToolError
from xsvggt_ros.geometry import metrics
from xsvggt_ros.mapping.map_files import cloud_from_packed, write_ply, write_tum
from xsvggt_ros.mapping.point_map import PointMap
from xsvggt_ros.mapping.trajectory import StampedPose
from xsvggt_ros.recordings.outputs import CacheRow, write_cache_csv
from xsvggt_ros.trajectory.landmark_file import ENDING, write_landmarks
from xsvggt_ros.trajectory.landmark_map import LandmarkMap

PICTURE_FILE = 'reconstruction.png'
LANDMARKS_FILE = f'map{ENDING}'
MAP_FILE, TRAJECTORY_FILE, CACHE_FILE = 'map.ply', 'trajectory.tum', 'cache.csv'


@dataclass(frozen=True)
class TrajectoryErrors:
    """How far the camera's trajectory is from the true one, after Sim(3); see `metrics`."""

    ate: float                  # metres
    ate_ratio: float            # over the RMS spread of the true positions
    rotation_deg: float
    true_positions: np.ndarray  # [n, 3], brought into the reconstruction's world


@dataclass
class Recording:
    """The map, the camera's trajectory, the cache's occupancy and one input image of a stream."""

    poses: list[StampedPose] = field(default_factory=list)
    base_poses: list[StampedPose] | None = None   # of the robot's base, if they are wanted
    truth: list[StampedPose] = field(default_factory=list)   # in the true world, if it is known
    cache: list[CacheRow] = field(default_factory=list)
    map: PointMap = field(default_factory=PointMap)
    image: np.ndarray | None = None      # [H, W, 3] uint8 RGB, the last one seen
    model: str = 'unknown weights'
    random_weights: bool = False
    metric: bool = False                 # lengths are metres, not the network's own unit
    frames_processed: int | None = None  # by the node; None: all of them are in here

    @property
    def frames(self) -> int:
        """Return how many frames the network has processed."""
        return len(self.poses) if self.frames_processed is None else self.frames_processed

    def cloud(self) -> np.ndarray:
        """Return the map [N] as `CLOUD_DTYPE`."""
        return cloud_from_packed(self.map.points().numpy())

    def median_latency(self) -> float:
        """Return the median seconds from receipt to published; nan if none is known."""
        latencies = [row.latency for row in self.cache if np.isfinite(row.latency)]
        return statistics.median(latencies) if latencies else float('nan')

    def errors(self) -> TrajectoryErrors | None:
        """Return the errors of the frames whose true pose is known; None if these are too few."""
        true = {pose.stamp_ns: pose for pose in self.truth}
        pairs = [(pose, true[pose.stamp_ns]) for pose in self.poses
                 if pose.stamp_ns in true and np.isfinite(pose.position).all()]
        if len(pairs) < 3:
            return None
        estimate, truth = (np.array([pose.matrix() for pose in side]) for side in zip(*pairs))
        ate, ratio = metrics.position_errors(estimate[:, :3, 3], truth[:, :3, 3])
        back = metrics.align(truth[:, :3, 3], estimate[:, :3, 3])
        return TrajectoryErrors(
            ate, ratio, metrics.rotation_error(estimate[:, :3, :3], truth[:, :3, :3]),
            back.points(truth[:, :3, 3]))

    @staticmethod
    def check_folder(folder: Path) -> None:
        """Make the folder now; raise ToolError: a long run must not end with nothing written."""
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ToolError(f'--out {folder}: cannot be made: {error}') from error
        if not os.access(folder, os.W_OK):
            raise ToolError(f'--out {folder}: you may not write there')

    def write_data(self, folder: Path) -> list[Path]:
        """Write map, trajectory and cache occupancy; return the files; raise ToolError."""
        comment = f'weights: {self.model}'.replace('\n', ' ')
        with writing(folder):
            folder.mkdir(parents=True, exist_ok=True)
            write_ply(folder / MAP_FILE, self.cloud(), comment)
            write_tum(folder / TRAJECTORY_FILE,
                      self.poses if self.base_poses is None else self.base_poses)
            write_cache_csv(folder / CACHE_FILE, self.cache)
        return [folder / name for name in (MAP_FILE, TRAJECTORY_FILE, CACHE_FILE)]


def write_map_landmarks(folder: Path, landmarks: LandmarkMap | None) -> list[Path]:
    """Write what a later run finds itself by beside the map; return the file; raise ToolError."""
    path = folder / LANDMARKS_FILE
    with writing(folder):
        if landmarks is None:
            path.unlink(missing_ok=True)   # of an earlier run, whose map is replaced
            return []
        write_landmarks(path, landmarks)
    return [path]


@contextmanager
def writing(folder: Path) -> Iterator[None]:
    """Raise ToolError for what is wrong with a folder or its disk."""
    try:
        yield
    except OSError as error:
        raise ToolError(f'--out {folder}: cannot be written: {error}') from error


def describe_errors(errors: TrajectoryErrors) -> str:
    """Return the errors in words."""
    return (f'position error {errors.ate:.2f} m after alignment (ATE), '
            f'{100 * errors.ate_ratio:.0f} % of the spread of the true positions; rotation error '
            f'{errors.rotation_deg:.1f} deg')
