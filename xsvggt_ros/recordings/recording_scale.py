"""How many metres the network's unit has in a recording: given, or found from what it knows."""

from collections.abc import Sequence
import logging
from typing import Any

import numpy as np
import torch

from xsvggt_ros.engine.frame_result import FrameResult
from xsvggt_ros.geometry import metrics
from xsvggt_ros.geometry.camera_model import CameraModel
from xsvggt_ros.images.preprocess import Resize
from xsvggt_ros.images.rectify import DepthViews
from xsvggt_ros.mapping.depth_scale import DepthScale
from xsvggt_ros.mapping.scale import Scale, ScaleEstimator, WINDOW
from xsvggt_ros.mapping.trajectory_scale import TrajectoryScale
from xsvggt_ros.recordings.source_frame import FrameHints

DEPTH_IMAGES = 1000   # that are compared, the newest
_LEAST_COMPARED = 3   # positions

_log = logging.getLogger(__name__)


class RecordingScale:
    """
    The scale of one run, which is one for all of its files.

    Depth counts before odometry. It is decided once, when the first frame has to leave: in most
    runs at the end, by all frames.
    """

    def __init__(self, given: float | None = None, expects_hints: bool = False) -> None:
        """Begin with what the user says; expects_hints: the recording knows something."""
        self.value = given              # metres for one unit; None: lengths are the network's
        self.source = '' if given is None else '--scale'
        self.uncertainty: float | None = None   # relative, one standard deviation
        self.refusal = ''               # why what the recording knows gives no scale
        self.is_decided = given is not None or not expects_hints
        self._depth, self._views = DepthScale(DEPTH_IMAGES), DepthViews()
        self._depths = 0                # depth images that came
        self._positions: list[tuple[int, np.ndarray, int]] = []   # frame, metres, piece

    @property
    def factor(self) -> float:
        """Return by what lengths are multiplied."""
        return self.value or 1.0

    def take_saved_map(self, is_metric: bool) -> None:
        """Know that all has the unit of the map in which the run found itself: no other counts."""
        self.value = 1.0 if is_metric else None
        self.uncertainty, self.refusal = None, ''
        self.source, self.is_decided = 'saved map', True

    def observe(self, number: int, hints: FrameHints | None, result: FrameResult, resize: Resize,
                camera: CameraModel | None) -> None:
        """Take what is known at the time of a frame; the result is in the network's unit."""
        if hints is None:
            return
        if hints.position is not None:
            self._positions.append((number, *hints.position))
        if hints.depth is None or self.is_decided:
            return
        self._depths += 1
        try:
            self._depth.add(result.depth, result.depth_confidence,
                            self._views.rectify(hints.depth, camera), resize)
        except ValueError as error:
            self.refusal = f'depth image refused: {error}'

    def decide(self, positions: np.ndarray) -> None:
        """
        Settle the scale; positions: of all frames so far in the network's unit, [N, 3].

        Says nothing if the recording knows nothing in metres.
        """
        if self.is_decided:
            return
        self.is_decided = True
        if self._depths:
            self._take(self._depth, 'depth')
        if self.value is None and self._positions:
            self._take(self._by_trajectory(positions), 'odometry')
        if self.value is None and self.refusal:
            _log.warning("lengths are in the network's unit, not metres: %s", self.refusal)

    def _by_trajectory(self, positions: np.ndarray) -> TrajectoryScale:
        """Return the comparison of positions evenly spread over all frames."""
        estimator = TrajectoryScale()
        known = [position for position in self._positions if position[0] < len(positions)]
        for number, position, piece in _spread(known, WINDOW):
            estimator.add(positions[number], position, piece)
        return estimator

    def _take(self, estimator: ScaleEstimator, source: str) -> None:
        scale: Scale | None = estimator.scale()
        if scale is None:
            self.refusal = f'{source}: {estimator.refusal}'
            return
        self.value, self.uncertainty, self.source = scale.metres, scale.uncertainty, source
        self.refusal = ''

    def compared(self, positions: np.ndarray) -> dict[str, Any] | None:
        """
        Return how far final positions [N, 3] are from the odometry after Sim(3) alignment.

        None if there is no odometry in one piece that covers some of them.
        """
        pieces = [piece for *_, piece in self._positions]
        if not pieces:
            return None
        longest = max(set(pieces), key=pieces.count)
        pairs = [(positions[number], position) for number, position, piece in self._positions
                 if piece == longest and number < len(positions)]
        pairs = [pair for pair in pairs if np.isfinite(pair).all()]
        if len(pairs) < _LEAST_COMPARED:
            return None
        estimate, truth = (np.array(side) for side in zip(*pairs))
        if not float(np.ptp(truth, axis=0).max()) > 0:   # it has not moved
            return None
        ate, ratio = metrics.position_errors(estimate, truth)
        return {'compared': len(pairs), 'ate': float(ate), 'ate_ratio': float(ratio)}

    def as_json(self) -> dict[str, Any]:
        """Return what the report says of the scale."""
        return {'metric': self.value is not None, 'metres_per_unit': self.value,
                'uncertainty': self.uncertainty, 'source': self.source or None,
                'refused': self.refusal or None}

    def describe(self) -> str:
        """Return the scale in words, nothing if there is none."""
        if self.value is None or self.uncertainty is None:
            return ''
        return (f'scale: {self.value:.4g} m a unit +- {100 * self.uncertainty:.1f} %, by the '
                f'{self.source} in the recording')


def scaled_cloud(cloud: torch.Tensor, metres: float) -> torch.Tensor:
    """Return a packed cloud [N, 5] with its coordinates multiplied."""
    scaled = cloud.clone()
    scaled[:, :3] *= metres
    return scaled


def _spread(items: Sequence[Any], most: int) -> list[Any]:
    """Return at most so many items, evenly spread."""
    if len(items) <= most:
        return list(items)
    return [items[index] for index in np.linspace(0, len(items) - 1, most).round().astype(int)]
