"""The network's depth in the trajectory's unit: how long that is, and how much is believed."""

import numpy as np

from xsvggt_ros.trajectory.config import TrajectoryConfig
from xsvggt_ros.trajectory.depth_field import depth_correction, LandmarkRatios
from xsvggt_ros.trajectory.depth_trust import DepthTrust
from xsvggt_ros.trajectory.frame import Frame
from xsvggt_ros.trajectory.local_map import LocalMap
from xsvggt_ros.trajectory.projection import to_camera
from xsvggt_ros.trajectory.tracker import sample_depth, Tracks
from xsvggt_ros.trajectory.uncertainty import HALF_NORMAL

_FEWEST_SCALED = 20      # landmarks that tell a keyframe's scale
_WELL_KNOWN = 0.1        # standard deviation of the log depth of such a landmark
_SELF_CONSISTENT = 0.1   # spread of log ratios up to which the network's own scale counts
_SMOOTHING = 0.2         # of that spread, from keyframe to keyframe
SHALLOWEST = 1e-3        # depth below which it is none
_CONFIDENCE = (0.7, 2.0)  # factors of the depth's sigma, for the most and the least confident
_SIGMAS = (0.05, 0.6)     # least and greatest that is made of errors to be expected


class NetworkDepth:
    """What landmarks say of the network's depth, from keyframe to keyframe."""

    def __init__(self, config: TrajectoryConfig) -> None:
        """Begin in the network's own unit."""
        self._config = config
        self.log_scale = 0.0     # of the trajectory's unit over the network's in the last keyframe
        self._spread: float | None = None
        self.trust = DepthTrust()

    @property
    def scale(self) -> float:
        """Return units of the trajectory for one of the network's."""
        return float(np.exp(self.log_scale))

    def of(self, frame: Frame, pixels: np.ndarray) -> np.ndarray:
        """Return the trajectory's depths [n] at pixels by the network."""
        return np.exp(self.log_scale) * sample_depth(frame.depth, pixels, frame.depth_from_image)

    def learn(self, frame: Frame, tracks: Tracks, pose: np.ndarray, local_map: LocalMap,
              is_doubtful: bool) -> None:
        """
        Take a keyframe at `pose` and the tracks of landmarks in it.

        is_doubtful: whether the pose may be that of what moves by itself.
        """
        if len(tracks) <= _FEWEST_SCALED:
            return
        depth, told, variance, good = _compared(frame, tracks, pose, local_map)
        well = good & (variance < _WELL_KNOWN ** 2)
        if well.sum() > _FEWEST_SCALED:
            good = well
            self.trust.add(np.log(told[good]), np.log(depth[good]))
        if good.sum() <= _FEWEST_SCALED // 2:
            return
        ratios = np.log(depth[good] / told[good])
        middle = float(np.median(ratios))
        spread = 1.4826 * float(np.median(np.abs(ratios - middle))) + 1e-3
        self._spread = spread if self._spread is None else (
            self._spread + _SMOOTHING * (spread - self._spread))
        trust = min(1.0, (_SELF_CONSISTENT / self._spread) ** 2)
        lean = 1.0 if is_doubtful else self._config.depth_lean
        self.log_scale = (1 - lean * trust) * middle

    def judged(self, frame: Frame, pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the trajectory's depths [n] at pixels by the network, and their log sigmas."""
        depths = sample_depth(frame.depth, pixels, frame.depth_from_image)
        known = frame.depth[np.isfinite(frame.depth) & (frame.depth > SHALLOWEST)]
        depths, sigmas = self.trust.judged(depths, self._sigmas(frame, pixels),
                                           float(np.median(known)) if len(known) else 0.0)
        return depths * np.exp(self.log_scale), sigmas

    def factors(self, frame: Frame, tracks: Tracks, pose: np.ndarray,
                local_map: LocalMap) -> np.ndarray:
        """Return factors, float32 [h, w], that bring a frame's depth to the landmarks in it."""
        depth, told, variance, good = _compared(frame, tracks, pose, local_map)
        with np.errstate(all='ignore'):
            ratio = np.where(good, np.log(depth / told), np.nan)
        return depth_correction(
            LandmarkRatios(tracks.pixels, ratio, variance), self.log_scale, frame.depth.shape,
            frame.depth_from_image, frame.grey.shape[1])

    def _sigmas(self, frame: Frame, pixels: np.ndarray) -> np.ndarray:
        """Return the standard deviations [n] of the network's log depths at pixels."""
        if frame.depth_error is not None:
            error = sample_depth(frame.depth_error(), pixels, frame.depth_from_image)
            error = np.where(np.isfinite(error), error, np.inf)
            return np.clip(error / HALF_NORMAL, *_SIGMAS)
        confidence = sample_depth(frame.confidence, pixels, frame.depth_from_image)
        confidence = np.where(np.isfinite(confidence) & (confidence > 0), confidence, 1e-3)
        typical = np.median(frame.confidence[frame.confidence > 0]) if (
            frame.confidence > 0).any() else 1.0
        return self._config.depth_sigma * np.clip(np.sqrt(typical / confidence), *_CONFIDENCE)


def _compared(frame: Frame, tracks: Tracks, pose: np.ndarray, local_map: LocalMap,
              ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return landmarks' depths [n], the network's there, log variances, and where both are any."""
    points, _, variance = local_map.points(tracks.ids)
    depth = to_camera(points, pose)[:, 2]
    told = sample_depth(frame.depth, tracks.pixels, frame.depth_from_image)
    return depth, told, variance, (depth > SHALLOWEST) & (told > SHALLOWEST)
