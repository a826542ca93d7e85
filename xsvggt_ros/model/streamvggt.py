"""StreamVGGT, one frame at a time. It holds no stream: the caller brings the memory."""

from functools import partial

import torch
from torch import Tensor

from xsvggt_ros.kv_cache.config import CacheLayout
from xsvggt_ros.model.aggregator import Aggregator
from xsvggt_ros.model.camera_head import AttentionMemory, CameraHead
from xsvggt_ros.model.config import ModelConfig
from xsvggt_ros.model.dpt_head import DPTHead
from xsvggt_ros.model.network import (
    FramePrediction,
    point_map,
    Run,
    run_plainly,
    StreamLayout,
    StreamMemory,
    StreamNetwork,
)
from xsvggt_ros.model.side_stream import side_by_side


class StreamVGGT(StreamNetwork):
    """StreamVGGT, with the module names of the public checkpoint."""

    def __init__(self, config: ModelConfig) -> None:
        """Build the network; its weights are meaningless until some are loaded."""
        super().__init__()
        self.config = config
        self.aggregator = Aggregator(config)
        self.camera_head = CameraHead(config)
        self.point_head = DPTHead(config, channels=4)
        self.depth_head = DPTHead(config, channels=2)

    def dense_heads(self) -> list[DPTHead]:
        """Return the heads that predict maps."""
        return [self.depth_head, self.point_head]

    def cache_layout(self, height: int, width: int) -> StreamLayout:
        """Return the shapes of the memory for frames of height x width pixels."""
        camera = self.config.camera_head
        return StreamLayout(
            tokens=self._token_layout(height, width),
            camera=CacheLayout(layers=camera.trunk_depth, heads=camera.num_heads,
                               head_dim=2 * self.config.embed_dim // camera.num_heads,
                               tokens_per_step=1, special_tokens=1))

    def first_frame(
        self, image: Tensor, memory: StreamMemory, points: bool = True,
    ) -> FramePrediction:
        """Start a stream with `image` [3, H, W], RGB in [0, 1]; `memory` must be empty."""
        return self._predict(image, memory, points, first_frame=True)

    def step(
        self, image: Tensor, memory: StreamMemory, points: bool = True, run: Run = run_plainly,
        stream_size: tuple[int, int] | None = None,
    ) -> FramePrediction:
        """
        Go on with `image` [3, H, W], RGB in [0, 1], of the size of the first frame.

        Asks `memory.tokens` to attend once per global block and leaves its `end_step` to the
        caller; `memory.camera` ends four steps. The camera head comes last, so that it is
        untouched when a dense head has run out of memory. Without `points` the point head, on
        which nothing else depends, does not run. `run` runs the parts that change nothing in
        Python: the backbone and the dense heads. An image may be smaller than the others, whose
        height and width `stream_size` then tells, if `memory` takes its tokens.
        """
        return self._predict(image, memory, points, False, run, stream_size)

    @torch.no_grad()
    def _predict(
        self, image: Tensor, memory: StreamMemory, wants_points: bool, first_frame: bool,
        run: Run = run_plainly, stream_size: tuple[int, int] | None = None,
    ) -> FramePrediction:
        """Return the prediction for one frame."""
        self._check_image(image)
        height, width = image.shape[-2:]
        camera_token, *patches = run(
            'backbone', partial(self._backbone, memory.tokens, first_frame, stream_size), image)
        # Two names, because a part that was captured under one does the same for ever.
        name, heads = (('dense heads', self._dense_maps) if wants_points
                       else ('depth head', self._depth_maps))
        maps, poses = side_by_side(
            lambda: run(name, partial(heads, height, width), *patches),
            lambda: self.camera_head(camera_token, memory.camera), image.device)  # poses: [4, 9]
        depth, depth_confidence, *rest = maps
        points, points_confidence = rest if wants_points else (None, None)
        return FramePrediction(pose_encoding=poses[-1], depth=depth,
                               depth_confidence=depth_confidence, points=points,
                               points_confidence=points_confidence)

    def _backbone(
        self, tokens: AttentionMemory, first_frame: bool, stream_size: tuple[int, int] | None,
        image: Tensor,
    ) -> tuple[Tensor, ...]:
        """Return the camera token [1, 2 dim] and four layers' patches [1, patches, 2 dim]."""
        wanted = self.config.dpt_head.intermediate_layer_idx
        aggregated = self.aggregator(image, tokens.attend, first_frame, wanted, stream_size)
        special = self.config.special_tokens
        return (aggregated.camera_token,
                *(aggregated.layers[layer][None, special:] for layer in wanted))

    def _dense_maps(self, height: int, width: int, *patches: Tensor) -> tuple[Tensor, ...]:
        """Return depth, its confidence, points and theirs."""
        return (*self._depth_maps(height, width, *patches),
                *point_map(self.point_head(patches, height, width)[0]))
