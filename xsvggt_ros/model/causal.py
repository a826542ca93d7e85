"""
The network over whole clips at once, as training wants it; it computes what streaming computes.

Frames attend to themselves and to earlier frames (frame-causal mask) in the global blocks. The
camera head goes frame by frame here too: a frame's first iteration sees the last one of the frame
before.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor
import torch.nn.functional as F

from xsvggt_ros.model.layers import Attend, self_attention
from xsvggt_ros.model.network import depth_map, point_map
from xsvggt_ros.model.streamvggt import StreamVGGT

_PARTS = 4   # of a clip, in which a CPU attends to its past
# Of keys [B, heads, S, tokens of a frame, head_dim]: which frames each frame sees [B, S, S].
Visible = Callable[[Tensor], Tensor]
# Told a global block's number, queries and keys, both [B, heads, S, tokens of a frame, head_dim].
Watch = Callable[[int, Tensor, Tensor], None]


@dataclass
class ClipPrediction:
    """What the network says about a batch of clips; K frames of each have dense maps."""

    poses: Tensor  # [4, B, S, 9] after each iteration of the camera head, as `pose_encoding`
    depth: Tensor  # [B, K, H, W]
    depth_confidence: Tensor  # [B, K, H, W]
    points: Tensor  # [B, K, H, W, 3] in the frame of the clip's first camera
    points_confidence: Tensor  # [B, K, H, W]
    camera_tokens: list[Tensor]  # [B, S, 2 dim] of the layers that the dense heads read
    patch_tokens: Tensor  # [B, S, P, 2 dim] of the last of those layers but one


def predict_clips(model: StreamVGGT, images: Tensor,
                  dense_frames: Sequence[int] | None = None,
                  visible: Visible | None = None,
                  watch: Watch | None = None) -> ClipPrediction:
    """
    Return what `model` would say of the clips `images` [B, S, 3, H, W], RGB in [0, 1].

    Dense maps are computed for `dense_frames` of each clip only (default: all). The camera head
    runs without autocast: poses do not fit into bf16. `visible` is asked once a global block
    which frames each frame may see, as a cache that forgets would let it; without it, all earlier
    ones and itself. `watch` is told what each global block compares.
    """
    config = model.config
    layers, camera_tokens = _aggregate(model, images, visible, watch)
    chosen = list(range(images.shape[1])) if dense_frames is None else list(dense_frames)
    patches = [layers[layer][:, chosen, config.special_tokens:].flatten(0, 1)
               for layer in config.dpt_head.intermediate_layer_idx]
    shape = (len(images), len(chosen))
    height, width = images.shape[-2:]
    depth, points = (head(patches, height, width).float().unflatten(0, shape)
                     for head in (model.depth_head, model.point_head))
    with torch.autocast(images.device.type, enabled=False):
        memory = _ClipMemory()
        tokens = camera_tokens.float().split(1, dim=1)  # S times [B, 1, 2 dim]
        poses = torch.stack([model.camera_head(token, memory) for token in tokens], dim=2)
    return ClipPrediction(poses, *depth_map(depth), *point_map(points),
                          [layer[:, :, 0] for layer in layers.values()],
                          list(layers.values())[-2][:, :, config.special_tokens:])


def _aggregate(model: StreamVGGT, images: Tensor, visible: Visible | None,
               watch: Watch | None) -> tuple[dict[int, Tensor], Tensor]:
    """Return the wanted layers' tokens [B, S, P, 2 dim] and the camera tokens [B, S, 2 dim]."""
    aggregator, config = model.aggregator, model.config
    batch, frames = images.shape[:2]
    tables = aggregator.frame_tables(*images.shape[-2:])
    patches = aggregator.patch_embed(tables.normalise(images))
    special = torch.cat([aggregator.camera_token[0], aggregator.register_token[0]], dim=1)
    index = [0] + [1] * (frames - 1)
    x = torch.cat([special[index].expand(batch, -1, -1, -1), patches], dim=2)  # [B, S, P, dim]
    rope = tuple(part.repeat(frames, 1) for part in tables.rope)
    attend: Attend
    if visible is None:
        attend = partial(_attend_earlier, mask=_causal_mask(frames, x.shape[2], x), frames=frames)
    else:
        attend = partial(_attend_visible, visible=visible, frames=frames)
    kept = {}
    for layer, (frame_block, global_block) in enumerate(
            zip(aggregator.frame_blocks, aggregator.global_blocks)):
        frame_out = frame_block(x.flatten(0, 1), _attend, tables.rope)
        frame_out = frame_out.unflatten(0, (batch, frames))
        seen = attend if watch is None else partial(
            _attend_watched, attend=attend, watch=partial(watch, layer), frames=frames)
        x = global_block(frame_out.flatten(1, 2), seen, rope).unflatten(1, (frames, -1))
        if layer in config.dpt_head.intermediate_layer_idx:
            kept[layer] = torch.cat([frame_out, x], dim=-1)
    return kept, torch.cat([frame_out[:, :, 0], x[:, :, 0]], dim=-1)


def _causal_mask(frames: int, tokens: int, like: Tensor) -> Tensor:
    """Return which of frames * tokens queries (rows) may see which keys."""
    frame_of = torch.arange(frames, device=like.device).repeat_interleave(tokens)
    return frame_of[:, None] >= frame_of[None, :]


def _attend_earlier(query: Tensor, key: Tensor, value: Tensor, mask: Tensor,
                    frames: int) -> Tensor:
    """Return attention where `mask` allows it, which is never to later frames."""
    if query.device.type != 'cpu' or frames < 2 * _PARTS:
        return _attend(query, key, value, mask)
    # Part by part, each with the keys up to its end only: three eighths less to compute.
    ends = [query.shape[2] // frames * (frames * part // _PARTS) for part in range(_PARTS + 1)]
    return torch.cat([
        _attend(query[:, :, start:end], key[:, :, :end], value[:, :, :end],
                mask[..., start:end, :end]) for start, end in zip(ends, ends[1:])], dim=2)


def _attend(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None = None) -> Tensor:
    """Return attention of [B, heads, tokens, head_dim], where `mask` allows it."""
    if query.device.type != 'cpu':
        return F.scaled_dot_product_attention(query, key, value, attn_mask=mask)
    # On a CPU the fused kernel's gradient in bf16 takes five times as long as this.
    with torch.autocast('cpu', enabled=False):
        query, key, value = query.float(), key.float(), value.float()
        scores = query @ key.transpose(-1, -2) * query.shape[-1] ** -0.5
        if mask is not None:
            scores = scores.masked_fill(~mask, -torch.inf)
        return scores.softmax(dim=-1) @ value


def _attend_visible(query: Tensor, key: Tensor, value: Tensor, visible: Visible,
                    frames: int) -> Tensor:
    """Return attention to the tokens of the frames that `visible` lets each frame see."""
    tokens = key.shape[2] // frames
    seen = visible(key.detach().unflatten(2, (frames, tokens)))
    mask = seen.repeat_interleave(tokens, 1).repeat_interleave(tokens, 2)
    return _attend_earlier(query, key, value, mask[:, None], frames)


def _attend_watched(query: Tensor, key: Tensor, value: Tensor, attend: Attend,
                    watch: Callable[[Tensor, Tensor], None], frames: int) -> Tensor:
    """Return what `attend` does, after `watch` was shown the frames' queries and keys."""
    watch(*(part.unflatten(2, (frames, -1)) for part in (query, key)))
    return attend(query, key, value)


class _ClipMemory:
    """All keys and values of the camera head's steps so far, with their gradients."""

    def __init__(self) -> None:
        self._steps: dict[int, list[tuple[Tensor, Tensor]]] = {}

    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """Remember key and value; return attention over everything remembered."""
        steps = self._steps.setdefault(layer, [])
        steps.append((key, value))
        keys, values = (torch.cat(parts, dim=-2) for parts in zip(*steps))
        return self_attention(query, keys, values)

    def end_step(self) -> None:
        """Nothing is ever forgotten here."""
