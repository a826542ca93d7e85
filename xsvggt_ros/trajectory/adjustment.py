"""
Bundle adjustment of a window: poses, log-inverse depths, and the focal length if that is unknown.

A landmark lies on the ray of the pixel where it was first seen, in its anchor's camera, at depth
exp(-l). Each has a prior: the network's depth there, with Cauchy's kernel; observations have
Huber's. Levenberg-Marquardt on the poses, the landmarks eliminated by their Schur complement.
"""

from dataclasses import dataclass, replace

import numpy as np

from xsvggt_ros.trajectory.motion_factors import MotionFactors
from xsvggt_ros.trajectory.projection import (
    cauchy_cost,
    cauchy_weights,
    huber_cost,
    huber_weights,
    motion,
    nearest_pose,
    project,
    projection_jacobian,
    skew,
)
from xsvggt_ros.trajectory.shared_depth import shared_covariance, shared_error

_LARGEST_STEP = 0.7      # of a log depth in one iteration
_CONVERGED = 1e-3        # relative gain below which it is done
_TRIES = 3               # dampings of one iteration
_FOCAL_BLOCK = 1
UNKNOWN_SIGMA = 0.6      # of log depths of a scene of which nothing is known
_ITERATIONS_ANEW = 30
_MUCH_BETTER = 0.8       # of the cost of what was seen, below which it is begun anew


@dataclass(frozen=True)
class FocalPrior:
    """The logarithm of the focal length over the camera matrix's: mean and standard deviation."""

    mean: float
    sigma: float


@dataclass(frozen=True)
class Problem:
    """
    What is adjusted.

    poses: world_from_camera [N, 4, 4]; free: rows [W] of those that move.
    rays [M, 3], log_inverse_depth [M], prior [M], prior_sigma [M], anchor [M] (rows of poses).
    Observations, sorted by landmark: seen_by [n] (rows of poses), landmark [n], pixels [n, 2].
    camera [3, 3]; focal: None where it is known. pixel_sigma, huber, cauchy, iterations: as in
    TrajectoryConfig, pixels of this image. motions: between the poses, by an odometry.
    """

    poses: np.ndarray
    free: np.ndarray
    rays: np.ndarray
    log_inverse_depth: np.ndarray
    prior: np.ndarray
    prior_sigma: np.ndarray
    anchor: np.ndarray
    seen_by: np.ndarray
    landmark: np.ndarray
    pixels: np.ndarray
    camera: np.ndarray
    pixel_sigma: float
    huber: float
    cauchy: float
    focal: FocalPrior | None = None
    iterations: int = 5
    motions: MotionFactors | None = None


@dataclass(frozen=True)
class Solution:
    """
    What the adjustment found.

    poses [N, 4, 4]; log_inverse_depth [M]; log_focal: of the focal length over the problem's.
    covariance: of the free poses [6 W, 6 W], the focal length's uncertainty in it; None if it
    could not be had. shared [6, 6]: of the newest free pose, by errors of the network's depths
    that all landmarks of a keyframe have in common, which `covariance` takes for independent; None
    where that is. depth_information [M]: inverse variance of each log depth, poses held.
    focal_variance: of log_focal, None where the focal length is known. errors [n]: pixels.
    is_anew: whether it was found without the depths that landmarks had, see `solve_beginning`.
    """

    poses: np.ndarray
    log_inverse_depth: np.ndarray
    log_focal: float
    covariance: np.ndarray | None
    depth_information: np.ndarray
    focal_variance: float | None
    errors: np.ndarray
    cost: float
    is_anew: bool = False
    shared: np.ndarray | None = None


@dataclass(frozen=True)
class _State:
    poses: np.ndarray
    depth: np.ndarray    # log-inverse
    focal: float         # log, over the problem's


def solve(problem: Problem) -> Solution:
    """Return the adjusted window; the same as given where nothing gets better."""
    solver = _Solver(problem)
    state = _State(problem.poses, problem.log_inverse_depth, 0.0)
    cost, damping, system = solver.cost(state), 1e-4, None
    for _ in range(problem.iterations):
        system = solver.linearise(state)
        better = None
        for _ in range(_TRIES):
            step = system.step(damping)
            if step is not None:
                candidate = solver.moved(state, *step)
                new_cost = solver.cost(candidate)
                if new_cost <= cost:
                    better = candidate
                    break
            damping = max(damping, 1e-5) * 10
        if better is None:
            break
        gain, state, cost = cost - new_cost, better, new_cost
        damping = max(damping / 5, 1e-7)
        if gain < _CONVERGED * cost:
            break
    if system is None:
        system = solver.linearise(state)
    errors, size = np.sqrt(solver.squares(state)), 6 * len(problem.free)
    covariance = system.covariance()
    if covariance is None:
        return Solution(state.poses, state.depth, state.focal, None, system.depths, None, errors,
                        cost)
    focal_variance = float(covariance[-1, -1]) if system.focals else None
    return Solution(state.poses, state.depth, state.focal, covariance[:size, :size], system.depths,
                    focal_variance, errors, cost,
                    shared=_shared(problem, system, covariance[size - 6:size], state.depth))


def _shared(problem: Problem, system: '_System', newest: np.ndarray,
            depth: np.ndarray) -> np.ndarray:
    """Return `Solution.shared`; newest [6, P]: the newest free pose's rows of the covariance."""
    response = system.joint @ newest.T * (system.prior / system.depths)[:, None]
    off, triangulated = depth - problem.prior, system.depths > 2 * system.prior
    return shared_covariance(response, problem.anchor,
                             shared_error(off, triangulated, problem.anchor))


def solve_beginning(problem: Problem) -> Solution:
    """
    Return the adjusted window of a stream that has just begun.

    Depths that are wrong the other way round (a floor that rises towards the camera, a near thing
    taken for a far one) make a camera that moves look like one that turns, and all that is seen
    later is fitted to that: a minimum from which small steps do not lead away. So it is solved
    twice more without the network's depths, from cameras that have not moved: with the relief
    that was found turned inside out, and with none. What explains much better what was seen is
    taken. (That a relief and its reverse look alike: Belhumeur, Kriegman and Yuille, IJCV 1999.)
    """
    found = solve(problem)
    middle = np.median(problem.prior)
    flat = np.full(len(problem.prior), middle)
    poses = problem.poses.copy()
    poses[problem.free] = poses[0]
    unknown = replace(problem, poses=poses, prior=flat, iterations=_ITERATIONS_ANEW,
                      prior_sigma=np.full(len(flat), UNKNOWN_SIGMA))
    anew = min((solve(replace(unknown, log_inverse_depth=depth))
                for depth in (2 * middle - found.log_inverse_depth, flat)),
               key=lambda solution: _seen_cost(problem, solution))
    if not _seen_cost(problem, anew) < _MUCH_BETTER * _seen_cost(problem, found):
        return found
    return replace(anew, is_anew=True)


def _seen_cost(problem: Problem, solution: Solution) -> float:
    """Return the robust cost of the observations alone."""
    return huber_cost((solution.errors / problem.pixel_sigma) ** 2, problem.huber)


@dataclass(frozen=True)
class _System:
    """The normal equations: of poses and focal length, of depths, and what joins them."""

    hessian: np.ndarray    # [P, P]
    gradient: np.ndarray   # [P]
    depths: np.ndarray     # [M], the depths' diagonal
    depth_gradient: np.ndarray
    prior: np.ndarray      # [M], what the network's depths have of `depths`
    joint: np.ndarray      # [M, P]
    focals: int

    def step(self, damping: float) -> tuple[np.ndarray, np.ndarray] | None:
        """Return the damped step of poses and focal length [P] and of depths [M]."""
        depths = self.depths * (1 + damping)
        schur = self.hessian + np.diag(damping * np.diag(self.hessian) + 1e-9)
        schur = schur - self.joint.T @ (self.joint / depths[:, None])
        right = -self.gradient + self.joint.T @ (self.depth_gradient / depths)
        try:
            step = np.linalg.solve(schur, right)
        except np.linalg.LinAlgError:
            return None
        if not np.isfinite(step).all():
            return None
        depth_step = (-self.depth_gradient - self.joint @ step) / depths
        return step, np.clip(depth_step, -_LARGEST_STEP, _LARGEST_STEP)

    def covariance(self) -> np.ndarray | None:
        """Return the covariance [P, P] of the poses and, where it is free, the focal length."""
        schur = self.hessian - self.joint.T @ (self.joint / self.depths[:, None])
        try:
            # Symmetric, and a thousandth of the smallest diagonal keeps it positive definite.
            schur = 0.5 * (schur + schur.T)
            schur += 1e-9 * np.diag(np.diag(schur))
            inverse = np.linalg.inv(schur)
        except np.linalg.LinAlgError:
            return None
        if not np.isfinite(inverse).all() or (np.diag(inverse) <= 0).any():
            return None
        return inverse


class _Solver:
    """The problem's residuals and derivatives."""

    def __init__(self, problem: Problem) -> None:
        self._p = problem
        count = len(problem.free)
        self._column = np.full(len(problem.poses), count)   # those held: behind the last one
        self._column[problem.free] = np.arange(count)
        counts = np.bincount(problem.landmark, minlength=len(problem.prior))
        self._seen = counts > 0
        self._starts = (np.cumsum(counts) - counts)[self._seen]
        self._anchor = problem.anchor[problem.landmark]

    def cost(self, state: _State) -> float:
        """Return the robust cost."""
        p = self._p
        total = huber_cost(self.squares(state) / p.pixel_sigma ** 2, p.huber)
        total += cauchy_cost(((state.depth - p.prior) / p.prior_sigma) ** 2, p.cauchy)
        if p.focal is not None:
            total += ((state.focal - p.focal.mean) / p.focal.sigma) ** 2
        if p.motions is not None:
            total += p.motions.cost(state.poses)
        return total

    def squares(self, state: _State) -> np.ndarray:
        """Return the squared reprojection errors [n] in pixels."""
        camera, anchored, local = self._points(state)
        return ((project(local, camera) - self._p.pixels) ** 2).sum(1)

    def moved(self, state: _State, step: np.ndarray, depth_step: np.ndarray) -> _State:
        """Return the state after a step."""
        free = self._p.free
        poses = state.poses.copy()
        poses[free] = nearest_pose(
            poses[free] @ motion(step[:6 * len(free)].reshape(-1, 6)))
        focal = state.focal + (step[-1] if self._p.focal is not None else 0.0)
        return _State(poses, state.depth + depth_step, float(focal))

    def linearise(self, state: _State) -> _System:
        """Return the normal equations at a state."""
        p = self._p
        camera, anchored, local = self._points(state)
        residual = project(local, camera) - p.pixels
        weight = huber_weights((residual ** 2).sum(1) / p.pixel_sigma ** 2, p.huber)
        weight /= p.pixel_sigma ** 2
        jacobian, by_depth = self._jacobians(state, camera, anchored, local)
        weighted = jacobian * weight[:, None, None]
        size = jacobian.shape[-1]
        flat, flat_weighted = jacobian.reshape(-1, size), weighted.reshape(-1, size)
        hessian = flat.T @ flat_weighted
        gradient = flat_weighted.T @ residual.reshape(-1)
        focals = 0
        if p.focal is not None:
            focals = _FOCAL_BLOCK
            hessian[-1, -1] += 1 / p.focal.sigma ** 2
            gradient[-1] += (state.focal - p.focal.mean) / p.focal.sigma ** 2
        if p.motions is not None:
            p.motions.add_to(hessian, gradient, state.poses, self._column, len(p.free))
        off = (state.depth - p.prior) / p.prior_sigma
        prior_weight = cauchy_weights(off ** 2, p.cauchy) / p.prior_sigma ** 2
        depths = self._by_landmark(weight * (by_depth ** 2).sum(1)) + prior_weight
        depth_gradient = (self._by_landmark(weight * (by_depth * residual).sum(1))
                          + prior_weight * (state.depth - p.prior))
        joint = self._by_landmark(np.einsum('nik,ni->nk', weighted, by_depth))
        return _System(hessian, gradient, depths, depth_gradient, prior_weight, joint, focals)

    def _jacobians(self, state: _State, camera: np.ndarray, anchored: np.ndarray,
                   local: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the derivatives by poses and focal length [n, 2, P] and by depths [n, 2]."""
        p = self._p
        count, free = len(p.landmark), len(p.free)
        by_point = projection_jacobian(local, camera)
        anchor_poses, poses = state.poses[self._anchor], state.poses[p.seen_by]
        turned = by_point @ (poses[:, :3, :3].transpose(0, 2, 1) @ anchor_poses[:, :3, :3])
        size = 6 * free + (_FOCAL_BLOCK if p.focal is not None else 0)
        blocks = np.zeros((count, free + 1, 2, 6))
        rows = np.arange(count)
        seen, anchor = self._column[p.seen_by], self._column[self._anchor]
        blocks[rows, seen] += np.concatenate([by_point @ skew(local), -by_point], -1)
        blocks[rows, anchor] += np.concatenate([-turned @ skew(anchored), turned], -1)
        jacobian = np.empty((count, 2, size))
        jacobian[:, :, :6 * free] = blocks[:, :free].transpose(0, 2, 1, 3).reshape(
            count, 2, 6 * free)
        if p.focal is not None:
            # The ray through a fixed pixel bends when the focal length grows.
            across = anchored * (-1.0, -1.0, 0.0)
            depth = np.maximum(local[:, 2], 1e-3)
            direct = local[:, :2] / depth[:, None] * (camera[0, 0], camera[1, 1])
            jacobian[:, :, -1] = np.einsum('nij,nj->ni', turned, across) + direct
        return jacobian, -np.einsum('nij,nj->ni', turned, anchored)

    def _points(self, state: _State) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return the camera [3, 3], and points in their anchors' and observers' frames [n, 3]."""
        p = self._p
        camera, rays = p.camera, p.rays
        if p.focal is not None:
            camera, rays = rescaled(camera, rays, state.focal)
        points = rays * np.exp(-state.depth)[:, None]
        anchored = points[p.landmark]
        poses = state.poses[p.anchor]
        world = np.einsum('nij,nj->ni', poses[:, :3, :3], points) + poses[:, :3, 3]
        observers = state.poses[p.seen_by]
        local = np.einsum('nji,nj->ni', observers[:, :3, :3],
                          world[p.landmark] - observers[:, :3, 3])
        return camera, anchored, local

    def _by_landmark(self, values: np.ndarray) -> np.ndarray:
        """Return the sums [M, ...] of values [n, ...] over each landmark's observations."""
        total = np.zeros((len(self._p.prior), *values.shape[1:]))
        if len(values):
            total[self._seen] = np.add.reduceat(values, self._starts, 0)
        return total


def rescaled(camera: np.ndarray, rays: np.ndarray, log_focal: float) -> tuple[np.ndarray, ...]:
    """Return camera matrix and rays of the same pixels with another focal length."""
    factor = np.exp(log_focal)
    camera, rays = camera.copy(), rays.copy()
    camera[[0, 1], [0, 1]] *= factor
    rays[:, :2] /= factor
    return camera, rays
