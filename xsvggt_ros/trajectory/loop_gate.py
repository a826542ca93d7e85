"""Whether a loop can be true, by how far the keyframes on the way between may have drifted."""

import numpy as np

from xsvggt_ros.geometry.similarity import inverse_similarity
from xsvggt_ros.trajectory.keyframe_chain import KeyframeChain
from xsvggt_ros.trajectory.loop_check import Loop
from xsvggt_ros.trajectory.pose_graph import difference, Edges

_FLOOR = np.array([0.03, 0.03, 0.03])   # of rotation, translation (of depth), log scale


def is_plausible(loop: Loop, chain: KeyframeChain, edges: Edges, sigmas: float) -> bool:
    """Return whether a loop is within so many sigmas of where the graph has its keyframes."""
    first, second = chain.rows([loop.first, loop.second]).tolist()
    nodes = chain.nodes
    predicted = inverse_similarity(nodes[first]) @ nodes[second]
    error = difference(inverse_similarity(loop.first_from_second) @ predicted)
    path = _surest_path(edges, len(nodes), first, second)
    variance = 1 / edges.weight[path] ** 2
    turn = variance[:, :3].sum() + (loop.sigma[:3] ** 2).sum()
    scale = variance[:, 6].sum() + loop.sigma[6] ** 2
    positions = nodes[edges.first[path], :3, 3]
    lever = ((positions - nodes[second, :3, 3]) ** 2).sum(1).mean()
    length = variance[:, 3:6].sum() + (loop.sigma[3:6] ** 2).sum() + (turn + scale) * lever
    limits = sigmas * np.sqrt([turn, length, scale])
    errors = np.array([np.linalg.norm(error[:3]), np.linalg.norm(error[3:6]), abs(error[6])])
    return bool((errors < limits + _FLOOR).all())


def _surest_path(edges: Edges, count: int, first: int, second: int) -> np.ndarray:
    """Return the edges of the surest way between two nodes."""
    import scipy.sparse.csgraph  # a node that starts does without

    cost = (1 / edges.weight ** 2).sum(1)
    order = np.argsort(-cost, kind='stable')   # of several edges between two nodes the surest last
    lookup = {}
    for row in order.tolist():
        lookup[edges.first[row], edges.second[row]] = row
        lookup[edges.second[row], edges.first[row]] = row
    pairs = np.array(list(lookup))
    rows = np.array(list(lookup.values()))
    graph = scipy.sparse.csr_matrix((cost[rows], (pairs[:, 0], pairs[:, 1])), (count, count))
    _, before = scipy.sparse.csgraph.dijkstra(graph, indices=first, return_predecessors=True)
    path = []
    node = second
    while node != first:
        path.append(lookup[before[node], node])
        node = before[node]
    return np.array(path, int)
