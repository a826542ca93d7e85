"""The network's parts: position tables against golden data, blocks against plain arithmetic."""

import golden_data
import pytest
import torch
import torch.nn.functional as F

from xsvggt_ros.model.config import ModelConfig
from xsvggt_ros.model.dinov2 import DinoVisionTransformer, resize_positions
from xsvggt_ros.model.layers import Block, self_attention
from xsvggt_ros.model.positions import (
    add_uv,
    apply_rope,
    grid_rotary_table,
    rotary_table,
    uv_embedding,
)
from xsvggt_ros.model.tables import TableCache


@pytest.fixture(scope='module')
def units():
    """Return the golden unit cases."""
    return golden_data.load_tensors('units.safetensors')


def as_float(table):
    """Return a rotary table in fp32."""
    return tuple(part.float() for part in table)


def test_rotary_embedding_is_the_golden_one(units):
    x, positions = units['rope/x'][0], units['rope/pos'][0]
    table = as_float(rotary_table(positions, x.shape[-1], base=100.0))
    assert golden_data.excess(apply_rope(x, table), units['rope/out'][0]) < 0.1


def test_a_frame_is_special_tokens_then_rows_of_patches():
    x = torch.randn(2, 3 + 2 * 4, 16, generator=torch.Generator().manual_seed(1))
    turned = apply_rope(x, as_float(grid_rotary_table(2, 4, 3, 16, 100.0)))
    assert torch.equal(turned[:, :3], x[:, :3])  # nothing turns at (0, 0)
    row, column = 1, 2
    at_patch = torch.tensor([[row + 1, column + 1]])
    index = 3 + row * 4 + column
    alone = apply_rope(x[:, index:index + 1], as_float(rotary_table(at_patch, 16, 100.0)))
    assert torch.equal(turned[:, index:index + 1], alone)
    assert not torch.allclose(alone, x[:, index:index + 1], atol=1e-2)


@pytest.mark.parametrize('rows, columns', [(5, 5), (4, 5), (3, 7), (8, 6), (2, 2)])
def test_resized_positions_are_the_golden_ones(units, rows, columns):
    resized = resize_positions(units['pos_embed/table'][0], rows, columns)
    assert golden_data.excess(resized, units[f'pos_embed/out_{rows}x{columns}'][0]) < 0.1


@pytest.mark.parametrize('rows', [1, 2, 3, 7])
def test_a_grid_of_one_column_is_a_turned_grid_of_one_row(rows):
    """Resample to a width of one, which torch 2.13 gets wrong unless the strides are right."""
    grid = torch.randn(6, 6, 8, generator=torch.Generator().manual_seed(0))
    upright = torch.cat([grid[:1, 0], grid.flatten(0, 1)])
    turned = torch.cat([grid[:1, 0], grid.transpose(0, 1).flatten(0, 1)])
    torch.testing.assert_close(
        resize_positions(upright, rows, 1), resize_positions(turned, 1, rows))


def test_a_grid_of_as_many_patches_but_another_shape_is_resized():
    positions = torch.randn(1 + 36, 8, generator=torch.Generator().manual_seed(1))
    resized = resize_positions(positions, 4, 9)
    assert resized.shape == positions.shape
    assert torch.equal(resized[0], positions[0])
    assert not torch.allclose(resized, positions, atol=1e-2)


def test_uv_embedding_is_the_golden_one(units):
    golden = units['dpt_uv_embed/out_c16_h4_w5_aspect70x56']
    added = add_uv(torch.zeros(1, 16, 4, 5), uv_embedding(16, 4, 5, ratio=70 / 56))[0]
    # The embedding is 0.1 at most: compare on that scale.
    assert (added - golden).abs().max() < 1e-7
    assert golden.abs().max() > 0.09


def test_table_cache_computes_once_and_forgets_the_oldest():
    computed = []
    cache = TableCache(limit=2)

    def table(key):
        return cache.get(key, lambda: computed.append(key) or torch.tensor(float(key)))

    assert [table(key).item() for key in (1, 2, 1, 3, 1, 2)] == [1, 2, 1, 3, 1, 2]
    assert computed == [1, 2, 3, 2]  # 3 pushed 2 out, as 1 had been used since


def test_tables_made_in_inference_mode_serve_training_too():
    cache = TableCache()
    with torch.inference_mode():
        table = cache.get('key', lambda: torch.ones(2) * 2)
    weight = torch.ones(2, requires_grad=True)
    (weight * table).sum().backward()
    assert weight.grad.tolist() == [2, 2]


def make_dino():
    """Return a small patch embedding with weights that matter, and an image off its grid."""
    torch.manual_seed(0)
    dino = DinoVisionTransformer(ModelConfig.from_dict(
        golden_data.load_index()['cases']['small_h2']['config']))
    torch.nn.init.normal_(dino.pos_embed)
    return dino, torch.randn(3, 28, 56)


@torch.no_grad()
def test_new_position_weights_are_seen_at_once():
    dino, image = make_dino()
    before = dino(image)
    assert torch.equal(dino(image), before)
    other = {**dino.state_dict(), 'pos_embed': torch.randn_like(dino.pos_embed)}
    dino.load_state_dict(other)  # writes into the weights that are there
    copied = dino(image)
    assert not torch.allclose(copied, before, atol=1e-3)
    dino.load_state_dict({**other, 'pos_embed': torch.randn_like(dino.pos_embed)}, assign=True)
    assert not torch.allclose(dino(image), copied, atol=1e-3)
    assert dino.double()(image.double()).dtype == torch.float64


def test_position_weights_get_a_gradient_after_inference():
    dino, image = make_dino()
    with torch.inference_mode():
        dino(image)
    dino(image)[:, 0].sum().backward()
    assert dino.pos_embed.grad.abs().sum() > 1


def test_a_block_does_its_arithmetic_in_the_written_order():
    torch.manual_seed(0)
    block, x = Block(8, 2, 3.0, layer_scale=0.5), torch.randn(5, 8)
    with torch.no_grad():
        h = F.layer_norm(x, (8,), block.norm1.weight, block.norm1.bias, 1e-5)
        qkv = (h @ block.attn.qkv.weight.T + block.attn.qkv.bias).reshape(5, 3, 2, 4)
        query, key, value = qkv.permute(1, 2, 0, 3)  # q, k, v first, then heads
        weights = (query @ key.transpose(1, 2) / 4 ** 0.5).softmax(-1)
        read = (weights @ value).transpose(0, 1).reshape(5, 8)
        x1 = x + 0.5 * (read @ block.attn.proj.weight.T + block.attn.proj.bias)
        expected = x1 + 0.5 * block.mlp(block.norm2(x1))
        assert torch.allclose(block(x), expected, atol=1e-6)


def test_a_masked_batch_reads_as_a_stream_does():
    torch.manual_seed(0)
    frames, tokens = 3, 6
    block = Block(16, 2, 2.0, qk_norm=True, layer_scale=1.0)
    x = torch.randn(2, frames * tokens, 16)  # a batch of two clips
    rope = as_float(grid_rotary_table(1, tokens - 2, 2, 8, 100.0))
    in_clip = tuple(part.repeat(frames, 1) for part in rope)
    frame_of = torch.arange(frames * tokens) // tokens
    causal = frame_of[:, None] >= frame_of[None, :]

    def attend_masked(query, key, value):
        return F.scaled_dot_product_attention(query, key, value, attn_mask=causal)

    remembered = []

    def attend_remembered(query, key, value):
        remembered.append((key, value))
        keys, values = (torch.cat(parts, dim=-2) for parts in zip(*remembered))
        return self_attention(query, keys, values)

    with torch.no_grad():
        batch = block(x, attend_masked, in_clip)
        stream = [block(frame, attend_remembered, rope) for frame in x[1].split(tokens)]
    assert torch.allclose(batch[1], torch.cat(stream), atol=1e-6)
