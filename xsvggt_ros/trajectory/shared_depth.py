"""What errors of depth that all landmarks of a keyframe have in common do to the newest pose."""

import numpy as np

_FEWEST = 8       # triangulated landmarks of a keyframe that tell how far off its depths are
_UNTOLD = 0.1     # sigma of log depth, while no keyframe tells


def shared_error(off: np.ndarray, triangulated: np.ndarray, anchor: np.ndarray) -> float:
    """
    Return the variance of the error of log depth that a keyframe's landmarks have in common.

    off [M]: log depths found less those of the network; triangulated, bool [M]: whether pixels
    tell of a landmark's depth more than the network does; anchor [M]: its keyframe.
    """
    middles = [np.median(off[mine]) for mine in (triangulated & (anchor == keyframe)
                                                 for keyframe in np.unique(anchor))
               if mine.sum() >= _FEWEST]
    variance = float(np.mean(np.square(middles))) if middles else _UNTOLD ** 2
    return variance if np.isfinite(variance) else _UNTOLD ** 2


def shared_covariance(response: np.ndarray, anchor: np.ndarray, variance: float) -> np.ndarray:
    """
    Return the covariance [6, 6] of a pose by what keyframes' depths have in common.

    response [M, 6]: of the pose to a change of each landmark's prior log depth; anchor [M]. The
    errors of two keyframes are independent of each other, with this variance each.
    """
    sums = np.array([response[anchor == keyframe].sum(0) for keyframe in np.unique(anchor)])
    return variance * sums.T @ sums
