"""Resizing against the reference's image loader (PIL) and the maps between pixel coordinates."""

from golden_data import load_index, load_tensors
import numpy as np
import pytest
import torch

from xsvggt_ros.images.preprocess import Resize, to_network_input

UNITS = load_tensors('units.safetensors')
CASES = [case for case in load_index()['units']['index']['preproc'] if case['mode'] == 'crop']


def source_image(width, height):
    y, x = np.mgrid[0:height, 0:width]

    def triangle(t, period):
        return np.abs((t % (2 * period)) - period) * 255 // period

    planes = [triangle(2 * x + y, 151), triangle(3 * y + 40, 97),
              (triangle(x, 61) + triangle(y, 83)) // 2]
    return torch.from_numpy(np.stack(planes, -1).astype(np.uint8))


@pytest.mark.parametrize('case', CASES, ids=lambda c: f"{c['w']}x{c['h']}")
def test_crop_mode_matches_golden(case):
    width, height = case['w'], case['h']
    image = Resize.plan(height, width, 518, 14)(source_image(width, height))
    tensor = to_network_input(image)
    assert [1, *tensor.shape] == case['out']
    golden = UNITS[f'preproc/{width}x{height}_crop']
    difference = (tensor[:, ::37, ::37] - golden).abs()
    # PIL computes in fixed point: now and then a value is rounded to the other side.
    assert difference.max() <= 1.01 / 255
    assert (difference < 1e-6).float().mean() > 0.98
    assert tensor.mean().item() == pytest.approx(case['mean'], abs=1e-4)


def test_sizes_are_rounded_as_the_public_preprocessing_does():
    """Of sizes half-way between two rows of patches some go up because the factor is rounded."""
    factor = 518 / np.arange(1, 701)[:, None]
    rows = np.round(np.arange(1, 701)[None] * factor / 14) * 14  # [width - 1, height - 1]
    for width in range(14, 701):
        for height in range(14, 701, 3):
            plan = Resize.plan(height, width, 518, 14)
            expected = max(rows[width - 1, height - 1], 14)
            assert (plan.scaled_height, plan.height) == (expected, min(expected, 518))
    assert Resize.plan(435, 222, 518, 14).scaled_height == 1022  # 72.5 rows are 73
    assert Resize.plan(135, 54, 518, 14).scaled_height == 1302 == 93 * 14  # 92.5, too
    assert Resize.plan(45, 37, 518, 14).scaled_height == 630


def test_without_a_size_frames_are_used_as_they_are():
    frame = torch.randint(0, 256, (56, 70, 3), dtype=torch.uint8)
    resize = Resize.plan(56, 70, None, 14)
    assert torch.equal(resize(frame), frame)
    assert torch.equal(resize.model_from_source(), torch.eye(3, dtype=torch.float64))


@pytest.mark.parametrize('height, width', [(480, 640), (752, 480), (100, 2000), (3, 4000)])
def test_model_size_is_whole_patches_within_the_limit(height, width):
    resize = Resize.plan(height, width, 224, 14)
    image = resize(torch.zeros(height, width, 3, dtype=torch.uint8))
    assert tuple(image.shape) == (resize.height, resize.width, 3)
    assert resize.width == 224 and 14 <= resize.height <= 224
    assert resize.height % 14 == resize.width % 14 == 0


@pytest.mark.parametrize('height, width', [(480, 640), (640, 480)])
def test_model_from_source_follows_a_bright_spot(height, width):
    frame = torch.zeros(height, width, 3, dtype=torch.uint8)
    u, v = 301, 245
    frame[v - 4:v + 5, u - 4:u + 5] = 255
    resize = Resize.plan(height, width, 518, 14)
    image = resize(frame)[..., 0].double()
    rows = torch.arange(image.shape[0], dtype=torch.float64)
    columns = torch.arange(image.shape[1], dtype=torch.float64)
    spot_v = (image.sum(1) * rows).sum() / image.sum()
    spot_u = (image.sum(0) * columns).sum() / image.sum()
    expected = resize.model_from_source() @ torch.tensor([u, v, 1.0], dtype=torch.float64)
    assert spot_u.item() == pytest.approx(expected[0].item(), abs=0.05)
    assert spot_v.item() == pytest.approx(expected[1].item(), abs=0.05)
