"""The whole trajectory of a recording: every frame as a part of its keyframe."""

import numpy as np

from xsvggt_ros.geometry.similarity import scales
from xsvggt_ros.trajectory.config import TrajectoryConfig
from xsvggt_ros.trajectory.corrections import Corrections
from xsvggt_ros.trajectory.landmark_map import LandmarkMap
from xsvggt_ros.trajectory.localizer import Localizer
from xsvggt_ros.trajectory.loop_closer import LoopCloser
from xsvggt_ros.trajectory.odometry import Estimate, Odometry

_FINAL_ITERATIONS = 30   # of the graph


class History:
    """Keeps a pose a frame, so that all of them follow what becomes of the keyframes."""

    def __init__(self, config: TrajectoryConfig | None = None,
                 landmarks: LandmarkMap | None = None) -> None:
        """
        Begin without frames.

        config: the odometry's; landmarks: of a saved map, in which the stream is localised.
        """
        config = config or TrajectoryConfig()
        self.live: list[np.ndarray] = []                  # world_from_camera, as known then
        self.sources: list[str] = []
        self.loops = LoopCloser(config)
        self.localizer = None if landmarks is None else Localizer(landmarks, config)
        self._parts: list[tuple[int, np.ndarray]] = []
        self._keyframes: dict[int, np.ndarray] = {}

    def add(self, estimate: Estimate, odometry: Odometry) -> None:
        """Take a frame; `odometry` says where its keyframes are now."""
        self.sources.append(estimate.source)
        self._parts.append((estimate.keyframe, estimate.keyframe_from_camera))
        if estimate.is_keyframe:
            self._update(odometry)
            if odometry.closes_loops:
                self.loops.add(odometry.snapshot)
                if self.localizer is not None:
                    self.localizer.add(odometry.snapshot, self.loops)
        self.live.append(self._corrections.pose(estimate.keyframe, estimate.world_from_camera))

    def finish(self, odometry: Odometry) -> None:
        """Take over where the keyframes are in the end, and bring all loops into agreement."""
        self._update(odometry)
        if odometry.closes_loops and odometry.keyframes:
            self.loops.finish(odometry.map.keyframes, odometry.map.poses, odometry.settled(),
                              _FINAL_ITERATIONS)
            if self.localizer is not None:
                self.localizer.finish(self.loops)

    def final(self) -> np.ndarray:
        """Return world_from_camera [N, 4, 4] of all frames, by all that is known by now."""
        poses = [self._corrections.pose(keyframe, self._keyframes[keyframe] @ part)
                 for keyframe, part in self._parts]
        return np.array(poses).reshape(-1, 4, 4)

    def scales(self) -> np.ndarray:
        """Return by how much [N] the loops make what each frame saw larger."""
        numbers = np.array([keyframe for keyframe, _ in self._parts], np.int64)
        return scales(self._corrections.at(numbers))

    @property
    def _corrections(self) -> Corrections:
        return self.loops.corrections

    def _update(self, odometry: Odometry) -> None:
        self._keyframes.update(zip(odometry.map.keyframes.tolist(), odometry.map.poses))
