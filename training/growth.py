"""Networks that training can go on from: larger ones, and those whose confidences begin anew."""

from dataclasses import replace

import torch
from torch import nn

from xsvggt_ros.model.streamvggt import StreamVGGT


def grow(model: StreamVGGT, pairs: int) -> StreamVGGT:
    """
    Return `model` with so many more pairs of a frame block and a global block.

    They come before old pairs, evenly from the first to the last one, and do nothing at first:
    the factors of both their branches are zero. Their other weights are those of the old pair
    behind them, with which they begin to learn. The dense heads read the same old pairs.
    """
    old = model.config
    before = [round((number + 1) * old.depth / (pairs + 1)) for number in range(pairs)]
    before = [min(max(place, 1), old.depth - 1) for place in before]
    # The old pair behind or in each place of the new network, and whether it is an old one there.
    places: list[tuple[int, bool]] = []
    for layer in range(old.depth):
        places += [(layer, False)] * before.count(layer) + [(layer, True)]
    moved = {layer: place for place, (layer, stays) in enumerate(places) if stays}
    read = tuple(moved[layer] for layer in old.dpt_head.intermediate_layer_idx)
    config = replace(old, depth=old.depth + pairs,
                     dpt_head=replace(old.dpt_head, intermediate_layer_idx=read))
    grown = StreamVGGT(config)
    weights = grown.state_dict()
    for key, weight in model.state_dict().items():
        if '_blocks.' not in key:
            weights[key] = weight
    for kind in ('frame_blocks', 'global_blocks'):
        old_blocks: nn.ModuleList = getattr(model.aggregator, kind)
        for place, (layer, stays) in enumerate(places):
            for key, weight in old_blocks[layer].state_dict().items():
                idle = not stays and key.endswith('gamma')
                weights[f'aggregator.{kind}.{place}.{key}'] = (
                    torch.zeros_like(weight) if idle else weight.clone())
    grown.load_state_dict(weights)
    return grown.train(model.training)


def renew_confidences(model: StreamVGGT) -> None:
    """
    Make all confidences of depths and points 2, in place; nothing else that it says changes.

    They are 1 + exp(x): what has come to say 1 everywhere, as `small` had, learns no more of them.
    """
    for head in (model.depth_head, model.point_head):
        _, last = head.scratch.output_convolutions
        with torch.no_grad():
            assert last.bias is not None
            last.weight[-1].zero_()
            last.bias[-1].zero_()


def parameters(model: nn.Module) -> int:
    """Return the number of a network's weights."""
    return sum(weight.numel() for weight in model.parameters())
