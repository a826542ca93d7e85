"""Tables that LingBot-Map computes once, beside what they stand for."""

import lingbot_golden
import pytest
from tiny_stream import make_model
import torch

from xsvggt_ros.kernels import native
from xsvggt_ros.kernels.attention import attention
from xsvggt_ros.model.dinov2 import PatchEmbed
from xsvggt_ros.model.lingbot.block_tables import BlockTables
from xsvggt_ros.model.lingbot.positions import combined, space_table, time_table
from xsvggt_ros.model.positions import fold_norm_into_rope
from xsvggt_ros.model.tables import TableCache

CASE = lingbot_golden.load_case('lb_tiny_h1')


@torch.inference_mode()
def test_only_the_time_is_changed_in_the_tables_of_the_blocks():
    blocks = make_model('lingbot').aggregator.global_blocks
    space = tuple(table.float() for table in space_table(5, 16, 6))  # 86 tokens, two tiles
    tables = BlockTables(blocks, space)
    for frame in (0, 1, 700, 3):
        time = time_table(torch.tensor([frame])).float()
        placed = combined(space, time)
        for block, lanes in zip(blocks, tables.at(time[0]), strict=True):
            folded = fold_norm_into_rope(block.attn.norms(), placed, torch.float32)
            expected = native.lanes(*folded)
            assert torch.equal(lanes[0], expected[0])
            assert torch.equal(lanes[1, ..., :86 - 64], expected[1, ..., :86 - 64])


@pytest.mark.skipif(native.library() is None, reason='the C++ kernels are not built')
@pytest.mark.parametrize('kind', ('global', 'frame'))
def test_the_tables_follow_the_weights_and_the_kernels_give_the_same(kind):
    model = make_model('lingbot').fold_scales()
    aggregator = model.aggregator

    @torch.inference_mode()
    def depths():
        memory = lingbot_golden.make_memory(model, 56, 56, 1, 4)
        found = [model.first_frame(CASE.image(0), memory).depth]
        for frame in range(1, 5):
            memory.tokens.end_step()
            found.append(model.step(CASE.image(frame), memory).depth)
        return torch.stack(found)

    with torch.inference_mode():
        place = CASE.image(0)[None], aggregator.time(0, 1), None
        rope = aggregator.frame_tables(56, 56).rope
        for found in (aggregator._time_lanes(*place),
                      aggregator.lanes(aggregator.frame_blocks, rope)):
            assert len(found) == len(aggregator.global_blocks)
    before = depths()
    with torch.no_grad():
        for block in getattr(aggregator, f'{kind}_blocks'):
            block.attn.q_norm.weight.mul_(1.5)
    after = depths()
    assert not torch.allclose(before, after, rtol=1e-3)
    for name in ('_time_lanes', 'lanes'):
        setattr(aggregator, name, lambda *args: None)
    torch.testing.assert_close(depths(), after, rtol=1e-4, atol=1e-4)


@torch.inference_mode()
def test_attention_reads_as_many_keys_as_it_is_told():
    query, key, value = (torch.randn(2, 9, 32) for _ in range(3))
    for count in (1, 5, 9, None):
        few = attention(query, key[:, :count].contiguous(), value[:, :count].contiguous())
        assert torch.equal(attention(query, key, value, count), few)
        wide = (query.double(), key.double(), value.double())
        torch.testing.assert_close(attention(*wide, count).float(), few, atol=1e-5, rtol=1e-5)
    assert not native.takes_attention(query, key, value, 10)
    assert not native.takes_attention(query, key, value, 0)


def test_a_batch_of_images_is_cut_into_the_patches_of_each():
    embed = PatchEmbed(14, 32)
    images = torch.rand(2, 3, 3, 28, 42)
    with torch.inference_mode():
        tokens = embed(images)
        assert tokens.shape == (2, 3, 6, 32)
        plain = embed.proj(images.flatten(0, 1)).flatten(2).transpose(1, 2)
        torch.testing.assert_close(tokens.flatten(0, 1), plain, atol=1e-5, rtol=1e-5)


def test_the_tables_used_last_are_kept():
    computed = []

    def look(key):
        return cache.get(key, lambda: computed.append(key) or key)

    cache = TableCache(limit=2)
    assert [look(key) for key in 'abaacab'] == list('abaacab')
    assert computed == ['a', 'b', 'c', 'b']
