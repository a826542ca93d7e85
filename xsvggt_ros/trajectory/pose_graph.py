"""
A pose graph: similarities of keyframes that agree best with relative ones that were measured.

Least squares on Sim(3) (Strasdat, Montiel and Davison, Scale Drift-Aware Large Scale Monocular
SLAM, RSS 2010), Cauchy's kernel on what may be wrong, Gauss-Newton with a sparse factorization.
Similarities are matrices [4, 4] whose upper left block is a scale times a rotation. A step of
one has seven numbers: rotation in rad, translation, logarithm of the scale, in its own axes.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from xsvggt_ros.geometry.similarity import inverse_similarity, scales
from xsvggt_ros.trajectory.projection import rotation, rotation_vector, skew

if TYPE_CHECKING:   # SciPy is imported when a loop is closed, not when a node starts
    import scipy.sparse

_CONVERGED = 1e-3        # gain below which it is done, over what edges cost that are believed
_DAMPINGS = 6            # that are tried in one iteration
_SIZE = 7


@dataclass(frozen=True)
class Edges:
    """
    Measured similarities between nodes.

    first, second: rows [E] of the nodes. measured [E, 4, 4]: first_from_second. weight [E, 7]:
    inverse standard deviations of a step of the second node. cauchy [E]: length of the weighted
    residual from which an edge counts less; inf for those that are believed.
    """

    first: np.ndarray
    second: np.ndarray
    measured: np.ndarray
    weight: np.ndarray
    cauchy: np.ndarray

    @classmethod
    def none(cls) -> 'Edges':
        """Return no edges."""
        rows: np.ndarray = np.empty(0, np.int64)
        return cls(rows, rows, np.empty((0, 4, 4)), np.empty((0, _SIZE)), np.empty(0))

    def joined(self, other: 'Edges') -> 'Edges':
        """Return both."""
        return Edges(*(np.concatenate([getattr(self, name), getattr(other, name)])
                       for name in ('first', 'second', 'measured', 'weight', 'cauchy')))

    def __len__(self) -> int:
        """Return how many there are."""
        return len(self.first)


@dataclass(frozen=True)
class GraphSolution:
    """Nodes [N, 4, 4], the length of each edge's weighted residual [E], and the robust cost."""

    nodes: np.ndarray
    lengths: np.ndarray
    cost: float


def solve_graph(nodes: np.ndarray, edges: Edges, iterations: int = 25) -> GraphSolution:
    """
    Return the nodes, similarities [N, 4, 4], that agree best with the edges; the first stays.

    Where there is nothing that could be solved they are as given.
    """
    if not np.isfinite(edges.measured).all() or not np.isfinite(nodes).all():
        return GraphSolution(nodes, np.full(len(edges), np.inf), np.inf)
    residual = _residual(nodes, edges)
    cost, damping = _cost(residual, edges.cauchy), 1e-6
    if len(nodes) < 2 or not len(edges):
        return GraphSolution(nodes, np.linalg.norm(residual, axis=1), cost)
    believed = ~np.isfinite(edges.cauchy)
    for _ in range(iterations):
        hessian, gradient = _normal_equations(nodes, edges, residual)
        better = None
        for _ in range(_DAMPINGS):
            step = _solved(hessian, gradient, damping)
            if np.isfinite(step).all():
                candidate = _moved(nodes, step)
                new_residual = _residual(candidate, edges)
                new_cost = _cost(new_residual, edges.cauchy)
                if new_cost <= cost:
                    better = candidate
                    break
            damping *= 10
        if better is None:
            break
        gain, nodes, residual, cost = cost - new_cost, better, new_residual, new_cost
        damping = max(damping / 10, 1e-9)
        # Wrong edges cost much and change nothing: they do not count here.
        if gain <= _CONVERGED * max(1.0, _cost(residual[believed], edges.cauchy[believed])):
            break
    return GraphSolution(nodes, np.linalg.norm(residual, axis=1), cost)


def difference(similarities: np.ndarray) -> np.ndarray:
    """Return the steps [..., 7] from the identity to similarities [..., 4, 4]."""
    scale = scales(similarities)
    turn = similarities[..., :3, :3] / scale[..., None, None]
    return np.concatenate([rotation_vector(turn), similarities[..., :3, 3],
                           np.log(scale)[..., None]], -1)


def similarity_of(step: np.ndarray) -> np.ndarray:
    """Return the similarity [4, 4] of a step [7] from the identity: what `difference` undoes."""
    result = np.eye(4)
    result[:3, :3] = np.exp(step[6]) * rotation(step[:3])
    result[:3, 3] = step[3:6]
    return result


def _residual(nodes: np.ndarray, edges: Edges) -> np.ndarray:
    """Return the weighted residuals [E, 7]."""
    between = inverse_similarity(nodes[edges.first]) @ nodes[edges.second]
    return edges.weight * difference(inverse_similarity(edges.measured) @ between)


def _cost(residual: np.ndarray, cauchy: np.ndarray) -> float:
    squares = (residual ** 2).sum(1)
    robust = np.isfinite(cauchy)
    limit = cauchy[robust] ** 2
    return float(squares[~robust].sum() + (limit * np.log1p(squares[robust] / limit)).sum())


def _normal_equations(nodes: np.ndarray, edges: Edges,
                      residual: np.ndarray) -> tuple['scipy.sparse.csc_matrix', np.ndarray]:
    """Return the Hessian and the gradient by all nodes but the first."""
    import scipy.sparse

    between = inverse_similarity(nodes[edges.first]) @ nodes[edges.second]
    error = inverse_similarity(edges.measured) @ between
    by_second = _by_second(error, residual[:, :3] / edges.weight[:, :3])
    by_first = -by_second @ _adjoint_of_inverse(between)
    squares = (residual ** 2).sum(1)
    robust = 1 / (1 + squares / edges.cauchy ** 2)
    weight = edges.weight ** 2 * robust[:, None]
    right = edges.weight * robust[:, None] * residual
    size = _SIZE * (len(nodes) - 1)
    rows, columns, values = [], [], []
    gradient = np.zeros(size + _SIZE)
    inner = np.arange(_SIZE)
    parts = ((edges.first, by_first), (edges.second, by_second))
    for row, left_jacobian in parts:
        np.add.at(gradient.reshape(-1, _SIZE), row,
                  np.einsum('eki,ek->ei', left_jacobian, right))
        for column, right_jacobian in parts:
            block = np.einsum('eki,ek,ekj->eij', left_jacobian, weight, right_jacobian)
            free = (row > 0) & (column > 0)
            at = _SIZE * (row[free] - 1), _SIZE * (column[free] - 1)
            rows.append(np.broadcast_to(at[0][:, None, None] + inner[:, None],
                                        block[free].shape).ravel())
            columns.append(np.broadcast_to(at[1][:, None, None] + inner,
                                           block[free].shape).ravel())
            values.append(block[free].ravel())
    hessian = scipy.sparse.coo_matrix(
        (np.concatenate(values), (np.concatenate(rows), np.concatenate(columns))), (size, size))
    return hessian.tocsc(), gradient[_SIZE:]


def _by_second(error: np.ndarray, turned: np.ndarray) -> np.ndarray:
    """Return the derivatives [E, 7, 7] of `difference` of an error by a step behind it."""
    jacobian = np.zeros((len(error), _SIZE, _SIZE))
    # The inverse of the right Jacobian of SO(3), to second order beyond the first.
    cross = skew(turned)
    angle = np.maximum((turned ** 2).sum(-1), 1e-12)[:, None, None] ** 0.5
    third = np.where(angle < 1e-3, 1 / 12.0, 1 / angle ** 2 - (1 + np.cos(angle)) / (
        2 * angle * np.maximum(np.sin(angle), 1e-9)))
    jacobian[:, :3, :3] = np.eye(3) + 0.5 * cross + third * (cross @ cross)
    jacobian[:, 3:6, 3:6] = error[:, :3, :3]
    jacobian[:, 6, 6] = 1
    return jacobian


def _adjoint_of_inverse(between: np.ndarray) -> np.ndarray:
    """Return the matrices [E, 7, 7] that bring steps from before similarities to behind."""
    scale = scales(between)[:, None, None]
    back = (between[:, :3, :3] / scale).transpose(0, 2, 1)
    shift = between[:, :3, 3]
    matrix = np.zeros((len(between), _SIZE, _SIZE))
    matrix[:, :3, :3] = back
    matrix[:, 3:6, 3:6] = back / scale
    matrix[:, 3:6, :3] = -back / scale @ skew(shift)
    matrix[:, 3:6, 6] = (back / scale @ shift[:, :, None])[..., 0]
    matrix[:, 6, 6] = 1
    return matrix


def _solved(hessian: 'scipy.sparse.csc_matrix', gradient: np.ndarray,
            damping: float) -> np.ndarray:
    """Return the damped step [N - 1, 7]; NaN where it has none."""
    import scipy.sparse.linalg

    diagonal = hessian.diagonal()
    damped = hessian + scipy.sparse.diags(damping * diagonal + 1e-12, format='csc')
    try:
        factors = scipy.sparse.linalg.splu(
            damped, permc_spec='MMD_AT_PLUS_A', diag_pivot_thresh=0.0,
            options={'SymmetricMode': True})
        return -factors.solve(gradient).reshape(-1, _SIZE)
    except RuntimeError:   # exactly singular
        return np.full((len(gradient) // _SIZE, _SIZE), np.nan)


def _moved(nodes: np.ndarray, steps: np.ndarray) -> np.ndarray:
    """Return the nodes after steps of all but the first."""
    change = np.zeros((len(steps), 4, 4))
    change[:, :3, :3] = np.exp(np.clip(steps[:, 6], -1, 1))[:, None, None] * rotation(steps[:, :3])
    change[:, :3, 3], change[:, 3, 3] = steps[:, 3:6], 1
    return np.concatenate([nodes[:1], nodes[1:] @ change])
