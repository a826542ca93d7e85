"""Products of 8 bits: what rounding may change, in C++ and without it, and whom they are for."""

from native_calls import BUILT, count_calls, random
import pytest
import torch
import torch.nn.functional as F

from xsvggt_ros.kernels import native, rounded

EPS = {torch.float32: 2.0 ** -23, torch.bfloat16: 2.0 ** -8}
DTYPES = (torch.float32, torch.bfloat16)
SHAPES = [(16, 64, 32), (53, 512, 384), (37, 301, 21), (200, 96, 48)]


@pytest.fixture(autouse=True)
def for_a_robot():
    if not rounded.works():
        pytest.skip('this CPU or torch has no exact products of 8 bits')
    with torch.inference_mode():
        yield


@pytest.fixture(params=[*BUILT, None], ids=lambda file: file.stem if file else 'portable')
def kernels(request, monkeypatch):
    """Take each library that runs here in turn, on three threads, and none."""
    loaded = native.load(request.param) if request.param else None
    monkeypatch.setattr(native, 'library', lambda: loaded)
    threads = torch.get_num_threads()
    torch.set_num_threads(3)
    yield loaded
    torch.set_num_threads(threads)


def tokens(rows, channels, dtype=torch.float32, heavy=()):
    """Return tokens of different size, those of `heavy` with one number far from the others."""
    x = random(rows, channels) * torch.logspace(-2, 2, rows)[:, None]
    for row in heavy:
        x[row] *= 0.02
        x[row, row % channels] = 100.0
    return x.to(dtype)


def weights(channels, out):
    weight = random(out, channels, seed=1) * torch.logspace(-2, 1, out)[:, None]
    scale = weight.abs().amax(1) / rounded.largest_weight()
    integers = (weight / scale[:, None]).round().to(torch.int8)
    return integers.t().contiguous().t(), scale, random(out, seed=2)


def off_by(x, again, values, scale, sums):
    """Return how far a product may be off, [rows, out]: half a step of each number of x."""
    step = x.abs().amax(1, keepdim=True) / 127
    step[again >= 0] /= 254
    moved = step * 0.5 * (values.double() * scale[:, None]).abs().sum(1)
    return 1.001 * (moved + 1e-6 * sums)


@pytest.mark.parametrize('dtype', DTYPES)
@pytest.mark.parametrize('rows, channels, out', SHAPES)
def test_it_is_the_product_but_for_half_a_step(kernels, rows, channels, out, dtype):
    heavy = [0, 9, 15] if channels > 256 else []  # narrower ones have none: their root is below 16
    x = tokens(rows, channels, dtype, heavy)
    values, scale, bias = weights(channels, out)
    weight = values.double() * scale[:, None]
    exact = x.double() @ weight.T + bias
    _, _, again = rounded.round_tokens(x)
    assert (again >= 0).nonzero().flatten().tolist() == heavy
    result = rounded.product(x, values, scale, bias)
    assert result.dtype is dtype and result.shape == (rows, out)
    magnitudes = x.double().abs() @ weight.abs().T + bias.abs()
    allowed = off_by(x.double(), again, values, scale, magnitudes) + EPS[dtype] * exact.abs()
    assert ((result.double() - exact).abs() <= allowed).all()


def test_a_heavy_token_is_as_exact_as_others(kernels):
    """One number of 100 leaves the others, of 0.02 to 0.1, no integers but zero."""
    x = tokens(16, 1024, heavy=[3])
    x[3, 8:16] = 0.02
    integers, scales, again = rounded.round_tokens(x)
    assert again.tolist() == [-1] * 3 + [16] + [-1] * 12 and len(integers) == 32
    assert not integers[17:].any()  # rows that fill up are zeros
    assert integers[3].count_nonzero() == 1
    both = (integers[3].double() + integers[16].double() / 254) * scales[3].double()
    assert (both - x[3]).abs().max() < 100 / 127 / 254 * 0.51


@pytest.mark.parametrize('dtype', DTYPES)
def test_what_comes_after_is_what_layers_of_floats_do_after(kernels, dtype):
    x, (values, scale, bias) = tokens(40, 64), weights(64, 70)
    plain = rounded.product(x, values, scale, bias)
    near = {'rtol': 2 * EPS[dtype], 'atol': 1e-5 * float(plain.abs().max())}
    result = rounded.product(x.to(dtype), values, scale, bias, gelu=True)
    of_x = rounded.product(x.to(dtype).float(), values, scale, bias)
    torch.testing.assert_close(result.float(), F.gelu(of_x), **near)
    residual = random(40, 70, seed=3).to(dtype)
    added = rounded.product(x, values, scale, bias, residual=residual)
    assert added.dtype is dtype
    torch.testing.assert_close(added.float(), plain + residual.float(), **near)
    seen = torch.linspace(-9, 9, 64 * 40).view(40, 64)  # the whole curve
    one = torch.eye(64, dtype=torch.int8)
    curve = rounded.product(seen, one, torch.ones(64), torch.zeros(64), gelu=True)
    line = rounded.product(seen, one, torch.ones(64), torch.zeros(64))
    torch.testing.assert_close(curve, F.gelu(line), rtol=1e-5, atol=3e-6)
    far = rounded.product(torch.tensor([[-1e4, 1e4]]).expand(16, 2), one[:2, :2], torch.ones(2),
                          torch.zeros(2), gelu=True)
    assert (far[:, 0] == 0).all() and (far[:, 1] > 9999).all()


def test_numbers_that_are_none_stay_in_their_token(kernels):
    x, (values, scale, bias) = tokens(20, 64), weights(64, 32)
    expected = rounded.product(x, values, scale, bias)
    spoilt = x.clone()
    spoilt[4, 7], spoilt[11, 0], spoilt[12] = torch.nan, -torch.inf, 0.0
    result = rounded.product(spoilt, values, scale, bias)
    assert result[[4, 11]].isnan().all()
    assert torch.equal(result[12], bias)
    rest = [row for row in range(20) if row not in (4, 11, 12)]
    assert torch.equal(result[rest], expected[rest])


@pytest.mark.parametrize('dtype', DTYPES)
def test_kernels_and_pytorch_round_alike(library, plainly, dtype):
    x = tokens(60, 512, dtype, heavy=(2, 31))
    (integers, scales, again), calls = count_calls(rounded.round_tokens, x)
    assert calls == {'xsvggt_round_rows': 1}
    others = plainly(rounded.round_tokens, x)
    apart = (integers.int() - others[0].int()).abs()
    assert apart.max() <= 1 and apart[:60].float().mean() < 0.01  # in the middle between two
    assert torch.equal(scales, others[1]) and torch.equal(again, others[2])


def test_threads_change_nothing(library):
    x, (values, scale, bias) = tokens(200, 400, heavy=(8, 150)), weights(400, 48)
    several = rounded.product(x, values, scale, bias, gelu=True)
    torch.set_num_threads(1)
    assert torch.equal(several, rounded.product(x, values, scale, bias, gelu=True))


def test_views_are_read_as_they_are(kernels):
    wide, (values, scale, bias) = tokens(32, 128), weights(64, 32)
    part = wide[:, ::2]
    assert torch.equal(rounded.product(part, values, scale, bias),
                       rounded.product(part.contiguous(), values, scale, bias))


@pytest.mark.parametrize('bits, most', [(32, 127), (16, 63), (8, 0), (0, 0)])
def test_weights_are_as_large_as_sums_are_right(monkeypatch, bits, most):
    """In oneDNN two products, of unsigned by signed numbers, are added in so many bits."""
    def product(x, weight):
        if not bits:
            raise NotImplementedError("Could not run 'aten::_int_mm'")
        products = (x[:, :, None].int() + 128) * weight
        sums = products.unflatten(1, (-1, 2)).sum(2).clamp(-2 ** (bits - 1), 2 ** (bits - 1) - 1)
        return sums.sum(1) - 128 * weight.int().sum(0)

    monkeypatch.setattr(torch, '_int_mm', product)
    assert rounded.largest_weight.__wrapped__() == most
    monkeypatch.setattr(rounded, 'largest_weight', lambda: most)
    monkeypatch.setattr(rounded, '_share_of', lambda dtype: 0.5)
    assert rounded.pays.__wrapped__(torch.float32) is bool(most and BUILT)


def test_slow_products_do_not_pay(monkeypatch):
    multiply = torch._int_mm

    def product(x, weight):
        for _ in range(100):
            sums = multiply(x, weight)
        return sums

    monkeypatch.setattr(torch, '_int_mm', product)
    assert not rounded.pays.__wrapped__(torch.float32)


def test_without_the_library_they_do_not_pay(monkeypatch):
    monkeypatch.setattr(rounded, '_share_of', lambda dtype: 0.5)
    if BUILT:
        assert rounded.pays.__wrapped__(torch.float32)
    monkeypatch.setattr(rounded, '_share_of', lambda dtype: 0.8)
    assert not rounded.pays.__wrapped__(torch.float32)
    monkeypatch.setattr(rounded, '_share_of', lambda dtype: 0.5)
    monkeypatch.setattr(native, 'library', lambda: None)
    assert not rounded.pays.__wrapped__(torch.float32)
