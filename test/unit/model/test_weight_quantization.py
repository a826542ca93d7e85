"""Weights in 8 bits: what rounding may change, what it saves, and what is refused."""

import pytest
import torch
from torch import nn
import torch.nn.functional as F

from xsvggt_ros.bench.frame_bench import pictures
from xsvggt_ros.engine.config import EngineConfig
from xsvggt_ros.engine.stream_engine import StreamEngine
from xsvggt_ros.kernels import rounded
from xsvggt_ros.kv_cache.config import CacheConfig
from xsvggt_ros.model import weight_quantization
from xsvggt_ros.model.checkpoint import load_model, save_checkpoint
from xsvggt_ros.model.config import ModelConfig
from xsvggt_ros.model.fused import Linear
from xsvggt_ros.model.streamvggt import StreamVGGT
from xsvggt_ros.model.weight_quantization import (
    check_weights,
    DynamicLinear,
    Fp8Linear,
    Int8Linear,
    quantise_weights,
    QuantisedLinear,
    weight_bytes,
)

DTYPES = (torch.float32, torch.bfloat16, torch.float16)
# What rounding to the nearest may change, relative to a number: half a unit of its last place.
HALF_A_UNIT = {dtype: torch.finfo(dtype).eps / 2 for dtype in DTYPES}


def linear(inputs=96, outputs=48, bias=True, dtype=torch.float32, seed=0):
    """Return a layer with rows of very different size, and inputs for it."""
    generator = torch.Generator().manual_seed(seed)
    layer = Linear(inputs, outputs, bias)
    with torch.no_grad():
        layer.weight.copy_(torch.randn(outputs, inputs, generator=generator)
                           * torch.logspace(-3, 1, outputs)[:, None])
        if bias:
            layer.bias.copy_(torch.randn(outputs, generator=generator))
    return layer.to(dtype).requires_grad_(False), torch.randn(
        7, inputs, generator=generator).to(dtype)


@pytest.mark.parametrize('seed', range(5))
def test_no_weight_moves_by_more_than_half_a_step(seed):
    layer, _ = linear(seed=seed)
    values, scale = Int8Linear.round(layer.weight)
    assert values.dtype == torch.int8 and scale.shape == (layer.out_features, 1)
    moved = (values.double() * scale.double() - layer.weight.double()).abs()
    assert (moved <= scale.double() / 2 * (1 + 1e-6)).all()
    assert values.min() >= -127  # symmetric
    # No step is wasted: the largest weight of a row is 126 or 127 of them.
    assert (values.abs().amax(1) >= 126).all()
    assert torch.equal(scale.bfloat16().float(), scale)


def test_rows_of_zeros_and_of_extremes():
    weight = torch.zeros(5, 64)
    weight[1] = 1e-35
    weight[2, 3], weight[2, 4] = 1e30, -1e30
    weight[3] = -0.5
    weight[4, 0] = 3e38
    values, scale = Int8Linear.round(weight)
    assert not values[0].any() and torch.isfinite(scale).all() and (scale > 0).all()
    moved = (values.double() * scale.double() - weight.double()).abs()
    assert (moved <= scale.double() / 2 * (1 + 1e-6)).all()
    assert values[2, 3] == -values[2, 4] >= 126


def reference(layer, x):
    """Return in fp64 what a layer of rounded weights should give."""
    weight = layer.values.double() * layer.scale.double()
    bias = 0 if layer.bias is None else layer.bias.double()
    return x.double() @ weight.T + bias


def limit(layer, x):
    """
    Return how far a layer may be off `reference`, on any processor, [rows, out].

    Numbers are added in fp32, in any order: half a unit for each, of all their magnitudes. The
    sum is rounded to the layer's precision, then scaled, then its bias is added: three roundings,
    each relative to what went in. A weight in fp16 is scaled and rounded before.
    """
    weight = layer.values.double() * layer.scale.double()
    magnitudes = x.double().abs() @ weight.abs().T
    product = (x.double() @ weight.T).abs() + (0 if layer.bias is None else layer.bias.abs())
    unit = HALF_A_UNIT[layer.dtype]
    off = layer.in_features * HALF_A_UNIT[torch.float32] * magnitudes + 3 * unit * product
    if layer.dtype == torch.float16:
        least = torch.finfo(torch.float16).tiny * torch.finfo(torch.float16).eps
        off = off + unit * magnitudes + least * (1 + x.double().abs().sum(1, keepdim=True))
    return 1.01 * off  # of the roundings' roundings


@torch.inference_mode()
@pytest.mark.parametrize('dtype', DTYPES)
@pytest.mark.parametrize('rows', [1, 7])
@pytest.mark.parametrize('bias', [True, False])
@pytest.mark.parametrize('inputs, outputs', [(96, 48), (9, 20)])
def test_int8_is_the_product_with_the_rounded_weights(
        inputs, outputs, bias, rows, dtype, monkeypatch):
    floats, x = linear(inputs, outputs, bias, dtype)
    layer, x = Int8Linear(floats), x[:rows]
    for at_once in (weight_quantization.AT_ONCE, 5 * inputs):  # whole, and in pieces
        monkeypatch.setattr(weight_quantization, 'AT_ONCE', at_once)
        out = layer(x)
        assert out.dtype == dtype
        assert ((out.double() - reference(layer, x)).abs() <= limit(layer, x)).all()
    # What comes after is what the layer of floats does after.
    residual = torch.randn(rows, outputs)
    assert torch.equal(layer(x, gelu=True), F.gelu(layer(x)))
    assert torch.equal(layer(x, residual=residual), residual + layer(x))
    assert layer(x, residual=residual).dtype == torch.float32
    batch = x.expand(2, rows, inputs)
    assert layer(batch).shape == (2, rows, outputs)


@torch.inference_mode()
@pytest.mark.parametrize('packed', [True, False])
def test_both_forms_of_a_product_are_right(packed, monkeypatch):
    if packed and not weight_quantization.packed_product_works():
        pytest.skip('this torch has no operator that reads int8 weights')
    monkeypatch.setattr(weight_quantization, 'packed_product_works', lambda: packed)
    floats, x = linear(dtype=torch.bfloat16)
    layer, x = Int8Linear(floats), x[:1]
    assert ((layer(x).double() - reference(layer, x)).abs() <= limit(layer, x)).all()


@torch.inference_mode()
def test_large_values_do_not_leave_the_range_of_fp16():
    floats, _ = linear(2048, 16, dtype=torch.float16)
    floats.weight.fill_(0.01)
    layer = Int8Linear(floats)
    x = torch.full((1, 2048), 4.0, dtype=torch.float16)  # 127 * 2048 * 4 leaves it
    assert ((layer(x).double() - reference(layer, x)).abs() <= limit(layer, x)).all()


@torch.inference_mode()
@pytest.mark.parametrize('dtype', DTYPES)
@pytest.mark.parametrize('bias', [True, False])
def test_fp8_rounds_weights_and_tokens(bias, dtype):
    floats, x = linear(bias=bias, dtype=dtype)
    x = x * torch.logspace(-2, 2, len(x))[:, None].to(dtype)  # each token has a scale of its own
    layer = Fp8Linear(floats)
    values, scale = layer.round(x)
    assert values.dtype == layer.values.dtype == torch.float8_e4m3fn
    # Three bits after the point: 1/16 of a number, or of the smallest normal one.
    moved = (values.double() * scale.double() - x.double()).abs()
    assert (moved <= torch.maximum(x.double().abs() / 16, scale.double() / 1024) * 1.001).all()
    try:
        out = layer(x)
    except (RuntimeError, NotImplementedError) as error:
        pytest.skip(f'this torch does not multiply fp8 on a CPU: {error}')
    assert out.dtype == dtype
    # The product comes in bf16, and with a bias is rounded once more.
    rounded = values.double() * scale.double()
    expected, weight = reference(layer, rounded), layer.values.double() * layer.scale.double()
    off = 2 * HALF_A_UNIT[torch.bfloat16] * (expected.abs() + (
        0 if layer.bias is None else layer.bias.double().abs()))
    off += x.shape[1] * HALF_A_UNIT[torch.float32] * (rounded.abs() @ weight.abs().T)
    assert ((out.double() - expected).abs() <= 1.01 * off).all()
    # Two numbers of a product are each off by 1/16 at most, and by half of it in the mean square.
    exact = floats(x).double()
    assert (out.double() - exact).norm() < 2 / 16 * exact.norm()


def small_model():
    """Return the network that comes with the package."""
    return load_model('small').model.fold_scales()


def run(model, dtype=torch.float32, heads=None, frames=4):
    """Return depths and poses of a few pictures."""
    engine = StreamEngine(model, EngineConfig(
        CacheConfig(policy='full'), dtype=dtype, head_dtype=heads or dtype, image_size=56))
    results = [engine.step(image) for image in pictures(42, 56, frames)]
    return (torch.stack([result.depth for result in results]),
            torch.stack([result.pose_encoding for result in results]))


def moved(results, expected):
    """Return the root mean square of how far depths, relative, and poses are off."""
    depth, pose = ((of - exact).square().mean().sqrt().item() for of, exact in (
        (results[0] / expected[0], torch.ones(())), (results[1], expected[1])))
    return torch.tensor([depth, pose])


def skip_without_products(weights='int8_dynamic'):
    if weights == 'int8_dynamic' and not rounded.works():
        pytest.skip('this CPU or torch has no exact products of 8 bits')


@pytest.fixture(scope='module')
def of_floats():
    """Return what the network of floats gives, and how far it is off that in bf16, here."""
    expected = run(small_model())
    return expected, moved(run(small_model(), torch.bfloat16), expected)


# The most that rounding may change a number, relative to the largest of its row. Layers average
# over many numbers: what comes out of a network moves by less. int8_dynamic rounds both sides, and
# weights to 7 bits where a processor needs that: 1 / 254 and 1 / 126.
HALF_A_STEP = {'int8_camera': 1 / 254, 'int8': 1 / 254, 'int8_dynamic': 1 / 84, 'fp8': 1 / 16}


@torch.inference_mode()
@pytest.mark.parametrize('dtype', DTYPES)
@pytest.mark.parametrize('bias', [True, False])
def test_few_and_many_tokens_go_through_the_same_weights(bias, dtype):
    skip_without_products()
    floats, few = linear(bias=bias, dtype=dtype)
    layer = DynamicLinear(floats)
    assert layer.dtype == dtype
    layer_of_floats = Linear(96, 48, bias)
    layer_of_floats.weight.copy_(layer.values * layer.scale)
    if bias:
        layer_of_floats.bias.copy_(floats.bias)
    many = few.repeat(2, 3, 1)  # [2, 21, 96]
    step = many.float().abs().amax(-1, keepdim=True) / 254 * layer.scale.view(-1)
    step = step * layer.values.float().abs().sum(1)
    for x, allowed in ((few, 0), (many, 1.01 * step)):
        out, expected = layer(x), layer_of_floats(x.float())
        assert out.dtype == dtype and out.shape == expected.shape
        sums = x.float().abs() @ layer_of_floats.weight.abs().T
        near = 3 * torch.finfo(dtype).eps * (1 + expected.abs()) + 1e-6 * sums
        assert ((out.float() - expected).abs() <= near + allowed).all()
        residual = torch.ones_like(expected)
        assert layer(x, residual=residual).dtype == torch.float32
    assert torch.equal(layer(many), layer(many.clone()))


@pytest.mark.slow
@pytest.mark.parametrize('weights, dtype', [
    ('int8_camera', torch.float32), ('int8', torch.float32), ('int8_dynamic', torch.float32),
    ('fp8', torch.float32), ('int8_camera', torch.bfloat16), ('int8', torch.bfloat16),
    ('int8_dynamic', torch.bfloat16)])
def test_a_network_of_8_bits_is_close(weights, dtype, of_floats):
    """To that of floats; what bf16 adds depends on the processor, and is measured on this one."""
    skip_without_products(weights)
    expected, in_bf16 = of_floats
    model = small_model()
    quantise_weights(model, weights)
    try:
        results = run(model, dtype)
    except (RuntimeError, NotImplementedError) as error:
        if weights != 'fp8':
            raise
        pytest.skip(f'this torch does not multiply fp8 on a CPU: {error}')
    allowed = torch.full((2,), HALF_A_STEP[weights])
    if dtype == torch.bfloat16:
        allowed += 2 * in_bf16  # errors of the same size, but others: each is a draw of its own
    assert (moved(results, expected) <= allowed).all(), (moved(results, expected), allowed)
    assert not torch.equal(results[1], expected[1])  # something was rounded
    if weights == 'int8_camera' and dtype == torch.float32:
        assert torch.equal(results[0], expected[0])  # and no depth was


def test_precisions_may_be_chosen_and_changed_afterwards():
    model = small_model()
    quantise_weights(model, 'int8')
    first = run(model)
    lowered = run(model, torch.bfloat16, torch.float32)
    assert model.dtype == torch.bfloat16 and model.head_dtype == torch.float32
    assert not torch.equal(lowered[0], first[0])
    again = run(model)  # the scales came back exactly, biases as bf16 left them
    assert (moved(again, first) <= HALF_A_UNIT[torch.bfloat16]).all()


def layers(model, kind):
    """Return the names of the layers of a kind."""
    return {name for name, part in model.named_modules() if isinstance(part, kind)}


@pytest.mark.slow
def test_floats_are_gone():
    with torch.device('meta'):
        full = StreamVGGT(ModelConfig.full_size()).set_dtype(torch.bfloat16, torch.bfloat16)
    # Of the full network, without memory: bytes of bf16, and of what is stored instead.
    before = weight_bytes(full), weight_bytes(full.camera_head)
    quantise_weights(full, 'int8_camera')
    camera = weight_bytes(full.camera_head)
    assert 0.50 < camera / before[1] < 0.52
    assert before[0] - weight_bytes(full) == before[1] - camera > 210e6
    quantise_weights(full, 'int8')
    assert 0.50 < weight_bytes(full) / before[0] < 0.54
    # What is left are the pose's own small layers.
    assert layers(full, nn.Linear) == {
        'camera_head.embed_pose', 'camera_head.pose_branch.fc1', 'camera_head.pose_branch.fc2'}


@pytest.mark.slow
@pytest.mark.parametrize('source, weights', [
    ('small', 'int8'), ('random', 'int8'), ('small', 'int8_dynamic')])
def test_a_network_is_loaded_in_8_bits(source, weights):
    skip_without_products(weights)
    loaded = load_model(source, weights=weights)
    expected = load_model(source).model.fold_scales()
    assert weight_bytes(loaded.model) < 0.45 * weight_bytes(expected)
    quantise_weights(expected, weights)
    for name in layers(expected, QuantisedLinear):
        one, other = loaded.model.get_submodule(name), expected.get_submodule(name)
        assert torch.equal(one.values, other.values) and torch.equal(one.scale, other.scale)
    assert layers(loaded.model, QuantisedLinear) == layers(expected, QuantisedLinear)
    assert f'weights {weights}' in loaded.description and loaded.weights == weights
    millions = load_model(source).description.split(' M parameters')[0].split()[-1]
    assert f' {millions} M parameters' in loaded.description
    assert torch.equal(run(loaded.model)[1], run(expected)[1])


def test_what_was_rounded_is_no_checkpoint(tmp_path):
    model = load_model('small', weights='int8_camera').model
    with pytest.raises(RuntimeError, match='cannot be saved'):
        save_checkpoint(model, tmp_path / 'rounded.safetensors')
    assert not list(tmp_path.iterdir())
    with pytest.raises(RuntimeError, match='takes no other weights'):
        model.load_state_dict(small_model().state_dict())


def test_scales_are_not_folded_into_rounded_weights():
    model = small_model()
    quantise_weights(model, 'int8')
    values = model.camera_head.trunk[0].mlp.fc2.values.clone()
    assert torch.equal(model.fold_scales().camera_head.trunk[0].mlp.fc2.values, values)


def test_what_cannot_be_is_refused(monkeypatch):
    monkeypatch.setattr(rounded, 'works', lambda: True)
    for choice in ('auto', 'float', 'int8_camera', 'int8', 'int8_dynamic'):
        check_weights(choice, 'cpu')
    with pytest.raises(ValueError, match='int8_dynamic multiplies in 8 bits on a CPU, .* cuda'):
        check_weights('int8_dynamic', 'cuda')
    monkeypatch.setattr(rounded, 'works', lambda: False)
    with pytest.raises(ValueError, match='int8_dynamic needs products .* choose int8 or float'):
        load_model('small', weights='int8_dynamic')
    with pytest.raises(ValueError, match="weights must be one of auto, .* got 'int4'"):
        check_weights('int4', 'cpu')
    for works, choices in ((True, 'int8_dynamic, int8_camera'), (False, 'int8_camera')):
        monkeypatch.setattr(rounded, 'works', lambda works=works: works)
        with pytest.raises(ValueError, match=f'fp8 needs a GPU .* on cpu; choose {choices}, int8'):
            load_model('small', weights='fp8')
    monkeypatch.setattr(torch.cuda, 'get_device_name', lambda device: 'Orin')
    for capability in ((8, 7), (8, 9), (9, 0)):
        monkeypatch.setattr(torch.cuda, 'get_device_capability', lambda device: capability)
        if capability == (8, 7):
            with pytest.raises(ValueError, match='Orin does not'):
                check_weights('fp8', 'cuda')
        else:
            check_weights('fp8', 'cuda')
