"""
Teaches global attention to find what a patch shows in earlier frames.

Trained for depths and poses alone, a small network's global blocks compare nothing: a patch gives
less attention to the place that it shows than to others (measured, see docs/evaluation.md), and
poses are guesses. Here depths and poses tell where each patch of a frame lies in an earlier one;
one head of some blocks is asked to attend there, and the patches to know how far they have moved.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn, Tensor

from training.clips import Clips
from training.losses import true_intrinsics
from xsvggt_ros.geometry.se3 import invert_transform

HEAD = 0
_LEAST_DEPTH = 0.05    # in front of a camera
_SAME_SURFACE = 0.1    # relative difference of depth up to which two patches show the same


@dataclass
class Matches:
    """Pairs of frames and where the later one's patches lie in the earlier one."""

    later: Tensor      # [N]
    earlier: Tensor    # [N]
    shares: Tensor     # [B, N, P, P] of the later one's patches (rows) in those of the earlier one
    known: Tensor      # [B, N, P] whether a patch of the later one is seen in the earlier one
    moved: Tensor      # [B, N, P, 2] to the right and down, from the later to the earlier, patches


def find_matches(clips: Clips, patch: int, generator: torch.Generator) -> Matches:
    """Return matches of each frame with the first, the one before and one drawn at random."""
    depth, device = clips.depth, clips.depth.device
    height, width = depth.shape[-2:]
    later = torch.arange(1, depth.shape[1])
    drawn = (torch.rand(len(later), generator=generator) * later).long()
    earlier = torch.cat([torch.zeros_like(later), later - 1, drawn]).to(device)
    later = later.repeat(3).to(device)
    middle = patch // 2
    rows, columns = (torch.arange(middle, side, patch, device=device) for side in (height, width))
    focal, centre = _lens(true_intrinsics(clips))
    far = depth[:, later][..., rows, :][..., columns].flatten(2)                  # [B, N, P]
    pixels = torch.stack(torch.meshgrid(columns, rows, indexing='xy'), -1).flatten(0, 1).to(depth)
    rays = (pixels - centre[:, later]) / focal[:, later]                          # [B, N, P, 2]
    points = torch.cat([rays, torch.ones_like(rays[..., :1])], -1) * far[..., None]
    earlier_from_later = clips.camera_from_first[:, earlier] @ invert_transform(
        clips.camera_from_first[:, later])
    points = points @ earlier_from_later[..., :3, :3].transpose(-1, -2)
    points = points + earlier_from_later[..., None, :3, 3]
    away = points[..., 2].clamp_min(_LEAST_DEPTH)
    seen = points[..., :2] / away[..., None] * focal[:, earlier] + centre[:, earlier]
    limit = seen.new_tensor((width - 1, height - 1))
    nearest = seen.round().long().clamp(min=0).minimum(limit.long())
    batch = torch.arange(len(depth), device=device)[:, None, None]
    surface = depth[batch, earlier[None, :, None], nearest[..., 1], nearest[..., 0]]
    known = ((points[..., 2] > _LEAST_DEPTH) & ((seen >= 0) & (seen <= limit)).all(-1)
             & ((surface - away).abs() < _SAME_SURFACE * away))
    across, down = (_between(seen[..., axis], patch, len(steps))
                    for axis, steps in ((0, columns), (1, rows)))
    shares = (down[..., :, None] * across[..., None, :]).flatten(-2)
    moved = (seen - pixels) / patch
    return Matches(later, earlier, shares, known, moved)


def _lens(intrinsics: Tensor) -> tuple[Tensor, Tensor]:
    """Return focal lengths and principal points (x, y), both [B, S, 1, 2]."""
    focal = torch.stack([intrinsics[..., 0, 0], intrinsics[..., 1, 1]], -1)
    return focal[..., None, :], intrinsics[..., None, :2, 2]


def _between(pixel: Tensor, patch: int, count: int) -> Tensor:
    """Return the shares [..., count] of patches along an axis: of the two about a pixel."""
    place = ((pixel - patch // 2) / patch).clamp(0, count - 1)
    steps = torch.arange(count, device=pixel.device)
    return (1 - (place[..., None] - steps).abs()).clamp_min(0)


def matching_blocks(depth: int) -> range:
    """Return which of `depth` global blocks are asked: those in the middle."""
    return range(depth // 3, max(depth - 1, depth // 3 + 1))


class MatchLoss:
    """Watches `predict_clips`; its `value` is what matches cost."""

    def __init__(self, matches: Matches, special_tokens: int, blocks: Sequence[int]) -> None:
        """Ask `blocks`, whose frames have so many tokens before the patches, for `matches`."""
        self._matches, self._special, self._blocks = matches, special_tokens, blocks
        self._costs: list[Tensor] = []

    def __call__(self, block: int, query: Tensor, key: Tensor) -> None:
        """Take the queries and keys [B, heads, S, tokens, head_dim] of a global block."""
        if block not in self._blocks:
            return
        found = self._matches
        asked = query[:, HEAD, found.later, self._special:].float()
        given = key[:, HEAD, found.earlier, self._special:].float()
        scores = asked @ given.transpose(-1, -2) * query.shape[-1] ** -0.5
        cost = -(found.shares * scores.log_softmax(-1)).sum(-1)
        self._costs.append((cost * found.known).sum() / found.known.sum().clamp_min(1))

    def value(self) -> Tensor:
        """Return the mean cross-entropy, [] nats."""
        return torch.stack(self._costs).mean()


class Readout(nn.Module):
    """Reads from patches where they were in the first frame and in the one before; not shipped."""

    def __init__(self, width: int) -> None:
        """Begin with no motion."""
        super().__init__()
        heads = [nn.Linear(width, 2) for _ in range(2)]
        for head in heads:
            nn.init.zeros_(head.weight)
            nn.init.zeros_(head.bias)
        self.heads = nn.ModuleList(heads)

    def forward(self, tokens: Tensor, matches: Matches) -> Tensor:
        """Return how far it is off for tokens [B, S, P, width], [] patches."""
        tokens = tokens.float()
        number = tokens.shape[1] - 1
        costs = []
        for part, head in enumerate(self.heads):
            rows = slice(part * number, (part + 1) * number)
            off = (head(tokens[:, 1:]) - matches.moved[:, rows]).abs().sum(-1)
            known = matches.known[:, rows]
            costs.append((off * known).sum() / known.sum().clamp_min(1))
        return torch.stack(costs).mean()
