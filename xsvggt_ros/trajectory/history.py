"""The whole way of a recording: every frame as a part of its keyframe."""

import numpy as np

from xsvggt_ros.trajectory.odometry import Estimate, Odometry


class History:
    """Keeps a pose a frame, so that all of them follow what becomes of the keyframes."""

    def __init__(self) -> None:
        """Begin without frames."""
        self.live: list[np.ndarray] = []                  # world_from_camera, as known then
        self.sources: list[str] = []
        self._parts: list[tuple[int, np.ndarray]] = []
        self._keyframes: dict[int, np.ndarray] = {}

    def add(self, estimate: Estimate, odometry: Odometry) -> None:
        """Take a frame; `odometry` says where its keyframes are now."""
        self.live.append(estimate.world_from_camera)
        self.sources.append(estimate.source)
        self._parts.append((estimate.keyframe, estimate.keyframe_from_camera))
        if estimate.is_keyframe:
            self.update(odometry)

    def update(self, odometry: Odometry) -> None:
        """Take over where the keyframes are now."""
        self._keyframes.update(zip(odometry.map.keyframes.tolist(), odometry.map.poses))

    def final(self) -> np.ndarray:
        """Return world_from_camera [N, 4, 4] of all frames, by all that is known by now."""
        return np.array([self._keyframes[keyframe] @ part for keyframe, part in self._parts])
