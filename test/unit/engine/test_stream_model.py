"""What the engine asks of a network is what `StreamModel` says: another one can take its place."""

import inspect

import numpy as np
import pytest
import torch

from xsvggt_ros.engine.config import EngineConfig
from xsvggt_ros.engine.cuda_graph import CapturedCall
from xsvggt_ros.engine.stream_engine import StreamEngine
from xsvggt_ros.engine.stream_model import StreamModel
from xsvggt_ros.kv_cache.config import CacheConfig, CacheLayout
from xsvggt_ros.model.network import FramePrediction, run_plainly, StreamLayout
from xsvggt_ros.model.streamvggt import StreamVGGT

TOKENS = 8


class MeanColour:
    """A network of another kind: depth is the mean colour of all frames that it remembers."""

    patch_size = 4

    def __init__(self):
        self.asked = []

    def set_dtype(self, dtype, heads):
        self.asked.append((dtype, heads))

    def set_kernels(self, choice):
        self.asked.append(choice)
        return 'portable'

    def to(self, device):
        return self

    def join_first_frames(self, count):
        if count > 1:
            raise ValueError('first_frames: one after the other')

    def cache_layout(self, height, width):
        return StreamLayout(CacheLayout(2, 1, 4, TOKENS, 1), CacheLayout(1, 1, 4, 1, 1))

    def first_frame(self, image, memory, points=True):
        return self.step(image, memory, points)

    def step(self, image, memory, points=True, run=run_plainly, stream_size=None):
        def backbone(image):
            for layer in range(2):
                value = image.mean().expand(1, TOKENS, 4).contiguous()
                read = memory.tokens.attend(layer, torch.zeros_like(value), value, value)
            return (read.mean().expand(image.shape[-2:]).contiguous(),)

        depth, = run('backbone', backbone, image)
        for _ in range(4):
            token = depth.mean().expand(1, 1, 4).contiguous()
            memory.camera.attend(0, token, token, token)
            memory.camera.end_step()
        pose = torch.tensor([0, 0, 0, 0, 0, 0, 1, 1, 1.0])
        maps = torch.zeros(*depth.shape, 3) if points else None
        return FramePrediction(pose, depth, depth + 1, maps, depth + 1 if points else None)


def grey(level):
    return np.full((8, 8, 3), level, np.uint8)


@pytest.mark.parametrize('quantization', ['none', 'int8'])
def test_another_network_takes_its_place(quantization):
    model = MeanColour()
    engine = StreamEngine(model, EngineConfig(
        CacheConfig(policy='full', max_tokens=None, quantization=quantization), kernels='auto'))
    assert model.asked == [(torch.float32, torch.float32), 'auto']
    levels = (0, 51, 102, 255)
    for number, level in enumerate(levels):
        result = engine.step(grey(level))
        engine.accept([result])
        mean = np.mean(levels[:number + 1]) / 255
        assert result.depth.numpy() == pytest.approx(mean, abs=5e-3)
    engine.discard_frame()
    result = engine.step(grey(102), remember=False)
    assert result.depth.mean().item() == pytest.approx(np.mean((0, 51, 102, 102)) / 255, abs=5e-3)
    assert engine.cache_stats().tokens_per_layer == (3 * TOKENS,) * 2


def test_its_parts_are_replayed_as_those_of_any():
    class Again:
        def warm(self, call):
            return call()

        def capture(self, call):
            outputs = call()

            def replay():
                for kept, new in zip(outputs, call()):
                    kept.copy_(new)
            return CapturedCall(replay, outputs)

    config = EngineConfig(CacheConfig(policy='sliding_window', max_tokens=3 * TOKENS))
    lines = []
    plain = StreamEngine(MeanColour(), config)
    replayed = StreamEngine(MeanColour(), config, Again(), lines.append)
    for number in range(12):
        depths = [engine.step(grey(20 * number)).depth.clone() for engine in (plain, replayed)]
        assert torch.equal(*depths)
    assert 'replayed' in lines[0]


@pytest.mark.parametrize('name', ['set_dtype', 'set_kernels', 'cache_layout', 'first_frame',
                                  'join_first_frames', 'first_frames', 'step'])
def test_the_network_itself_is_one(name):
    wanted, there = (inspect.signature(getattr(kind, name)).parameters
                     for kind in (StreamModel, StreamVGGT))
    assert list(wanted) == list(there)
    assert 'patch_size' in dir(StreamVGGT) and 'to' in dir(StreamVGGT)
