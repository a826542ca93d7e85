"""The camera head of LingBot-Map, on a CPU in few calls."""

from typing import cast

from torch import Tensor

from xsvggt_ros.kernels import native
from xsvggt_ros.kernels.native_steps import CAMERA_LAYERS, CameraSteps, WeightTable
from xsvggt_ros.model.camera_head import AttentionMemory, CameraHead
from xsvggt_ros.model.config import ModelConfig
from xsvggt_ros.model.layers import Block


class LingBotCameraHead(CameraHead):
    """
    The camera head, for tokens [S, dim] of S frames.

    One token on a CPU takes a call between two attentions: the same numbers to rounding.
    """

    def __init__(self, config: ModelConfig) -> None:
        """Build the head that `config.camera_head` describes."""
        super().__init__(config)
        self._weights = WeightTable(
            CAMERA_LAYERS, [('trunk', str(layer)) for layer in range(len(self.trunk))])

    def forward(self, camera_token: Tensor, memory: AttentionMemory) -> Tensor:
        """Return the poses [iterations, S, 9], of one token [iterations, 9]; see `CameraHead`."""
        steps = self._steps(camera_token)
        if steps is None:
            return super().forward(camera_token, memory)
        read, depth = None, len(self.trunk)
        for iteration in range(self.iterations):
            for layer in range(depth):
                qkv = steps.queries(iteration * depth + layer, read)
                read = memory.attend(layer, *qkv)
            memory.end_step()
        return steps.finish(cast(Tensor, read))

    def _steps(self, token: Tensor) -> CameraSteps | None:
        """Return the token's way through the C++ kernels, or None if they do not take it."""
        blocks, dim = cast(list[Block], list(self.trunk)), self.token_norm.normalized_shape[0]
        if token.numel() != dim or not native.suits(token) or not all(
                block.is_folded for block in blocks):
            return None
        weights = self._weights.pointers(self, self.empty_pose_tokens)
        if weights is None:
            return None
        eps = [self.token_norm.eps, self.trunk_norm.eps]
        for block in blocks:
            eps += block.norm1.eps, block.norm2.eps
        widths = blocks[0].mlp.fc1.out_features, self.pose_branch.fc1.out_features
        return CameraSteps(token, blocks[0].attn.heads, widths, self.iterations, weights, eps)
