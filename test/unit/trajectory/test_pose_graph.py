"""Graphs of similarities: derivatives against autograd, what is free, wrong edges, bad numbers."""

import numpy as np
import pytest
import torch

from xsvggt_ros.geometry import metrics
from xsvggt_ros.geometry.similarity import apply_to_pose, inverse_similarity, scales
from xsvggt_ros.trajectory.pose_graph import (
    _normal_equations,
    _residual,
    difference,
    Edges,
    solve_graph,
)
from xsvggt_ros.trajectory.projection import rotation

STEP = np.array([0.003] * 3 + [0.01] * 3 + [0.005])


def similarities(rng, count, turn=1.0, length=1.0, scale=0.1):
    made = np.zeros((count, 4, 4))
    made[:, :3, :3] = np.exp(rng.normal(0, scale, count))[:, None, None] * rotation(
        rng.normal(0, turn, (count, 3)))
    made[:, :3, 3], made[:, 3, 3] = rng.normal(0, length, (count, 3)), 1
    return made


def edges(first, second, measured, sigma=STEP, cauchy=np.inf):
    return Edges(np.array(first), np.array(second), measured,
                 np.tile(1 / sigma, (len(first), 1)), np.full(len(first), cauchy))


def drifted(rng, count=200, loops=40):
    """Return a round way, how odometry saw it, and edges: steps, then loops that are right."""
    angle = 4 * np.pi * np.arange(count) / count
    true = np.tile(np.eye(4), (count, 1, 1))
    true[:, :3, :3] = rotation(np.stack([0 * angle, angle, 0 * angle], -1))
    true[:, :3, 3] = np.stack([2 * np.cos(angle), 0 * angle, 2 * np.sin(angle)], -1)
    true = np.linalg.inv(true[0]) @ true
    noise = similarities(rng, count - 1, STEP[0], STEP[3], STEP[6])
    steps = inverse_similarity(true[:-1]) @ true[1:] @ noise
    odometry = true.copy()
    for row, step in enumerate(steps):
        odometry[row + 1] = odometry[row] @ step
    chain = edges(np.arange(count - 1), np.arange(1, count), steps)
    first = rng.integers(0, count // 2, loops)
    second = first + count // 2 - rng.integers(0, 3, loops)
    seen = inverse_similarity(true[first]) @ true[second] @ similarities(
        rng, loops, STEP[0], STEP[3], STEP[6])
    return true, odometry, chain, edges(first, second, seen, cauchy=3.0)


def off(nodes, true):
    return metrics.position_errors(nodes[:, :3, 3], true[:, :3, 3])[1]


def test_the_gradient_is_autograds():
    rng = np.random.default_rng(1)
    nodes, graph = similarities(rng, 4), edges(
        [0, 1, 2, 3], [1, 2, 3, 1], similarities(rng, 4), rng.uniform(0.5, 2, 7))
    residual = _residual(nodes, graph)
    gradient = _normal_equations(nodes, graph, residual)[1]

    steps = torch.zeros(4, 7, dtype=torch.float64, requires_grad=True)
    block = torch.zeros(4, 4, 4, dtype=torch.float64)
    for row, (a, b, c) in enumerate(((0, 1, 2), (1, 2, 0), (2, 0, 1))):
        block[row, c, b], block[row, b, c] = 1.0, -1.0
    generator = torch.einsum('nk,kij->nij', steps[:, :3], block[:3])
    generator = generator + steps[:, 6, None, None] * torch.diag(torch.tensor([1.0, 1, 1, 0]))
    moved = torch.from_numpy(nodes) @ (
        torch.linalg.matrix_exp(generator) @ _shift(steps[:, 3:6]))
    error = torch.linalg.inv(torch.from_numpy(graph.measured)) @ torch.linalg.inv(
        moved[graph.first]) @ moved[graph.second]
    scale = torch.linalg.det(error[:, :3, :3]) ** (1 / 3)
    turn = error[:, :3, :3] / scale[:, None, None]
    angle = torch.arccos((turn.diagonal(dim1=1, dim2=2).sum(1) - 1) / 2)
    vector = torch.stack([turn[:, 2, 1] - turn[:, 1, 2], turn[:, 0, 2] - turn[:, 2, 0],
                          turn[:, 1, 0] - turn[:, 0, 1]], 1)
    vector = vector * (angle / (2 * torch.sin(angle)))[:, None]
    found = torch.cat([vector, error[:, :3, 3], torch.log(scale)[:, None]], 1)
    assert np.allclose(found.detach().numpy() * graph.weight, residual, atol=1e-9)
    (0.5 * (torch.from_numpy(graph.weight) * found) ** 2).sum().backward()
    assert np.allclose(gradient, steps.grad.numpy()[1:].ravel(), atol=1e-6)


def _shift(steps):
    matrices = torch.eye(4, dtype=torch.float64).repeat(len(steps), 1, 1)
    return torch.cat([torch.cat([matrices[:, :3, :3], steps[:, :, None]], 2),
                      matrices[:, 3:]], 1)


@pytest.mark.parametrize('angle', [0.0, 1e-9, 1.0, np.pi - 1e-7, np.pi])
def test_difference_and_inverse_are_right_at_every_angle(angle):
    for axis in np.eye(3):
        one = np.eye(4)
        one[:3, :3] = 1.5 * rotation(angle * axis)
        one[:3, 3] = 1, 2, 3
        told = difference(one[None])[0]
        assert np.allclose(np.abs(told[:3]), angle * axis, atol=1e-6)
        assert np.allclose(told[3:], [1, 2, 3, np.log(1.5)])
        assert np.allclose(inverse_similarity(one[None])[0] @ one, np.eye(4))


def test_a_similarity_moves_a_pose_and_leaves_it_one():
    rng = np.random.default_rng(0)
    similarity, pose = similarities(rng, 2)
    pose[:3, :3] /= scales(pose)
    moved = apply_to_pose(similarity, pose)
    assert np.allclose(moved[:3, :3] @ moved[:3, :3].T, np.eye(3))
    assert np.allclose(moved[:3, 3], (similarity @ pose)[:3, 3])


def test_loops_take_the_drift_of_way_and_scale_out():
    true, odometry, chain, loops = drifted(np.random.default_rng(0))
    solution = solve_graph(odometry, chain.joined(loops))
    assert off(solution.nodes, true) < 0.35 * off(odometry, true)
    assert np.array_equal(solution.nodes[0], odometry[0])


def test_where_the_world_is_does_not_matter():
    rng = np.random.default_rng(2)
    true, odometry, chain, loops = drifted(rng, 60, 10)
    graph = chain.joined(loops)
    other = similarities(rng, 1, length=5.0)[0]
    here, there = solve_graph(odometry, graph), solve_graph(other @ odometry, graph)
    assert there.cost == pytest.approx(here.cost, rel=1e-3)
    assert np.allclose(there.nodes, other @ here.nodes, atol=0.02)


def test_200_wrong_loops_in_1000_cost_nothing():
    rng = np.random.default_rng(3)
    true, odometry, chain, loops = drifted(rng, 300, 800)
    count = 200
    first, second = rng.integers(0, 150, count), rng.integers(150, 300, count)
    wrong = edges(first, second, similarities(rng, count, 1.0, 2.0, 0.2), cauchy=3.0)
    right = solve_graph(odometry, chain.joined(loops))
    both = solve_graph(odometry, chain.joined(loops).joined(wrong))
    assert abs(off(both.nodes, true) - off(right.nodes, true)) < 0.005
    lengths = both.lengths[-count:]
    assert np.median(lengths) > 10 * np.median(both.lengths[:-count])


def test_what_cannot_be_solved_is_left_as_it_is():
    nodes = np.tile(np.eye(4), (3, 1, 1))
    assert np.array_equal(solve_graph(nodes, Edges.none()).nodes, nodes)
    assert np.array_equal(solve_graph(nodes[:1], Edges.none()).nodes, nodes[:1])
    broken = edges([0, 1], [1, 2], np.full((2, 4, 4), np.nan))
    assert np.array_equal(solve_graph(nodes, broken).nodes, nodes)
