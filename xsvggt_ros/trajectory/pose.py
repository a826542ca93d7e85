"""A camera's pose against landmarks whose depths are uncertain."""

from dataclasses import dataclass

import cv2
import numpy as np

from xsvggt_ros.trajectory.projection import (
    cauchy_weights,
    huber_weights,
    inverse,
    NEAREST,
    nearest_pose,
    project,
    to_camera,
)

_ITERATIONS = 8
_HARSH = 4               # of them at most, which begin with Cauchy's kernel
# Squares of steps in sigmas of the pose: from which on Huber's is taken, and of the last one.
_NEAR = 10.0
_SETTLED = 0.01
_FAR = 4.5               # times `outlier`, from which on a point counts nothing with Huber's
_DAMPING = 1e-9 * np.eye(6)
_RANSAC_ROUNDS = 200
_FEWEST = 6              # points that tell a pose which was not known before


@dataclass(frozen=True)
class PoseFit:
    """
    A pose that was found.

    pose: world_from_camera [4, 4]; inliers: bool [n]; information: [6, 6] of a small motion
    (rotation, translation) in the camera's axes; error: median of the inliers, pixels.
    """

    pose: np.ndarray
    inliers: np.ndarray
    information: np.ndarray
    error: float


def fit_pose(points: np.ndarray, along: np.ndarray, variance: np.ndarray, pixels: np.ndarray,
             camera: np.ndarray, initial: np.ndarray, sigma: float, huber: float,
             outlier: float) -> PoseFit | None:
    """
    Return the pose from which world points [n, 3] are seen at pixels [n, 2]; None if none fits.

    along [n, 3]: from a landmark's anchor to it, in which direction it moves by a change of its
    log depth, of variance [n]. sigma: of a pixel; huber, outlier: in sigmas.
    """
    pose = initial
    residuals = _Residuals(points, along, variance, pixels, camera, sigma)
    squares = np.zeros(len(points))
    harsh = True
    for number in range(_ITERATIONS):
        linear = residuals.at(pose)
        squares = linear.squares
        weights = (cauchy_weights if harsh else huber_weights)(squares, huber)
        if not harsh:   # a few together would pull away a pose that is known badly
            weights = np.where(squares < (_FAR * outlier) ** 2, weights, 0.0)
        information, gradient = linear.equations(weights)
        # OpenCV's solver: numpy's takes ten times as long for so few numbers.
        solved, column = cv2.solve(information + _DAMPING, -gradient, flags=cv2.DECOMP_CHOLESKY)
        if not solved or not np.isfinite(column).all():
            return None
        step = column[:, 0]
        pose = _moved(pose, step)
        sigmas = -float(gradient @ step)   # by which the pose moved, squared
        if not harsh and sigmas < _SETTLED:
            break
        harsh = harsh and number + 1 < _HARSH and sigmas > _NEAR
    pose = nearest_pose(pose)
    local = to_camera(points, pose)
    errors = np.linalg.norm(project(local, camera) - pixels, axis=1)
    inliers = (squares < 2 * outlier ** 2) & (local[:, 2] > NEAREST)
    error = float(np.median(errors[inliers])) if inliers.any() else float('inf')
    return PoseFit(pose, inliers, information, error)


@dataclass(frozen=True)
class _Linear:
    """
    Residuals [n] about a pose, and how they change with a small motion of it.

    jacobian [6, 3 n], residual [3 n]: across, down, and both along the direction in which a change
    of depth moves the landmark, which counts -share [n]: by Sherman and Morrison's formula what
    remains is whitened, without a matrix for each. squares [n]: in sigmas; behind the camera
    infinite.
    """

    jacobian: np.ndarray
    residual: np.ndarray
    share: np.ndarray
    squares: np.ndarray
    sigma: float

    def equations(self, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the information [6, 6] and the gradient [6] with weights [n]."""
        weights = weights / self.sigma ** 2
        weighted = self.jacobian * np.concatenate([weights, weights, -self.share * weights])
        return weighted @ self.jacobian.T, weighted @ self.residual


class _Residuals:
    """What does not change from iteration to iteration; coordinates in rows, which is quicker."""

    def __init__(self, points: np.ndarray, along: np.ndarray, variance: np.ndarray,
                 pixels: np.ndarray, camera: np.ndarray, sigma: float) -> None:
        self._points, self._along = np.ascontiguousarray(points.T), np.ascontiguousarray(along.T)
        self._variance, self._sigma = variance, sigma
        self._focal = camera[(0, 1), (0, 1)][:, None]
        self._places = pixels.T - camera[:2, 2:]
        self._jacobian = np.zeros((6, 3, len(variance)))   # what is 0 stays so

    def at(self, pose: np.ndarray) -> _Linear:
        """Return them at a pose [4, 4]; what was returned before is overwritten."""
        turn, jacobian, (across, down) = pose[:3, :3].T, self._jacobian, self._focal[:, 0]
        local = turn @ (self._points - pose[:3, 3:])
        depth = np.maximum(local[2], NEAREST)
        x, y = places = local[:2] / depth
        residual = np.empty((3, len(depth)))
        far_x, far_y = scaled = self._focal * places
        np.subtract(scaled, self._places, residual[:2])
        near = self._focal / depth
        u, v = jacobian[:, 0], jacobian[:, 1]
        u[0], u[1], u[2] = far_x * y, -across - far_x * x, across * y
        v[0], v[1], v[2] = down + far_y * y, -far_y * x, -down * x
        u[3], v[4] = -near
        jacobian[5, :2] = near * places
        moved = turn @ self._along
        by_depth = near * moved[:2] - jacobian[5, :2] * moved[2]
        jacobian[:, 2] = by_depth[0] * u + by_depth[1] * v
        residual[2] = _dot(by_depth, residual)
        square = self._sigma ** 2
        share = self._variance / (square + self._variance * _dot(by_depth, by_depth))
        squares = (_dot(residual, residual) - share * residual[2] ** 2) / square
        squares[local[2] <= NEAREST] = np.inf
        return _Linear(jacobian.reshape(6, -1), residual.ravel(), share, squares, self._sigma)


def _dot(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Return the products [n] of the first two rows; a reduction takes several times as long."""
    return first[0] * second[0] + first[1] * second[1]


def _moved(pose: np.ndarray, small: np.ndarray) -> np.ndarray:
    """Return pose @ motion(small), one [4, 4] and [6], quicker than for a batch."""
    result = pose.copy()
    result[:3, :3] = pose[:3, :3] @ cv2.Rodrigues(small[:3])[0]
    result[:3, 3] += pose[:3, :3] @ small[3:]
    return result


def find_pose(points: np.ndarray, pixels: np.ndarray, camera: np.ndarray,
              error: float) -> np.ndarray | None:
    """Return a pose [4, 4] that most points agree with, without knowing one before; or None."""
    if len(points) < _FEWEST:
        return None
    try:
        # By P3P: four points a round are found sooner than five, in a quarter of their time.
        found, _, _, inliers = cv2.solvePnPRansac(
            points, pixels, camera, None, iterationsCount=_RANSAC_ROUNDS, confidence=0.999,
            reprojectionError=error, flags=cv2.SOLVEPNP_AP3P)
        if not found or inliers is None or len(inliers) < _FEWEST:   # four agree by themselves
            return None
        chosen = inliers[:, 0]
        found, turn, shift = cv2.solvePnP(points[chosen], pixels[chosen], camera, None,
                                          flags=cv2.SOLVEPNP_SQPNP)
    except cv2.error:   # points on a line, or in one place
        return None
    if not found or not (np.isfinite(turn).all() and np.isfinite(shift).all()):
        return None
    camera_from_world = np.eye(4)
    camera_from_world[:3, :3] = cv2.Rodrigues(turn)[0]
    camera_from_world[:3, 3] = shift[:, 0]
    return inverse(camera_from_world)


def inverse_covariance(by_depth: np.ndarray, variance: np.ndarray, sigma: float) -> np.ndarray:
    """Return the inverses [n, 2, 2] of sigma^2 + variance [n] * by_depth by_depth^T, [n, 2]."""
    # Sherman and Morrison: much quicker than inverting each.
    outer = by_depth[:, :, None] * by_depth[:, None, :]
    squared = sigma ** 2
    factor = variance / (squared + variance * (by_depth ** 2).sum(1))
    return (np.eye(2) - factor[:, None, None] * outer) / squared
