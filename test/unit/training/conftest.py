"""What several tests of the training share."""

import dataclasses

import pytest

from xsvggt_ros.model.config import ModelConfig


@pytest.fixture(scope='module')
def config():
    """Return a network that trains in a moment."""
    small = ModelConfig.small()
    return dataclasses.replace(
        small, embed_dim=32, depth=4, num_heads=1,
        dpt_head=dataclasses.replace(small.dpt_head, features=16, out_channels=(8, 8, 8, 8),
                                     intermediate_layer_idx=(0, 1, 2, 3)))
