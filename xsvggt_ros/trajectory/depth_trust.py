"""How much of the relief that a network sees is there, by landmarks that were triangulated."""

import numpy as np

from xsvggt_ros.trajectory.adjustment import UNKNOWN_SIGMA

_SMOOTHING = 0.2       # of the slope, from keyframe to keyframe
_BELIEVED = 0.3        # slope from which the relief is taken as it is
_FEWEST = 20           # landmarks that say something of it
_FLATTEST = 0.1        # standard deviation of log depth below which there is no relief
_FARTHEST = 1.0        # log depths from the middle, beyond which one counts as this far


class DepthTrust:
    """
    The slope of true log depth over the network's, and what follows for its depths.

    It is 1 where the network is right and 0 where its relief has nothing to do with the scene's.
    Below a third, depths are drawn towards the frame's middle, and become as uncertain as those of
    which nothing is known.
    """

    def __init__(self) -> None:
        """Believe the network."""
        self._slope = 1.0

    @property
    def share(self) -> float:
        """Return which share of the relief is believed, 0..1."""
        return float(np.clip(self._slope / _BELIEVED, 0.0, 1.0))

    def add(self, told: np.ndarray, true: np.ndarray) -> None:
        """Take the network's log depths [n] of landmarks in a frame, and those triangulated."""
        slope = _slope_of(told, true)
        if slope is not None:
            self._slope += _SMOOTHING * (slope - self._slope)

    def begin_anew(self, told: np.ndarray, true: np.ndarray) -> None:
        """Take the same of landmarks that contradict all that was believed."""
        slope = _slope_of(told, true)
        if slope is not None:
            self._slope = slope

    def judged(self, depths: np.ndarray, sigmas: np.ndarray,
               middle: float) -> tuple[np.ndarray, np.ndarray]:
        """Return depths [n] and their log sigmas [n], as far as they are believed."""
        share = self.share
        if share == 1.0 or not middle > 0:
            return depths, sigmas
        with np.errstate(all='ignore'):
            drawn = middle * (depths / middle) ** share
        return drawn, np.hypot(sigmas, (1 - share) * UNKNOWN_SIGMA)


def _slope_of(told: np.ndarray, true: np.ndarray) -> float | None:
    """Return the slope of `true` over `told`, [n] each; None if they do not say."""
    if len(told) < _FEWEST:
        return None
    told, true = (np.clip(values - np.median(values), -_FARTHEST, _FARTHEST)
                  for values in (told, true))
    told = told - told.mean()
    if told.std() < _FLATTEST:
        return None
    return float(np.clip((told * true).sum() / (told ** 2).sum(), -1.0, 2.0))
