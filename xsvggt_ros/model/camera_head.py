"""The head that predicts where the camera is and how it sees."""

from functools import partial
from typing import Protocol

import torch
from torch import nn, Tensor
import torch.nn.functional as F

from xsvggt_ros.model.config import ModelConfig
from xsvggt_ros.model.fused import Linear
from xsvggt_ros.model.layers import Block, Mlp

POSE_CHANNELS = 9  # translation (3), quaternion xyzw (4), field of view of height and width (2)
ITERATIONS = 4  # each refines the pose of the one before


class AttentionMemory(Protocol):
    """What an attention stack of the stream remembers, one entry per step and layer."""

    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """Remember key and value, return attention over everything remembered and this step."""

    def end_step(self) -> None:
        """Close the step after all layers have attended."""


class CameraHead(nn.Module):
    """A small transformer over one token per frame, iterated."""

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
        self.iterations = ITERATIONS  # fewer are quicker and less exact

    @property
    def dtype(self) -> torch.dtype:
        """Return the precision of the matrix products."""
        return self.poseLN_modulation[1].dtype

    def forward(self, camera_token: Tensor, memory: AttentionMemory) -> Tensor:
        """
        Return the pose after each iteration [iterations, ..., 9] of a camera token [..., 1, dim].

        Every iteration is a step of `memory`: it sees all iterations of all earlier frames and the
        earlier ones of its own frame. The last row is the prediction.
        """
        token = self.token_norm(camera_token)
        normed = F.layer_norm(token, token.shape[-1:], eps=1e-6)
        pose = self.empty_pose_tokens[0]  # [1, 9]
        poses = []
        for iteration in range(self.iterations):
            modulation = self.poseLN_modulation(self.embed_pose(pose).to(self.dtype)).float()
            shift, scale, gate = modulation.chunk(3, dim=-1)
            x = torch.addcmul(token, gate, torch.addcmul(shift, normed, 1 + scale))
            for layer, block in enumerate(self.trunk):
                x = block(x, partial(memory.attend, layer))
            memory.end_step()
            change = self.pose_branch(self.trunk_norm(x))
            pose = change if iteration == 0 else pose + change
            poses.append(pose)
        return _activate(torch.stack(poses).squeeze(-2))


def _activate(pose: Tensor) -> Tensor:
    """Return raw poses [..., 9] with fields of view that are not negative (they may be zero)."""
    return torch.cat([pose[..., :7], F.relu(pose[..., 7:])], dim=-1)
