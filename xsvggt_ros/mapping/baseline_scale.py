"""The scale by the known positions of a rig's cameras."""

from collections import deque

import numpy as np

from xsvggt_ros.mapping.scale import (
    MAX_UNCERTAINTY,
    median_and_error,
    MIN_OBSERVATIONS,
    NoScale,
    Scale,
    ScaleEstimator,
    WINDOW,
)

MAX_BASELINE_ANGLE = 0.5  # rad between a baseline's directions: beyond, one of them is wrong


class BaselineScale(ScaleEstimator):
    """
    Compares where the network sees the other cameras of a rig with where they are.

    Both are positions in the reference camera's optical frame. They are compared along the known
    direction, where the network's noise averages out over the window; the length of a noisy
    baseline would always be too long.
    """

    def __init__(self) -> None:
        """Begin without any set of images."""
        super().__init__(0.01)
        # Of each set: the predicted positions along the known ones per metre, and the rest.
        self._units: deque[float] = deque(maxlen=WINDOW)
        self._across: deque[np.ndarray] = deque(maxlen=WINDOW)

    def forget(self) -> None:
        """Begin anew: the network's unit is another one."""
        super().forget()
        self._units.clear()
        self._across.clear()

    def add(self, positions: np.ndarray, metric_positions: np.ndarray) -> None:
        """Take the other cameras' positions [K, 3], the network's and in metres."""
        known = np.asarray(metric_positions, np.float64).ravel()
        seen = np.asarray(positions, np.float64).ravel()
        length = known @ known
        if not np.isfinite(seen).all() or not np.isfinite(known).all() or length == 0:
            return
        units = float(seen @ known / length)
        self._units.append(units)
        self._across.append((seen - units * known) / np.sqrt(length))

    def _unsure(self) -> str:
        return 'the network does not see the baseline well enough'

    def _estimate(self) -> Scale:
        if len(self._units) < MIN_OBSERVATIONS:
            raise NoScale(f'{len(self._units)} of {MIN_OBSERVATIONS} sets of images so far')
        units, error = median_and_error(np.array(self._units))
        if units <= 0:
            raise NoScale(
                f'{self._unsure()}: {units:.3g} +- {error:.2g} of its units a metre over '
                f'{len(self._units)} sets')
        across = np.linalg.norm(np.median(np.stack(self._across), axis=0))
        if across > np.tan(MAX_BASELINE_ANGLE) * units and error <= MAX_UNCERTAINTY * units:
            raise NoScale(
                f'the network sees the cameras {np.degrees(np.arctan2(across, units)):.0f} '
                'degrees from where they are known to be; check their frames in TF and the order '
                'of image_topics')
        return Scale(float(1 / units), float(error / units))
