"""The head that predicts where the camera is and how it sees."""

from functools import partial
from typing import cast, Protocol

import torch
from torch import nn, Tensor
import torch.nn.functional as F

from xsvggt_ros.kernels import native
from xsvggt_ros.kernels.native_steps import CAMERA_LAYERS, CameraSteps, WeightTable
from xsvggt_ros.model.config import ModelConfig
from xsvggt_ros.model.fused import Linear
from xsvggt_ros.model.layers import Block, Mlp, residual_stream
from xsvggt_ros.model.tables import TableCache, version

POSE_CHANNELS = 9  # translation (3), quaternion xyzw (4), field of view of height and width (2)
ITERATIONS = 4  # each refines the pose of the one before


class AttentionMemory(Protocol):
    """What an attention stack of the stream remembers, one entry per step and layer."""

    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """Remember key and value, return attention over everything remembered and this step."""

    def end_step(self) -> None:
        """Close the step after all layers have attended."""


class CameraHead(nn.Module):
    """
    A small transformer over one token per frame, iterated.

    One token on a CPU takes a call between two attentions: the same numbers to rounding.
    """

    def __init__(self, config: ModelConfig) -> None:
        """Build the head that `config.camera_head` describes."""
        super().__init__()
        dim, head = 2 * config.embed_dim, config.camera_head
        self.trunk = nn.ModuleList(
            Block(dim, head.num_heads, head.mlp_ratio) for _ in range(head.trunk_depth))
        self.token_norm = nn.LayerNorm(dim, eps=1e-5)
        self.trunk_norm = nn.LayerNorm(dim, eps=1e-5)
        self.empty_pose_tokens = nn.Parameter(torch.zeros(1, 1, POSE_CHANNELS))
        self.embed_pose = Linear(POSE_CHANNELS, dim)
        self.poseLN_modulation = nn.Sequential(nn.SiLU(), Linear(dim, 3 * dim))
        self.pose_branch = Mlp(dim, dim // 2, POSE_CHANNELS)
        self._tables = TableCache(limit=1)
        self._weights = WeightTable(
            CAMERA_LAYERS, [('trunk', str(layer)) for layer in range(len(self.trunk))])
        self.iterations = ITERATIONS  # fewer are quicker and less exact

    @property
    def dtype(self) -> torch.dtype:
        """Return the precision of the matrix products."""
        return cast(Linear, self.poseLN_modulation[1]).dtype

    def forward(self, camera_token: Tensor, memory: AttentionMemory) -> Tensor:
        """
        Return the poses after each iteration [iterations, ..., 9] of camera tokens [..., dim].

        Every iteration is a step of `memory`: it sees all iterations of all earlier frames and the
        earlier ones of its own frame. The last row is the prediction. If the tokens' last axis but
        one is of one token, the poses have no such axis.
        """
        steps = self._steps(camera_token)
        if steps is not None:
            return self._walk(steps, memory)
        token = self.token_norm(residual_stream(camera_token, self.dtype))
        normed = F.layer_norm(token, token.shape[-1:], eps=1e-6)
        pose = self.empty_pose_tokens[0]  # [1, 9]
        poses = []
        for iteration in range(self.iterations):
            if iteration == 0:  # always of the same pose
                shift, scale, gate = self._first_modulation(token.dtype)
            else:
                shift, scale, gate = self._modulation(pose, token.dtype)
            x = torch.addcmul(token, gate, torch.addcmul(shift, normed, scale))
            for layer, block in enumerate(self.trunk):
                x = block(x, partial(memory.attend, layer))
            memory.end_step()
            change = self.pose_branch(self.trunk_norm(x.float()))
            pose = change if iteration == 0 else pose + change
            poses.append(pose)
        return _activate(torch.stack(poses).squeeze(-2))

    def _walk(self, steps: CameraSteps, memory: AttentionMemory) -> Tensor:
        """Return the poses [iterations, 9] of one token."""
        read, depth = None, len(self.trunk)
        for iteration in range(self.iterations):
            for layer in range(depth):
                read = memory.attend(layer, *steps.queries(iteration * depth + layer, read))
            memory.end_step()
        return steps.finish(cast(Tensor, read))

    def _steps(self, token: Tensor) -> CameraSteps | None:
        """Return the token's way through the C++ kernels, or None if they do not take it."""
        width = self.token_norm.normalized_shape[0]
        if token.shape not in ((width,), (1, width)) or not native.suits(token):
            return None
        blocks = cast(list[Block], list(self.trunk))
        known = all(block.is_folded for block in blocks)
        weights = self._weights.pointers(self, self.empty_pose_tokens) if known else None
        if weights is None:
            return None
        eps = [self.token_norm.eps, self.trunk_norm.eps]
        for block in blocks:
            eps += block.norm1.eps, block.norm2.eps
        widths = blocks[0].mlp.fc1.out_features, self.pose_branch.fc1.out_features
        return CameraSteps(token, blocks[0].attn.heads, widths, self.iterations, weights, eps)

    def _modulation(self, pose: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
        """Return what a pose adds to a token, multiplies it by, and weighs that with."""
        project = cast(Linear, self.poseLN_modulation[1])
        modulation = project(F.silu(self.embed_pose(pose).to(project.dtype)))
        shift, scale, gate = modulation.to(dtype).chunk(3, dim=-1)
        return shift, 1 + scale, gate

    def _first_modulation(self, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
        if torch.is_grad_enabled():
            return self._modulation(self.empty_pose_tokens[0], dtype)
        parts = self.embed_pose, self.poseLN_modulation
        weights = [weight for part in parts for weight in (*part.parameters(), *part.buffers())]
        key = dtype, *map(version, (self.empty_pose_tokens, *weights))
        return self._tables.get(key, lambda: self._modulation(self.empty_pose_tokens[0], dtype))


def _activate(pose: Tensor) -> Tensor:
    """Return raw poses [..., 9] with fields of view that are not negative (they may be zero)."""
    return torch.cat([pose[..., :7], F.relu(pose[..., 7:])], dim=-1)
