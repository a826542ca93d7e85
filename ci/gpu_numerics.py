"""What `gpu_parts.py` compares: the network with golden data and the CPU, kernels with PyTorch."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import golden_data
import torch
from torch import Tensor

from xsvggt_ros.bench.cache_timing import Clock
from xsvggt_ros.bench.frame_bench import summary
from xsvggt_ros.engine.config import EngineConfig
from xsvggt_ros.engine.stream_engine import StreamEngine
from xsvggt_ros.kernels.packing import TokenLayer
from xsvggt_ros.kv_cache.config import CacheConfig
from xsvggt_ros.model.config import ModelConfig
from xsvggt_ros.model.layers import Attention
from xsvggt_ros.model.positions import apply_rope, grid_rotary_table
from xsvggt_ros.model.streamvggt import StreamVGGT
from xsvggt_ros.model.weight_quantization import Int8Linear

SPECIAL, HEAD_DIM = 5, 64
# Of the full network: heads, patches of a frame (rows, columns), remembered tokens.
KERNEL_SIZES = {'224x168': (16, (12, 16), 2048), '518x392': (16, (28, 37), 7300)}
TINY_SIZES = {'56x42': (2, (3, 4), 68)}
# Of relative RMS differences: of 4-bit numbers one in a thousand may round to its neighbour.
TOLERANCES = {torch.float32: 5e-3, torch.bfloat16: 3e-2}
TIMES, CALLS = 20, 10     # a time is the mean of so many calls


# The network against golden data and the CPU -----------------------------------------------------


def golden_modes(names: Sequence[str]) -> Iterator[tuple[golden_data.GoldenCase, str]]:
    """Return the cases and their modes, but those whose kept sets hang on the last digits."""
    for name in names:
        case = golden_data.load_case(name)
        for mode, spec in case.modes.items():
            if not spec.get('quant'):
                yield case, mode


def compare_with_cpu(
    case: golden_data.GoldenCase, mode: str, device: torch.device,
) -> dict[str, Any]:
    """
    Return how far a stream on the device is from golden data and from one on the CPU in fp32.

    Excesses are in units of the tolerance of the golden data, once without TF32 and once as
    PyTorch has it; differences in bf16 are relative, of depth, medians.
    """
    by_cpu, kept_by_cpu = follow(case, mode, torch.device('cpu'), torch.float32)
    with tensor_float(False):
        exact, kept = follow(case, mode, device, torch.float32)
    usual, _ = follow(case, mode, device, torch.float32)
    rounded, _ = follow(case, mode, device, torch.bfloat16)
    stride = case.modes[mode]['dense_stride']
    found = [golden_data.excess(value[::stride, ::stride] if value.dim() > 1 else value,
                                case.tensors[f'{mode}/{key}'][index])
             for index, frame in enumerate(exact) for key, value in frame.items()
             if f'{mode}/{key}' in case.tensors]

    def excess(frames: list[dict[str, Tensor]]) -> float:
        return max(golden_data.excess(frame[key], other[key])
                   for frame, other in zip(frames, by_cpu) for key in frame)

    off = torch.stack([(frame['depth'] / other['depth'] - 1).abs().median()
                       for frame, other in zip(rounded, by_cpu)])
    return {'case': case.name, 'mode': mode, 'frames': len(exact),
            'excess_over_golden': max(found), 'excess_over_cpu': excess(exact),
            'excess_over_cpu_as_usual': excess(usual), 'kept_as_on_cpu': kept == kept_by_cpu,
            'depth_difference_bf16': float(off.max())}


@contextmanager
def tensor_float(wanted: bool) -> Iterator[None]:
    """Let convolutions and products of fp32 numbers round to TF32, or not."""
    switches = torch.backends.cudnn, torch.backends.cuda.matmul
    before = [switch.allow_tf32 for switch in switches]
    for switch in switches:
        switch.allow_tf32 = wanted
    try:
        yield
    finally:
        for switch, value in zip(switches, before):
            switch.allow_tf32 = value


def follow(
    case: golden_data.GoldenCase, mode: str, device: torch.device, dtype: torch.dtype,
) -> tuple[list[dict[str, Tensor]], list[Any]]:
    """Return outputs under their golden names, on the CPU, and kept tokens, frame by frame."""
    spec = case.modes[mode]
    budget = spec.get('cache_size')
    model = StreamVGGT(ModelConfig.from_dict(case.config))
    model.load_state_dict(case.weights)
    engine = StreamEngine(model, EngineConfig(CacheConfig(
        policy='full' if budget is None else 'xstream', max_tokens=budget,
        pool_size=spec.get('pool_size', 16), camera_max_tokens=budget), device, dtype))
    frames, kept = [], []
    for index in range(len(case.frames)):
        result = engine.step(case.rgb(index))
        frames.append({name: value.float().cpu() for name, value in (
            ('pose_enc', result.pose_encoding), ('depth', result.depth),
            ('depth_conf', result.depth_confidence), ('pts3d', result.points),
            ('conf', result.points_confidence))})
        kept.append([ids.tolist() for ids in (*engine.kept_token_ids(),
                                              *engine.caches.camera.kept_token_ids())])
    return frames, kept


# Kernels -----------------------------------------------------------------------------------------


def compare_kernels(device: torch.device, tiny: bool) -> Iterator[dict[str, Any]]:
    """Return for each kernel and size how far it is from PyTorch's way, and what both take."""
    for image, sizes in (TINY_SIZES if tiny else KERNEL_SIZES).items():
        for dtype, tolerance in TOLERANCES.items():
            for name, by_kernel, portable, error in kernel_pairs(device, dtype, *sizes):
                off = error()
                row = {'kernel': name, 'image': image, 'dtype': str(dtype).partition('.')[2],
                       'error': off, 'tolerance': tolerance, 'equal': off <= tolerance,
                       'triton_ms': timed(by_kernel, device, tiny),
                       'portable_ms': timed(portable, device, tiny)}
                row['ratio'] = round(row['portable_ms']['p50'] / row['triton_ms']['p50'], 3)
                yield row


Pair = tuple[str, Callable[[], Any], Callable[[], Any], Callable[[], float]]


def kernel_pairs(
    device: torch.device, dtype: torch.dtype, heads: int, patches: tuple[int, int],
    remembered: int,
) -> list[Pair]:
    """Return for each kernel: its name, a call, PyTorch's in its place, and how far it is off."""
    return [*_packed_pairs(device, dtype, heads, SPECIAL + patches[0] * patches[1], remembered),
            _split_pair(device, dtype, heads, patches),
            _product_pair(device, dtype, heads * HEAD_DIM)]


def _packed_pairs(
    device: torch.device, dtype: torch.dtype, heads: int, tokens: int, remembered: int,
) -> list[Pair]:
    """Return the kernels of packed tokens, over a cache of full frames and the current one."""
    from xsvggt_ros.kernels import packed

    generator = torch.Generator().manual_seed(0)
    frames = max(1, remembered // tokens)
    slots = (frames + 1) * tokens

    def random() -> Tensor:
        x = torch.randn(heads, tokens, HEAD_DIM, generator=generator)
        return (x * torch.linspace(0.2, 3, HEAD_DIM)).to(device, dtype)

    def zeros(*shape: int, kind: torch.dtype = torch.half) -> Tensor:
        return torch.zeros(heads, *shape, dtype=kind, device=device)

    def empty() -> TokenLayer:
        payload = slots, HEAD_DIM // 2
        return TokenLayer(
            zeros(*payload, kind=torch.uint8), zeros(*payload, kind=torch.uint8), zeros(slots, 1),
            zeros(slots, 1), zeros(frames + 1, 4, HEAD_DIM),
            torch.zeros(slots, dtype=torch.int32, device=device), 4)

    by_kernel, portable = empty(), empty()
    order = torch.randperm(slots, generator=generator).to(device).split(tokens)
    rows = torch.arange(frames + 1, device=device).split(1)
    ids = torch.full((slots,), -1, device=device)
    for step in range(frames):
        given = random(), random(), order[step], rows[step]
        packed.insert(by_kernel, *given)
        portable.insert(*given)
        ids[order[step]] = torch.arange(tokens, device=device)
    newest = random(), random(), order[-1], rows[-1]
    query, key, value = random() / 8, random(), random()
    out, expected = (torch.zeros(2, heads, slots, HEAD_DIM, device=device, dtype=dtype)
                     for _ in range(2))
    live = ids >= 0    # all others are the newest frame's

    def attend() -> Tensor:
        """Decode, put the newest tokens into their place, attend: without the fused kernel."""
        portable.decode(*expected)
        expected[0].index_copy_(1, order[-1], key)
        expected[1].index_copy_(1, order[-1], value)
        return torch.nn.functional.scaled_dot_product_attention(query, *expected)

    def decoded(layer: TokenLayer) -> Tensor:
        layer.decode(*expected)
        return expected[:, :, live].clone()

    def decode_error() -> float:
        packed.decode(portable, *out)
        return relative(out[:, :, live], decoded(portable))

    def attend_error() -> float:
        return relative(packed.attend(portable, ids, query, key, value), attend())

    return [
        ('insert', lambda: packed.insert(by_kernel, *newest), lambda: portable.insert(*newest),
         lambda: relative(decoded(by_kernel), decoded(portable))),
        ('decode', lambda: packed.decode(portable, *out), lambda: portable.decode(*expected),
         decode_error),
        ('attend', lambda: packed.attend(portable, ids, query, key, value), attend,
         attend_error)]


def _split_pair(
    device: torch.device, dtype: torch.dtype, heads: int, patches: tuple[int, int],
) -> Pair:
    """Return the kernel that norms, rotates and lays out queries, keys and values."""
    from xsvggt_ros.kernels.qkv import split_qkv

    layer = Attention(heads * HEAD_DIM, heads, qk_norm=True).to(device)
    tables = grid_rotary_table(*patches, SPECIAL, HEAD_DIM, 100.0)
    rope = tables[0].float().to(device), tables[1].float().to(device)
    generator = torch.Generator().manual_seed(0)
    tokens = SPECIAL + patches[0] * patches[1]
    x = torch.randn(tokens, 3 * heads * HEAD_DIM, generator=generator).to(device, dtype)
    norms = [(norm.weight.detach(), norm.bias.detach()) for norm in (layer.q_norm, layer.k_norm)]

    @torch.no_grad()
    def portable() -> Tensor:
        parts = x.unflatten(-1, (3, heads, HEAD_DIM)).movedim(-3, 0).transpose(-3, -2)
        return torch.stack([apply_rope(layer.q_norm(parts[0].float()), rope).to(dtype),
                            apply_rope(layer.k_norm(parts[1].float()), rope).to(dtype),
                            parts[2]])

    def by_kernel() -> tuple[Tensor, ...]:
        return split_qkv(x, heads, *norms, layer.q_norm.eps, rope)

    return ('split_qkv', by_kernel, portable,
            lambda: relative(torch.stack(by_kernel()), portable()))


def _product_pair(device: torch.device, dtype: torch.dtype, width: int) -> Pair:
    """Return the kernel of one token through int8 weights, a layer of the camera head's size."""
    from xsvggt_ros.kernels.gemv import product

    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(4 * width, 2 * width, generator=generator) / width ** 0.5
    values, scale = (part.to(device) for part in Int8Linear.round(weight))
    x = torch.randn(1, 2 * width, generator=generator).to(device, dtype)
    bias = torch.randn(4 * width, generator=generator).to(device, dtype)

    def portable() -> Tensor:
        out = torch.nn.functional.linear(x, values.to(dtype))
        return torch.addcmul(bias, out, scale.view(-1).to(dtype))

    def by_kernel() -> Tensor:
        return product(x, values, scale, bias)

    return 'int8_product', by_kernel, portable, lambda: relative(by_kernel(), portable())


def relative(x: Tensor, expected: Tensor) -> float:
    """Return the relative RMS difference."""
    x, expected = x.double(), expected.double()
    return float((x - expected).square().mean().sqrt() / expected.square().mean().sqrt())


@torch.inference_mode()
def timed(call: Callable[[], Any], device: torch.device, once: bool) -> dict[str, float]:
    """Return mean and percentiles of a call's ms."""
    clock, moments = Clock(device), []
    times, calls = (1, 1) if once else (TIMES, CALLS)
    for _ in range(1 if once else 3):
        call()
    clock.wait()
    for _ in range(times):
        start = clock.now()
        for _ in range(calls):
            call()
        moments.append((start, clock.now()))
    clock.wait()
    return summary(torch.tensor([clock.between(*pair) / calls for pair in moments]).numpy())
