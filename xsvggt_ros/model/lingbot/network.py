"""
LingBot-Map (Robbyant, 2026), one frame at a time; the first frames may come together.

Written from facts about the public implementation, to give the same numbers. What differs from
StreamVGGT: a sixth special token, which tells whether a frame is one of the first ones; positions
in time; one memory per iteration of the camera head; no point head; frames that are not to be
remembered leave nothing in the camera head either. The number of a frame is how many frames were
remembered before it, so the memory alone says where a stream stands.
"""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor

from xsvggt_ros.kv_cache.config import CacheLayout
from xsvggt_ros.model.camera_head import AttentionMemory, CameraHead
from xsvggt_ros.model.dpt_head import DPTHead
from xsvggt_ros.model.lingbot.aggregator import LingBotAggregator
from xsvggt_ros.model.lingbot.config import LingBotConfig, MAX_KEYFRAMES, TRAINED_KEYFRAMES
from xsvggt_ros.model.lingbot.memory import FirstCall, PerIteration
from xsvggt_ros.model.network import (
    FramePrediction,
    Run,
    run_plainly,
    StreamLayout,
    StreamMemory,
    StreamNetwork,
)
from xsvggt_ros.model.side_stream import side_by_side


class LingBotMap(StreamNetwork):
    """LingBot-Map, with the module names of the public checkpoint."""

    config: LingBotConfig
    aggregator: LingBotAggregator

    def __init__(self, config: LingBotConfig) -> None:
        """Build the network; its weights are meaningless until some are loaded."""
        super().__init__()
        self.config = config
        self.aggregator = LingBotAggregator(config)
        self.camera_head = CameraHead(config)
        self.depth_head = DPTHead(config, channels=2)
        # How many frames get the first scale token. Published results have 8, seen together in
        # `first_frames`; with one the first frame has a pose at once.
        self.scale_frames = 1

    def cache_layout(self, height: int, width: int) -> StreamLayout:
        """Return the shapes of the memory for frames of height x width pixels."""
        camera = self.config.camera_head
        return StreamLayout(
            tokens=replace(self._token_layout(height, width), first_steps=self.scale_frames),
            camera=CacheLayout(
                layers=camera.trunk_depth * self.camera_head.iterations, heads=camera.num_heads,
                head_dim=2 * self.config.embed_dim // camera.num_heads,
                tokens_per_step=1, special_tokens=1),
            max_steps=MAX_KEYFRAMES, trained_steps=TRAINED_KEYFRAMES, camera_follows=True)

    def join_first_frames(self, count: int) -> None:
        """Have streams begin with so many scale frames, which see each other."""
        self.scale_frames = count

    def beginning(self) -> str:
        """Return how a stream begins, for a person."""
        if self.scale_frames == 1:
            return 'one scale frame: poses from the first image on'
        return (f'{self.scale_frames} scale frames: poses begin with image {self.scale_frames}, '
                'for all images before it, too')

    def first_frame(
        self, image: Tensor, memory: StreamMemory, points: bool = True,
    ) -> FramePrediction:
        """Start a stream with `image` [3, H, W], RGB in [0, 1]; `memory` must be empty."""
        return self.step(image, memory, points)

    @torch.no_grad()
    def first_frames(self, images: Tensor, memory: StreamMemory) -> list[FramePrediction]:
        """
        Start a stream with images [S, 3, H, W] that all see each other; `memory` must be empty.

        As `step` it leaves the end of the last frame's step in `memory.tokens` to the caller.
        """
        for image in images:
            self._check_image(image)
        frames, _, height, width = images.shape
        tokens, camera = FirstCall(), FirstCall()
        camera_tokens, *patches = self._backbone(
            tokens, None, images, *self._begin(0, frames))
        maps = [self._depth_maps(height, width, *(level[frame, None] for level in patches))
                for frame in range(frames)]
        poses = self._poses(camera_tokens, camera)
        tokens.store(memory.tokens, frames, open_end=True)
        camera.store(memory.camera, frames, open_end=False)
        return [_prediction(pose, one) for pose, one in zip(poses, maps)]

    @torch.no_grad()
    def step(
        self, image: Tensor, memory: StreamMemory, points: bool = True, run: Run = run_plainly,
        stream_size: tuple[int, int] | None = None,
    ) -> FramePrediction:
        """
        Go on with `image` [3, H, W], RGB in [0, 1], of the size of the first frame.

        Asks `memory.tokens` to attend once per global block and leaves its `end_step` to the
        caller; `memory.camera` ends one step. There is no head for ``points``. `run` runs the
        parts that change nothing in Python: the backbone and the depth head. An image may be
        smaller than the others, whose height and width `stream_size` then tells, if `memory`
        takes its tokens.
        """
        self._check_image(image)
        height, width = image.shape[-2:]
        camera_token, *patches = run(
            'backbone', partial(self._backbone, memory.tokens, stream_size), image[None],
            *self._begin(memory.tokens.steps, 1))
        maps, poses = side_by_side(
            lambda: run('depth head', partial(self._depth_maps, height, width), *patches),
            lambda: self._poses(camera_token, memory.camera), image.device)
        return _prediction(poses[0], maps)

    def _begin(self, first: int, count: int) -> tuple[Tensor, Tensor]:
        """Return special tokens and times of ``count`` frames from number ``first`` on."""
        return (self.aggregator.special(first, count, self.scale_frames),
                self.aggregator.time(first, count))

    def _backbone(
        self, tokens: AttentionMemory, stream_size: tuple[int, int] | None, images: Tensor,
        special: Tensor, time: Tensor,
    ) -> tuple[Tensor, ...]:
        """Return camera tokens [S, 2 dim] and four layers' patches [S, patches, 2 dim]."""
        wanted = self.config.dpt_head.intermediate_layer_idx
        aggregated = self.aggregator(images, tokens.attend, special, time, wanted, stream_size)
        return (aggregated.camera_token,
                *(aggregated.layers[layer][:, self.config.special_tokens:] for layer in wanted))

    def _poses(self, camera_tokens: Tensor, memory: AttentionMemory) -> Tensor:
        """Return the encoding [S, 9] of camera_from_world of camera tokens [S, 2 dim]."""
        head = self.camera_head
        poses = head(camera_tokens, PerIteration(memory, len(head.trunk), head.iterations))
        return camera_from_world(poses[-1].reshape(-1, poses.shape[-1]))


def camera_from_world(encoding: Tensor) -> Tensor:
    """
    Return the encoding [..., 9] of the inverse pose; the fields of view stay.

    LingBot-Map says world_from_camera, whose translation is the camera's centre. The length of the
    quaternion, which need not be 1, stays as well.
    """
    centre, axis, rest = encoding[..., :3], -encoding[..., 3:6], encoding[..., 6:]
    squared = encoding[..., 3:7].square().sum(-1, keepdim=True)
    # Rodrigues' formula for the conjugate: R c = c + 2 (w (a x c) + a x (a x c)) / |q|^2.
    turned = torch.linalg.cross(axis, centre)
    change = torch.addcmul(torch.linalg.cross(axis, turned), rest[..., :1], turned)
    tiny = torch.finfo(squared.dtype).tiny
    rotated = torch.addcdiv(centre, change, squared.clamp_min(tiny), value=2)
    return torch.cat([-rotated, axis, rest], dim=-1)


def _prediction(pose: Tensor, maps: Sequence[Tensor]) -> FramePrediction:
    depth, confidence = maps
    return FramePrediction(pose_encoding=pose, depth=depth, depth_confidence=confidence,
                           points=None, points_confidence=None)
