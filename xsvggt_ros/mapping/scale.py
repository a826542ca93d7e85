"""
From the network's unit to metres, by what is known in both: what all estimators share.

Estimators take one observation after the other and hold their scale still until a newer estimate
differs from it by more than it is sure of: each change scales everything that is published anew.
An estimate that is less sure than a bound is never taken, and neither is one that no camera has.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass

import numpy as np

WINDOW = 120  # newest positions or baselines that count: odometry drifts, too
MIN_OBSERVATIONS = 5  # observations
MAX_UNCERTAINTY = 0.1  # relative: what is less sure gives no scale, unless another bound is given
METRES = (1e-6, 1e6)  # in a unit of the network, at least and at most


@dataclass(frozen=True)
class Scale:
    """
    How long the network's unit is; uncertainty: one standard deviation of the fit, relative.

    The drift of what it was compared with is not in it.
    """

    metres: float
    uncertainty: float


class NoScale(ValueError):
    """
    What was observed so far says nothing, and why.

    waits: nothing is wrong; a scale that is known already is as good as before.
    """

    def __init__(self, reason: str, waits: bool = False) -> None:
        """Give the reason in words."""
        super().__init__(reason)
        self.waits = waits


class SteadyScale:
    """A scale that stays as it is while estimates differ from it by less than they are sure."""

    def __init__(self, steady: float) -> None:
        """Begin unknown; steady: relative, smaller changes never move the scale."""
        self._steady = steady
        self.known: Scale | None = None

    def forget(self) -> None:
        """Begin anew: the network's unit is another one."""
        self.known = None

    def follow(self, estimate: Scale) -> None:
        """Take one more estimate."""
        known = self.known
        if known is None or abs(np.log(estimate.metres / known.metres)) > max(
                self._steady, 2 * estimate.uncertainty):
            self.known = estimate


class ScaleEstimator(ABC):
    """What the three ways to a scale have in common: when an estimate is taken."""

    def __init__(self, steady: float) -> None:
        """Begin without an observation; steady: see `SteadyScale`."""
        self._steady = SteadyScale(steady)
        self._refusal = ''

    @property
    def refusal(self) -> str:
        """Return why there is no newer scale, empty if there is one or nothing is wrong."""
        return self._refusal

    def forget(self) -> None:
        """Begin anew: the network's unit is another one."""
        self._steady.forget()
        self._refusal = ''

    def scale(self, bound: float = MAX_UNCERTAINTY) -> Scale | None:
        """
        Return the scale; None if it has not been known yet.

        bound: relative; an estimate that is less sure is not taken, and `refusal` says so.
        """
        try:
            estimate = self._estimate()
            if not METRES[0] <= estimate.metres <= METRES[1]:
                raise NoScale(f'{estimate.metres:.3g} m in a unit of the network cannot be')
            if not estimate.uncertainty <= bound:
                raise NoScale(
                    f'{self._unsure()}: {estimate.metres:.3g} m a unit +- '
                    f'{100 * min(estimate.uncertainty, 99):.0f} %, and scale.max_uncertainty '
                    f'allows {100 * bound:.3g} %')
        except NoScale as error:
            self._refusal = '' if error.waits and self._steady.known else str(error)
        else:
            self._refusal = ''
            self._steady.follow(estimate)
        return self._steady.known

    @abstractmethod
    def _estimate(self) -> Scale:
        """Return the newest estimate; raise NoScale."""

    @abstractmethod
    def _unsure(self) -> str:
        """Return what an unsure estimate mostly comes from."""


def median_and_error(values: np.ndarray) -> tuple[float, float]:
    """Return the median and its standard error, by the values' own spread."""
    middle = np.median(values)
    deviation = 1.4826 * np.median(np.abs(values - middle))
    return float(middle), float(1.2533 * deviation / np.sqrt(len(values)))
