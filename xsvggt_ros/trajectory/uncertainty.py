"""How sure a pose is: covariances of small motions (rotation, translation), camera's axes."""

from collections import deque
from dataclasses import dataclass

import numpy as np

from xsvggt_ros.trajectory.config import TrajectoryConfig
from xsvggt_ros.trajectory.projection import inverse, skew

UNKNOWN = np.diag([0.1, 0.1, 0.1, 1.0, 1.0, 1.0])   # rad^2, unit^2: of a guessed pose
_LONGER = 0.1 * UNKNOWN      # of each guess after another
_START = 1e-6 * UNKNOWN      # of the first pose, which is where it is by definition
_LEAST = np.diag([1e-10] * 3 + [1e-12] * 3)
_MOST = np.array([10.0] * 3 + [1e6] * 3)   # rad^2, unit^2: nothing is known any more
_LARGEST_MISFIT = 10.0       # of sigmas
_LASTING = 30                # frames whose median tells a misfit that lasts
_REGIONS = 24                # of the image, in each of which such errors are one
HALF_NORMAL = 0.6745         # median of |x|, x normal with variance 1
RAYLEIGH = 1.1774            # median of the length of two of them
_ROUND = 1e-12               # of the largest variance, far above the error of rounding


def adjoint(transform: np.ndarray) -> np.ndarray:
    """Return the matrix [6, 6] that brings small motions of a frame into another one's axes."""
    turn = transform[:3, :3]
    matrix = np.zeros((6, 6))
    matrix[:3, :3] = matrix[3:, 3:] = turn
    matrix[3:, :3] = skew(transform[:3, 3]) @ turn
    return matrix


def propagated(covariance: np.ndarray, step: np.ndarray) -> np.ndarray:
    """Return the covariance [6, 6] of a pose after a step [4, 4] that adds nothing to it."""
    bring = adjoint(inverse(step))
    return bring @ covariance @ bring.T


def bounded(covariance: np.ndarray) -> np.ndarray:
    """Return a covariance [6, 6] that is symmetric, finite, positive definite, and not endless."""
    if not np.isfinite(covariance).all():
        return UNKNOWN.copy()
    values, vectors = np.linalg.eigh(0.5 * (covariance + covariance.T))
    # What rounding or a window that was not solved well made negative.
    values = np.maximum(values, _ROUND * max(values[-1], 0.0))
    covariance = (vectors * values) @ vectors.T
    shrink = np.sqrt(np.minimum(1.0, _MOST / np.maximum(np.diag(covariance), 1e-30)))
    covariance = covariance * shrink * shrink[:, None] + _LEAST
    covariance = covariance + _ROUND * covariance.diagonal().max() * np.eye(6)
    return 0.5 * (covariance + covariance.T)


def pose_covariance(information: np.ndarray) -> np.ndarray:
    """Return the covariance [6, 6] of a pose against its landmarks from its information."""
    if not np.isfinite(information).all():
        return UNKNOWN.copy()
    values, vectors = np.linalg.eigh(0.5 * (information + information.T))
    values = np.maximum(values, 1e-9 * max(values.max(), 1e-9))
    covariance = (vectors / values) @ vectors.T
    return 0.5 * (covariance + covariance.T)


def _longer(covariance: np.ndarray, unit: float) -> np.ndarray:
    """Return a covariance [6, 6] with lengths that are longer by `unit`, bounded."""
    lengths = np.array([1, 1, 1, unit, unit, unit])
    return bounded(covariance * lengths * lengths[:, None])


def misfit(sizes: np.ndarray | float, expected: float) -> float:
    """
    Return by which factor variances are larger than was thought, 1 at least.

    sizes: of residuals in their sigmas; expected: their median, were the sigmas right.
    """
    middle = float(np.median(sizes)) if np.size(sizes) else 0.0
    return float(np.clip(middle / expected, 1.0, _LARGEST_MISFIT)) ** 2 if (
        np.isfinite(middle)) else 1.0


@dataclass(frozen=True)
class DriftStep:
    """What a located step adds: the pose's covariance after it, its own [6, 6], its misfit."""

    covariance: np.ndarray
    step_covariance: np.ndarray
    pixel_misfit: float


class Drift:
    """
    How unsure the odometry is, since its beginning and from frame to frame.

    It drifts as a random walk from keyframe to keyframe. What a keyframe adds: where it is
    against its landmarks, and its share of what the window does not know of the newest keyframe
    against those that hold it: by chance, and by errors of depth that all landmarks of a keyframe
    have in common, however many they are. All are spread over the frames that the window's
    keyframes took, so that neither the frame rate nor a camera that stands still changes what is
    said of a path.
    Where pixels and depths miss what they should be by more than their sigmas, variances grow by
    both factors. What pixels miss by in most frames is none of chance: a lens, a focal length or a
    shutter that is not what the calibration says bends whole regions of the image, so the excess
    counts as often as there are landmarks in a region.
    """

    def __init__(self, config: TrajectoryConfig) -> None:
        """Begin with a pose that is known."""
        self._config = config
        self._frame = 0
        self._keyframes: deque[int] = deque(maxlen=config.window)   # frames that became one
        self._window: np.ndarray | None = None       # a keyframe's share, inflated, in its axes
        self._depth_misfit = 1.0
        self._pixel_misfits: deque[float] = deque(maxlen=_LASTING)
        self._is_lost = False                        # whether the last frame was not located
        self._guesses = 0                            # of these that nothing else told of
        self._before: np.ndarray | None = None       # the guesses, while no keyframe is made
        self._guessed = UNKNOWN                      # what they added, together
        self.covariance = bounded(_START)

    def add_keyframe(self) -> None:
        """Make the frame that `step` had last, or the first one, a keyframe."""
        self._keyframes.append(self._frame)
        self._before = None

    def take_window(self, covariance: np.ndarray | None, depth_misfit: float = 1.0,
                    shared: np.ndarray | None = None) -> None:
        """
        Take the covariance [6 W, 6 W] of the window's keyframes; None: it is not known.

        depth_misfit: `misfit` of its landmarks to the network's depths. shared [6, 6]: of the
        newest keyframe, by what errors of depth have in common; None: nothing.
        """
        self._window, self._depth_misfit = None, depth_misfit
        if covariance is not None and np.isfinite(covariance).all():
            window = self._config.window_inflation * covariance[-6:, -6:]
            if shared is not None and np.isfinite(shared).all():
                window = window + self._config.depth_inflation * shared
            self._window = window * 6 / len(covariance)

    def step(self, step: np.ndarray, information: np.ndarray | None,
             keyframe_from_camera: np.ndarray, unit: float = 1.0,
             pixel_misfit: float = 1.0, carried_by: np.ndarray | None = None,
             landmarks: int = 0) -> np.ndarray:
        """
        Take a step [4, 4] from frame to frame; return its covariance [6, 6].

        In the axes of the camera behind it, as is `covariance` afterwards, the pose's since the
        beginning. information [6, 6]: of the pose against its landmarks; None for a guess.
        carried_by [6, 6]: covariance of a guess by an odometry from elsewhere; None for any
        other. The others: as of `foresee`.
        """
        if information is not None:
            return self.take(self.foresee(step, information, keyframe_from_camera, unit,
                                          pixel_misfit, landmarks))
        self._frame += 1
        return self._guess(step, None if carried_by is None else _longer(carried_by, unit))

    def foresee(self, step: np.ndarray, information: np.ndarray,
                keyframe_from_camera: np.ndarray, unit: float = 1.0, pixel_misfit: float = 1.0,
                landmarks: int = 0) -> DriftStep:
        """
        Return what a located step [4, 4] is going to add, and change nothing; see `step`.

        unit: by which lengths of `step` are longer than those of the other arguments.
        pixel_misfit: `misfit` of the landmarks' pixels. landmarks: that agree with the pose.
        """
        misfits = [*self._pixel_misfits, pixel_misfit][-_LASTING:]
        lasting = float(np.median(misfits)) - 1
        # By which variances are larger, for what pixels miss by.
        factor = pixel_misfit + lasting * max(0.0, landmarks / _REGIONS - 1)
        added = self._of_keyframe(information, keyframe_from_camera) * self._rate()
        added = added * (factor * self._depth_misfit)
        added = _longer(added, unit)
        base = self.covariance if self._before is None else self._before
        # Found again where it was lost: the step takes back what was guessed.
        back = added if self._before is None else bounded(added + self._guessed)
        return DriftStep(bounded(propagated(base, step) + added), back, pixel_misfit)

    def take(self, ahead: DriftStep) -> np.ndarray:
        """Take a step that was foreseen, with nothing between; return its covariance [6, 6]."""
        self._frame += 1
        self._pixel_misfits.append(ahead.pixel_misfit)
        self.covariance = ahead.covariance
        self._before, self._guesses, self._is_lost = None, 0, False
        return ahead.step_covariance

    def _guess(self, step: np.ndarray, by_odometry: np.ndarray | None) -> np.ndarray:
        if not self._is_lost:
            self._is_lost = True
            self._before, self._guessed = self.covariance, np.zeros((6, 6))
        elif self._before is not None:
            self._before = propagated(self._before, step)
        if by_odometry is not None:
            added = by_odometry
            self._guessed = propagated(self._guessed, step) + added
        else:
            added, self._guessed = (_LONGER if self._guesses else UNKNOWN), UNKNOWN
            self._guesses += 1
        self.covariance = bounded(propagated(self.covariance, step) + added)
        return added.copy()

    def _of_keyframe(self, information: np.ndarray, keyframe_from_camera: np.ndarray,
                     ) -> np.ndarray:
        here, config = pose_covariance(information), self._config
        if self._window is None:
            return config.alone_inflation * here
        window = propagated(self._window, keyframe_from_camera)
        return config.located_inflation * here + window

    def _rate(self) -> float:
        """Return how many keyframes there were for each frame lately, with one that comes."""
        frames = self._frame + 1 - self._keyframes[0]
        return min(1.0, len(self._keyframes) / max(1, frames))
