"""What only a GPU can confirm: graphs, streams and pinned memory; skipped where there is none."""

from dataclasses import replace

import pytest
import torch

from xsvggt_ros.engine.config import EngineConfig
from xsvggt_ros.engine.cuda_graph import CudaGraphs
from xsvggt_ros.engine.host_copy import BUFFERS, HostCopy
from xsvggt_ros.engine.stream_engine import StreamEngine
from xsvggt_ros.kv_cache.config import CacheConfig
from xsvggt_ros.mapping.point_cloud import CloudOptions, lay_out_cloud, pack_cloud
from xsvggt_ros.model.checkpoint import load_model
from xsvggt_ros.model.side_stream import side_by_side

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason='needs a CUDA GPU')
DEVICE = torch.device('cuda')
TOKENS = 5 + 6 * 8  # of a frame


def make_engine(**settings):
    cache = {'policy': 'frame_coverage', 'quantization': 'int4', 'max_tokens': 4 * TOKENS}
    cache |= {name: settings.pop(name) for name in list(settings) if name in cache}
    own = {name: settings.pop(name) for name in ('graphs', 'report') if name in settings}
    config = EngineConfig(CacheConfig(**cache), DEVICE, **settings)
    return StreamEngine(load_model('small').model, config, **own)


def frames(count):
    generator = torch.Generator().manual_seed(0)
    return [torch.randint(0, 256, (84, 112, 3), generator=generator, dtype=torch.uint8)
            for _ in range(count)]


@pytest.mark.parametrize('quantization', ['none', 'int4', 'int8'])
@pytest.mark.parametrize('policy', ['frame_coverage', 'xstream', 'value_aware'])
def test_replayed_frames_are_the_eager_ones(policy, quantization):
    lines = []
    settings = {'policy': policy, 'quantization': quantization}
    eager = make_engine(**settings)
    replayed = make_engine(graphs=CudaGraphs(DEVICE), report=lines.append, **settings)
    for index, frame in enumerate(frames(16)):
        expected, result = eager.step(frame), replayed.step(frame)
        for name in ('pose_encoding', 'depth', 'points'):
            torch.testing.assert_close(
                getattr(result, name), getattr(expected, name), rtol=1e-3, atol=1e-3,
                msg=lambda text, name=name, index=index: f'{name} of frame {index}: {text}')
    assert sum('replayed from a CUDA graph' in line for line in lines) == 2, lines


def test_replays_allocate_nothing_that_stays():
    engine = make_engine(graphs=CudaGraphs(DEVICE))
    memory = []
    for frame in frames(40):
        engine.step(frame)
        engine.finish_frame()
        torch.cuda.synchronize()
        memory.append((torch.cuda.memory_allocated(), torch.cuda.memory_reserved()))
    assert memory[-1] == memory[20]


def test_a_stream_can_begin_again_after_a_replay():
    engine = make_engine(graphs=CudaGraphs(DEVICE))
    first = [engine.step(frame).depth for frame in frames(12)]
    engine.reset()
    again = [engine.step(frame).depth for frame in frames(12)]
    for one, other in zip(first, again):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-3)


def test_a_wait_in_the_step_is_refused_and_served_eagerly():
    lines = []
    engine = make_engine(graphs=CudaGraphs(DEVICE), report=lines.append)
    engine._model.depth_head.register_forward_hook(
        lambda module, args, output: None if output.sum().item() else output)
    results = [engine.step(frame) for frame in frames(14)]
    assert any('dense heads, which stays eager' in line for line in lines), lines
    assert all(torch.isfinite(result.depth).all() for result in results)


def test_copies_to_the_host_are_whole():
    copies = HostCopy.of(DEVICE)
    pending = []
    for value in range(6):
        tensor = torch.full((1000, 1000), float(value), device=DEVICE)
        pending.append(copies.start({'map': tensor.clone}))
        del tensor  # its memory may be used again at once
        torch.full((1000, 1000), -1.0, device=DEVICE)
        if len(pending) == BUFFERS:
            for age, copy in enumerate(pending):
                result = copy['map']
                assert result.is_pinned()
                assert (result == value - BUFFERS + 1 + age).all()
            pending.clear()


def test_a_cloud_goes_to_the_host_without_waiting_for_the_device():
    result = make_engine().step(frames(1)[0])
    on_host = replace(result, **{name: value.cpu() for name, value in vars(result).items()
                                 if isinstance(value, torch.Tensor)})
    options, copies = CloudOptions(confidence_percentile=20.0), HostCopy.of(DEVICE)

    def start():
        rows, count = lay_out_cloud([result], [torch.eye(4)], options)
        return copies.start({'rows': lambda: rows, 'count': lambda: count})

    start()  # allocates, which may wait
    torch.cuda.set_sync_debug_mode('error')
    try:
        pending = start()
    finally:
        torch.cuda.set_sync_debug_mode('default')
    cloud = pending['rows'][:int(pending['count'])]
    torch.testing.assert_close(cloud, pack_cloud(on_host, options), rtol=1e-4, atol=1e-4)


def test_two_streams_give_what_one_gives():
    x = torch.randn(512, 512, device=DEVICE)
    for _ in range(20):
        first, second = side_by_side(lambda: x @ x, lambda: (x * 2) @ x, DEVICE)
        torch.testing.assert_close(second, 2 * first, rtol=1e-3, atol=1e-2)
