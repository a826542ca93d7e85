"""Motions between keyframes that something else has measured, for the bundle adjustment."""

from dataclasses import dataclass

import numpy as np

from xsvggt_ros.trajectory.projection import (
    cauchy_cost,
    cauchy_weights,
    rotation_vector,
    skew,
)


@dataclass(frozen=True)
class MotionFactors:
    """
    Measured motions.

    before, after [n]: rows of poses. measured [n, 4, 4]: before_from_after, in the poses' unit.
    information [n, 6, 6]: of a small motion (rotation, translation) in the later camera's axes;
    zero where nothing was measured. cauchy: sigmas of all six together from which one counts less.
    """

    before: np.ndarray
    after: np.ndarray
    measured: np.ndarray
    information: np.ndarray
    cauchy: float

    def residuals(self, poses: np.ndarray) -> np.ndarray:
        """Return by which small motions [n, 6] poses [N, 4, 4] differ from what was measured."""
        found = _relative(poses[self.before], poses[self.after])
        off = _relative(self.measured, found)
        return np.concatenate([rotation_vector(off[:, :3, :3]), off[:, :3, 3]], -1)

    def cost(self, poses: np.ndarray) -> float:
        """Return the robust cost at poses [N, 4, 4]."""
        return cauchy_cost(self._squares(self.residuals(poses)), self.cauchy)

    def jacobians(self, poses: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the derivatives [n, 6, 6] of `residuals` by small motions of both poses."""
        found = _relative(poses[self.before], poses[self.after])
        off = _relative(self.measured, found)
        back = _inverse_right_jacobian(rotation_vector(off[:, :3, :3]))
        turned = self.measured[:, :3, :3].transpose(0, 2, 1)
        by_before, by_after = np.zeros((2, len(found), 6, 6))
        by_after[:, :3, :3] = back
        by_after[:, 3:, 3:] = off[:, :3, :3]
        by_before[:, :3, :3] = -back @ found[:, :3, :3].transpose(0, 2, 1)
        by_before[:, 3:, :3] = turned @ skew(found[:, :3, 3])
        by_before[:, 3:, 3:] = -turned
        return by_before, by_after

    def add_to(self, hessian: np.ndarray, gradient: np.ndarray, poses: np.ndarray,
               column: np.ndarray, moving: int) -> None:
        """
        Add to the normal equations [P, P] and [P], of six numbers for each pose that moves.

        column [N]: which of these a pose is; those that are held: `moving`, or more.
        """
        residual = self.residuals(poses)
        weights = cauchy_weights(self._squares(residual), self.cauchy)
        weighted = self.information * weights[:, None, None]
        parts = list(zip(self.jacobians(poses), (column[self.before], column[self.after])))
        for jacobian, columns in parts:
            pull = np.einsum('nji,njk,nk->ni', jacobian, weighted, residual)
            for number in np.flatnonzero(columns < moving):
                place = slice(6 * columns[number], 6 * columns[number] + 6)
                gradient[place] += pull[number]
                for other, others in parts:
                    if others[number] < moving:
                        there = slice(6 * others[number], 6 * others[number] + 6)
                        hessian[place, there] += (
                            jacobian[number].T @ weighted[number] @ other[number])

    def _squares(self, residuals: np.ndarray) -> np.ndarray:
        return np.einsum('ni,nij,nj->n', residuals, self.information, residuals)


def _relative(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Return the second poses [n, 4, 4] in the frames of the first ones."""
    turned = first[:, :3, :3].transpose(0, 2, 1)
    result = np.zeros_like(first)
    result[:, :3, :3] = turned @ second[:, :3, :3]
    result[:, :3, 3] = np.einsum('nij,nj->ni', turned, second[:, :3, 3] - first[:, :3, 3])
    result[:, 3, 3] = 1
    return result


def _inverse_right_jacobian(vectors: np.ndarray) -> np.ndarray:
    """Return the derivatives [n, 3, 3] of rotation vectors by a small rotation from the right."""
    angle = np.linalg.norm(vectors, axis=-1)[:, None, None]
    safe = np.maximum(angle, 1e-4)
    second = np.where(angle < 1e-3, 1 / 12, 1 / safe ** 2 - 1 / (2 * safe * np.tan(safe / 2)))
    cross = skew(vectors)
    return np.eye(3) + 0.5 * cross + second * (cross @ cross)
