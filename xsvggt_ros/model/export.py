"""
The network in parts without a memory, as ONNX files: for TensorRT, where PyTorch is slow.

What is between the parts stays in PyTorch: the attention over the stream, which is the cache's,
and the camera head, which has a cache of its own. A frame goes

    patches -> special tokens in front -> for each layer: before_N -> cache -> after_N -> heads

so that all matrix products but the attention over the stream are in some part.
"""

from collections.abc import Iterator
from copy import copy
from dataclasses import dataclass
import json
from pathlib import Path
from typing import Any

import torch
from torch import nn, Tensor

from xsvggt_ros.model.dinov2 import DinoVisionTransformer
from xsvggt_ros.model.layers import Block
from xsvggt_ros.model.network import depth_map, point_map
from xsvggt_ros.model.positions import RotaryTable
from xsvggt_ros.model.streamvggt import StreamVGGT

OPSET = 18


class Patches(nn.Module):
    """From an image to the tokens of its patches."""

    def __init__(self, model: StreamVGGT, height: int, width: int) -> None:
        """Take the patch embedding and the scale of its input."""
        super().__init__()
        tables = model.aggregator.frame_tables(height, width)
        self.embed = model.aggregator.patch_embed
        if isinstance(self.embed, DinoVisionTransformer):
            self.embed = _with_fixed_positions(self.embed, height, width)
        self.scale: Tensor
        self.shift: Tensor
        self.register_buffer('scale', tables.image_scale)
        self.register_buffer('shift', tables.image_shift)

    def forward(self, image: Tensor) -> Tensor:
        """Return [patches, dim] of an image [3, H, W] in [0, 1]."""
        return self.embed(torch.addcmul(self.shift, image, self.scale))


def _with_fixed_positions(
    embed: DinoVisionTransformer, height: int, width: int,
) -> DinoVisionTransformer:
    """
    Return one with the same weights that has its position table for images of this size.

    The table's cache cannot be traced, and the resampling should not be part of the graph.
    """
    with torch.no_grad():
        positions = embed.position_table(height // embed.patch_size, width // embed.patch_size)
    embed = copy(embed)
    setattr(embed, 'position_table', lambda rows, columns: positions)  # noqa: B010
    return embed


class BeforeMemory(nn.Module):
    """A frame block, and the global block after it as far as the attention over the stream."""

    def __init__(self, frame_block: Block, global_block: Block, rope: RotaryTable) -> None:
        """Take the blocks of one layer and the positions of a frame's tokens."""
        super().__init__()
        self.frame_block = frame_block
        self.global_block = global_block
        self.register_buffer('cosines', rope[0])
        self.register_buffer('sines', rope[1])

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """
        Return the frame block's output, queries, keys and values of tokens [tokens, dim].

        The last three are [heads, tokens, head_dim], for the cache.
        """
        rope = self.cosines, self.sines
        inside = self.frame_block(x, rope=rope)
        taken: list[Tensor] = []

        def take(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
            taken.extend((query, key, value))
            return query

        # What the block makes of the queries is not returned, so the exporter leaves it out.
        self.global_block(inside, take, rope)
        return inside, *taken


class AfterMemory(nn.Module):
    """The rest of a global block, when the attention over the stream has been read."""

    def __init__(self, global_block: Block) -> None:
        """Take the block."""
        super().__init__()
        self.global_block = global_block

    def forward(self, inside: Tensor, read: Tensor) -> Tensor:
        """Return [tokens, dim] of the block's input and of what [heads, tokens, head_dim] read."""
        return self.global_block(inside, lambda query, key, value: read)


class Dense(nn.Module):
    """A dense head with its final activation."""

    def __init__(self, head: nn.Module, points: bool, height: int, width: int) -> None:
        """Take a head, which one it is, and the size of its maps."""
        super().__init__()
        self.head = head
        self.activate = point_map if points else depth_map
        self.size = height, width

    def forward(self, *layers: Tensor) -> tuple[Tensor, Tensor]:
        """Return map and confidence of four layers' patch tokens [1, patches, 2 dim]."""
        return self.activate(self.head(layers, *self.size)[0])


@dataclass(frozen=True)
class OnnxPart:
    """A module without a memory, with inputs of the right shapes."""

    name: str
    module: nn.Module
    inputs: dict[str, Tensor]
    outputs: tuple[str, ...]


def parts(model: StreamVGGT, height: int, width: int) -> Iterator[OnnxPart]:
    """Give the parts of a network for frames of height x width pixels, in the order they run."""
    config, aggregator = model.config, model.aggregator
    layout = model.cache_layout(height, width).tokens  # checks the size
    tables = aggregator.frame_tables(height, width)

    def example(*shape: int) -> Tensor:
        return torch.rand(shape, device=tables.image_scale.device)

    yield OnnxPart('patches', Patches(model, height, width), {'image': example(3, height, width)},
               ('tokens',))
    tokens = layout.tokens_per_step
    blocks = zip(aggregator.frame_blocks, aggregator.global_blocks)
    for layer, (frame_block, global_block) in enumerate(blocks):
        yield OnnxPart(f'before_{layer:02d}', BeforeMemory(frame_block, global_block, tables.rope),
                   {'x': example(tokens, config.embed_dim)}, ('inside', 'query', 'key', 'value'))
        yield OnnxPart(f'after_{layer:02d}', AfterMemory(global_block),
                   {'inside': example(tokens, config.embed_dim),
                    'read': example(layout.heads, tokens, layout.head_dim)}, ('x',))
    patches = tokens - config.special_tokens
    levels = {f'layer_{layer:02d}': example(1, patches, 2 * config.embed_dim)
              for layer in config.dpt_head.intermediate_layer_idx}
    yield OnnxPart('depth_head', Dense(model.depth_head, False, height, width), levels,
               ('depth', 'confidence'))
    yield OnnxPart('point_head', Dense(model.point_head, True, height, width), levels,
               ('points', 'confidence'))


@torch.no_grad()
def export_parts(model: StreamVGGT, height: int, width: int, folder: str | Path) -> list[Path]:
    """
    Write every part as an ONNX file of fixed shapes, in fp32, and `parts.json` about them.

    Needs the packages onnx and onnxscript. Weights lie beside a file that has many. Raises
    ValueError if frames of this size cannot be cut into whole patches, or if the network was
    lowered to another precision: TensorRT does that itself.
    """
    if model.dtype != torch.float32:
        raise ValueError(f'export the network in fp32, not in {model.dtype}; the precision is '
                         'chosen when TensorRT builds an engine')
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    about: dict[str, Any] = {
        'height': height, 'width': width, 'config': model.config.to_dict(), 'parts': []}
    for part in parts(model, height, width):
        path = folder / f'{part.name}.onnx'
        part.module.eval()(*part.inputs.values())  # tables are made now, not while it is traced
        torch.onnx.export(
            part.module, tuple(part.inputs.values()), path, dynamo=True,
            opset_version=OPSET, input_names=list(part.inputs), output_names=list(part.outputs),
            external_data=True, verbose=False)
        written.append(path)
        about['parts'].append({'name': part.name, 'outputs': part.outputs, 'inputs': {
            name: list(tensor.shape) for name, tensor in part.inputs.items()}})
    (folder / 'parts.json').write_text(json.dumps(about, indent=1) + '\n')
    return written
