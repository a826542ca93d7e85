"""Where the node's stream is in the saved map that map.localize_in names."""

import numpy as np
from rclpy.impl.rcutils_logger import RcutilsLogger

from xsvggt_ros.node.tracked_pose import Localization
from xsvggt_ros.trajectory.config import TrajectoryConfig
from xsvggt_ros.trajectory.landmark_map import LandmarkMap
from xsvggt_ros.trajectory.localizer import in_own_unit, Localizer


class MapLocalization:
    """
    Takes over what a localizer, which is in another thread, has found; the worker's.

    map_from_stream [4, 4]: a similarity from the map that the stream's loops make, None until the
    stream is recognised. Rigid for a stream that has a scale of its own.
    """

    def __init__(self, landmarks: LandmarkMap, logger: RcutilsLogger) -> None:
        """Take a saved map."""
        self._landmarks, self._logger = landmarks, logger
        self._localizer: Localizer | None = None
        self._found: np.ndarray | None = None   # that was taken over
        self._metres: float | None = None       # with which
        self._since_ns: int | None = None
        self.map_from_stream: np.ndarray | None = None

    def begin(self, config: TrajectoryConfig) -> Localizer:
        """Return what looks for a new stream."""
        self._localizer = Localizer(self._landmarks, config)
        return self._localizer

    def forget(self) -> None:
        """Forget the stream."""
        self._localizer = self._found = self._metres = None
        self._since_ns = self.map_from_stream = None

    def update(self, pose: np.ndarray, stamp_ns: int, metres: float | None) -> bool:
        """
        Take over what is known by now; return whether that is anything new.

        pose: of the camera in the map that the stream's loops make, [4, 4]. metres: see
        `StreamTrajectory.track`.
        """
        found = None if self._localizer is None else self._localizer.map_from_stream
        if found is None or metres is not None and not np.isfinite(metres):
            return False
        if found is self._found and metres == self._metres:
            return False
        self._found, self._metres = found, metres
        self.map_from_stream = found if metres is None else in_own_unit(found, pose, metres)
        if self._since_ns is None:
            self._since_ns = stamp_ns
            assert self._localizer is not None   # it has found something
            self._logger.info(
                f'localised in the saved map: {self._localizer.report.confirmations} keyframes '
                'agree')
        return True

    @property
    def state(self) -> Localization:
        """Return what is known of where the stream is."""
        report = None if self._localizer is None else self._localizer.report
        return Localization(self._since_ns, report.confirmations if report else 0,
                            report.refused if report else {}, self._landmarks.is_metric)
