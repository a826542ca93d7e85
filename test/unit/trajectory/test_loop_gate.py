"""The gate goes the surest way through the graph, over loops that were closed before."""

import numpy as np
from test_keyframe_chain import chain_of, loop_of

from xsvggt_ros.trajectory.loop_gate import is_plausible
from xsvggt_ros.trajectory.pose_graph import Edges


def test_a_loop_that_was_closed_shortens_the_way():
    chain, true = chain_of()
    edges = chain.edges()
    closed = loop_of(1, 18, true)
    wider = edges.joined(Edges(np.array([1]), np.array([18]), closed.first_from_second[None],
                               1 / closed.sigma[None], np.array([3.0])))
    doubtful = loop_of(1, 19, true, 0.6)
    assert is_plausible(doubtful, chain, edges, 5.0)
    assert not is_plausible(doubtful, chain, wider, 5.0)
