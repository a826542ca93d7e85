"""How weights get into a network: part by part, each kept as it is to stay."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn, Tensor

from xsvggt_ros.model.config import ModelConfig
from xsvggt_ros.model.kinds import kind_of_config
from xsvggt_ros.model.layers import Block
from xsvggt_ros.model.network import lower, StreamNetwork
from xsvggt_ros.model.precision import choose_precision, choose_weights
from xsvggt_ros.model.weight_quantization import give_back_memory, quantise_weights


@dataclass(frozen=True)
class WeightLoading:
    """What a network is to be once its weights are there: see `load_model`."""

    device: torch.device
    dtype: torch.dtype
    weights: str
    precision: str | None

    def precisions(self, config: ModelConfig) -> tuple[torch.dtype, torch.dtype]:
        """Return the precision of the aggregator, and that of the heads."""
        if self.precision is None:
            return self.dtype, torch.float32
        return choose_precision(self.precision, self.device, config)

    def stored(self, config: ModelConfig) -> str:
        """Return how weights are stored."""
        return choose_weights(self.weights, self.precision, self.device, config)

    def empty_model(self, config: ModelConfig) -> StreamNetwork:
        """Return a network without memory, its parameters in the precision they are read in."""
        with torch.device('meta'):
            model = kind_of_config(config).network(config)
        return model.set_dtype(self.dtype if self.precision is None else torch.float32).eval()

    def fill(self, model: StreamNetwork, read: Callable[[str], Tensor],
             release: Callable[[Tensor], None] = lambda weight: None) -> None:
        """
        Give a network without memory its weights, and store them as was chosen.

        read: returns a weight by its key. release: is called with each when it was copied.
        """
        blocks = {name: part for name, part in model.named_modules() if isinstance(part, Block)}
        inside = tuple(f'{name}.' for name in blocks)
        aggregator, heads = self.precisions(model.config)
        stored = self.stored(model.config)

        def load(part: nn.Module, prefix: str, keys: list[str]) -> None:
            weights: dict[str, Tensor] = {}
            for key in keys:
                # A copy even if nothing is to convert: what was read may be a window into a file.
                weight = read(prefix + key)
                # `empty_like` of what is on 'meta' would load torch's compiler: half a second.
                empty = part.get_parameter(key)
                weights[key] = torch.empty_strided(
                    empty.shape, empty.stride(), dtype=empty.dtype,
                    device=self.device).copy_(weight)
                release(weight)
            part.load_state_dict(weights, strict=bool(prefix), assign=True)

        load(model, '', [key for key in model.state_dict() if not key.startswith(inside)])
        if self.precision is not None:
            for head in model.dense_heads():
                lower(head, heads)
        # Block by block, so that no more than one is held as floats that are to go.
        for name, block in blocks.items():
            load(block, f'{name}.', list(block.state_dict()))
            if stored != 'float' or self.precision is not None:
                block.fold()
            quantise_weights(model, stored, name)
            if self.precision is not None:
                lower(block, aggregator if name.startswith('aggregator.') else heads)
        quantise_weights(model, stored)
        model.set_dtype(aggregator, heads)
        give_back_memory()

    def describe(self, model: StreamNetwork) -> str:
        """Return the size of a network without memory for a person."""
        stored = self.stored(model.config)
        words = f', weights {stored}' if stored != 'float' else ''
        return size_text(model, self.precisions(model.config)[0]) + words


def size_text(model: StreamNetwork, dtype: torch.dtype) -> str:
    """Return the size of a network for a person."""
    config = model.config
    millions = sum(weight.numel() for weight in model.parameters()) / 1e6
    kind = kind_of_config(config)
    name = f'{kind.name}, {kind.note}; ' if kind.note else ''
    return (f'{name}embed_dim {config.embed_dim}, depth {config.depth}, {millions:.1f} M '
            f"parameters, {str(dtype).removeprefix('torch.')}")
