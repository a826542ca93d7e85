"""Networks from one attention to the next in a call of C++ give what PyTorch gives."""

import copy

from native_calls import BUILT, count_calls, random, random_weights
import pytest
import torch

from xsvggt_ros.kernels.attention import store_and_attend
from xsvggt_ros.kv_cache.config import CacheLayout
from xsvggt_ros.kv_cache.dense_store import DenseStore
from xsvggt_ros.kv_cache.store import Step
from xsvggt_ros.model.aggregator import Aggregator
from xsvggt_ros.model.camera_head import CameraHead
from xsvggt_ros.model.config import ModelConfig
from xsvggt_ros.model.dinov2 import PatchEmbed
from xsvggt_ros.model.layers import self_attention
from xsvggt_ros.model.lingbot.aggregator import LingBotAggregator
from xsvggt_ros.model.lingbot.config import LingBotConfig

if not BUILT:
    pytest.skip('native.cpp was not built: make env, or colcon build', allow_module_level=True)

HEIGHT, WIDTH = 56, 280  # 86 tokens: two tiles


class Memory:
    """What attends to the tokens alone and notes what it was shown."""

    def __init__(self):
        self.shown = []
        self.ends = 0

    def attend(self, layer, query, key, value):
        self.shown += [part.clone() for part in (query, key, value)]
        return 1 + layer + self_attention(query, key, value).contiguous()

    def end_step(self):
        self.ends += 1


def make_head():
    head = random_weights(CameraHead(ModelConfig.small()))
    for block in head.trunk:
        block.fold()
    return head


def make_backbone(kind=LingBotAggregator):
    config = LingBotConfig.small() if kind is LingBotAggregator else ModelConfig.small()
    backbone = random_weights(kind(config))
    for block in (*backbone.frame_blocks, *backbone.global_blocks):
        block.fold()
    return backbone


def poses_of(head, token):
    memory = Memory()
    return head(token, memory), memory.ends, *memory.shown


def tokens_of(backbone, images, frame=3):
    memory = Memory()
    if isinstance(backbone, LingBotAggregator):
        found = backbone(images, memory.attend, backbone.special(frame, len(images), 1),
                         backbone.time(frame, len(images)), (1, 3, 5))
    else:
        found = backbone(images[0], memory.attend, frame == 0, (1, 3, 5))
    return found.camera_token, *found.layers.values(), *memory.shown


def assert_same(result, expected):
    for one, other in zip(result, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)


def pictures(count=1):
    return torch.rand(count, 3, HEIGHT, WIDTH, generator=torch.Generator().manual_seed(5))


@pytest.mark.parametrize('iterations', [1, 2, 4])
@torch.inference_mode()
def test_a_camera_head_is_the_same(library, plainly, iterations):
    head, token = make_head(), random(1, 256)
    head.iterations = iterations
    result, calls = count_calls(poses_of, head, token)
    assert calls == {'xsvggt_camera': 2 * iterations + 1, 'xsvggt_attend': 2 * iterations}
    expected = plainly(poses_of, head, token)
    assert result[0].shape == (iterations, 9) and result[1] == iterations
    assert (expected[0][:, 7:] == 0).any() and (expected[0][:, 7:] > 0).any() or iterations < 4
    assert_same(result, expected)


@pytest.mark.parametrize('kind', [LingBotAggregator, Aggregator])
@torch.inference_mode()
def test_a_backbone_is_the_same(library, plainly, kind):
    backbone = make_backbone(kind)
    for frame in (0, 3):
        result, calls = count_calls(tokens_of, backbone, pictures(), frame)
        assert calls == {'xsvggt_patches': 1, 'xsvggt_backbone': 7, 'xsvggt_attend': 6}
        assert_same(result, plainly(tokens_of, backbone, pictures(), frame))


@torch.inference_mode()
def test_an_image_whose_channels_come_last_in_memory_is_taken_too(library, plainly):
    backbone, image = make_backbone(Aggregator), pictures()
    turned = image.permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2)
    result, calls = count_calls(tokens_of, backbone, turned)
    assert calls['xsvggt_patches'] == 1
    assert_same(result, plainly(tokens_of, backbone, image))


@torch.inference_mode()
def test_a_smaller_image_is_placed_in_the_stream_s(library, plainly):
    backbone, image = make_backbone(Aggregator), pictures()[0]

    def seen(size):
        return backbone(image, Memory().attend, False, (1,), size).layers[1]

    for size in (None, (2 * HEIGHT, 2 * WIDTH), None):
        torch.testing.assert_close(seen(size), plainly(seen, size), rtol=1e-4, atol=1e-4)
    assert (seen(None) - seen((2 * HEIGHT, 2 * WIDTH))).abs().max() > 1e-3


@pytest.mark.slow
@pytest.mark.parametrize('kind', [LingBotAggregator, Aggregator])
@torch.inference_mode()
def test_each_norm_has_its_own_epsilon_and_new_weights_are_noticed(library, plainly, kind):
    head, backbone = make_head(), make_backbone(kind)
    token = 1e-2 * random(1, 256)
    blocks = [*head.trunk, *backbone.frame_blocks, *backbone.global_blocks]
    norms = [head.token_norm, head.trunk_norm,
             *(norm for block in blocks for norm in (block.norm1, block.norm2))]
    before = poses_of(head, token)[0], tokens_of(backbone, pictures())[0]
    for norm in norms:
        for change in (lambda: setattr(norm, 'eps', 0.3), lambda: norm.weight.mul_(0.5)):
            change()
            after = poses_of(head, token)[0], tokens_of(backbone, pictures())[0]
            assert not all(map(torch.equal, before, after))
            before = after
    assert_same(poses_of(head, token), plainly(poses_of, head, token))
    assert_same(tokens_of(backbone, pictures()), plainly(tokens_of, backbone, pictures()))
    for part, run, given in ((head, poses_of, token), (backbone, tokens_of, pictures())):
        other = {name: 0.9 * weight for name, weight in part.state_dict().items()}
        part.load_state_dict(other, assign=True)
        for block in blocks:
            block.fold()
        assert_same(run(part, given), plainly(run, part, given))


@torch.inference_mode()
def test_a_copy_has_weights_of_its_own(library, plainly):
    head, backbone = make_head(), make_backbone()
    for part, run, given in ((head, poses_of, random(1, 256)), (backbone, tokens_of, pictures())):
        before = run(part, given)
        other = copy.deepcopy(part)
        for weight in other.parameters():
            weight.mul_(0.9)
        assert_same(run(part, given), before)
        assert_same(run(other, given), plainly(run, other, given))


@torch.inference_mode()
def test_what_the_kernels_do_not_take_goes_to_torch(library, plainly):
    head, backbone = make_head(), make_backbone()
    several, images = random(2, 256), pictures(2)
    memory = Memory()
    result, calls = count_calls(head, several[:, None], memory)
    assert 'xsvggt_camera' not in calls and result.shape == (4, 2, 9)
    result, calls = count_calls(tokens_of, backbone, images)
    assert not {'xsvggt_backbone', 'xsvggt_patches'} & calls.keys()
    assert_same(result, plainly(tokens_of, backbone, images))
    head.trunk[1]._folded = backbone.global_blocks[2]._folded = False
    assert 'xsvggt_camera' not in count_calls(poses_of, head, several[:1])[1]
    assert 'xsvggt_backbone' not in count_calls(tokens_of, backbone, images[:1])[1]
    head, backbone = make_head(), make_backbone()
    head.empty_pose_tokens.data = head.empty_pose_tokens.data.double()
    with pytest.raises(RuntimeError):  # and not numbers of another precision read as these
        head(several[:1], Memory())
    with pytest.raises(ValueError, match=r'was asked for \[2, 86, 64\], and gave \[2, 85, 64\]'):
        backbone(pictures(), lambda layer, query, *_: query[:, 1:], backbone.special(0, 1, 1),
                 backbone.time(0, 1), (1,))


@torch.inference_mode()
def test_what_is_no_number_stays_none(library):
    head, token = make_head(), random(1, 256)
    token[0, 7] = torch.nan
    assert head(token, Memory()).isnan().all()
    image = pictures()
    image[0, 1, 20, 3] = torch.nan
    assert tokens_of(make_backbone(), image)[0].isnan().all()


@pytest.mark.parametrize('height, width', [(28, 28), (56, 280), (14, 1050)])
@torch.inference_mode()
def test_patches_are_the_same(library, plainly, height, width):
    embed = random_weights(PatchEmbed(14, 40))
    scale, shift = random(3, 1, 1, seed=2), random(3, 1, 1, seed=3)
    image = random(1, 3, height, width)
    result, calls = count_calls(embed, image, scale, shift)
    assert calls == {'xsvggt_patches': 1}
    for expected in plainly(embed, image, scale, shift), embed(image * scale + shift):
        torch.testing.assert_close(result, expected, rtol=1e-4, atol=1e-4)
    for other in (image[0], image.expand(2, -1, -1, -1).contiguous(), image.transpose(2, 3)):
        result, calls = count_calls(embed, other, scale, shift)
        assert not calls
        torch.testing.assert_close(result, embed(other * scale + shift), rtol=1e-4, atol=1e-4)
    assert not count_calls(embed, random(1, 3, height, width + 1), scale, shift)[1]


@pytest.mark.wrong_shapes
@pytest.mark.parametrize('tokens', [1, 53])
@torch.inference_mode()
def test_what_is_stored_is_the_same(library, plainly, tokens):
    stored = random(2, 3, 90, 32, seed=1)
    query, key, value = (random(tokens, 3, 32, seed=seed).transpose(0, 1) for seed in (2, 3, 4))
    order = torch.randperm(70, generator=torch.Generator().manual_seed(0))
    slots = torch.stack([order, order], dim=1)[:tokens, 0]  # not in order in memory
    ours, theirs = stored.clone(), stored.clone()
    result, calls = count_calls(store_and_attend, query, key, value, slots, *ours, 70)
    assert calls == {'xsvggt_store_and_attend': 1}
    expected = plainly(store_and_attend, query, key, value, slots, *theirs, 70)
    torch.testing.assert_close(result, expected, rtol=1e-5, atol=1e-5)
    assert torch.equal(ours, theirs) and not torch.equal(ours, stored)
    crossed = [part.permute(2, 0, 1).contiguous().permute(1, 2, 0) for part in (key, value)]
    result, calls = count_calls(store_and_attend, query, *crossed, slots, *theirs, 70)
    assert 'xsvggt_store_and_attend' not in calls or tokens == 1
    torch.testing.assert_close(result, expected, rtol=1e-5, atol=1e-5)
    with pytest.raises((IndexError, RuntimeError)):
        store_and_attend(query, key, value, order[:tokens + 1], *theirs, 70)


@pytest.mark.parametrize('key_dtype', [torch.float32, torch.bfloat16])
@pytest.mark.parametrize('stored', [torch.float32, torch.bfloat16])
@torch.inference_mode()
def test_own_tokens_are_attended_to_as_they_come(library, stored, key_dtype):
    """Whatever is stored of them."""
    layout = CacheLayout(layers=1, heads=2, head_dim=32, tokens_per_step=5, special_tokens=0)
    store = DenseStore(layout, 10, stored, torch.device('cpu'))
    query, key, value = (random(2, 5, 32, seed=seed).to(key_dtype) for seed in range(3))
    for number in range(2):
        slots = 5 * number + torch.arange(5)
        step = Step(number, slots, 5 + 5 * number, torch.zeros(1, 10, dtype=torch.int64))
        read = store.attend(0, step, query, key, value, None)
    keys, values = (torch.cat([part.to(stored).to(key_dtype), part], dim=1)
                    for part in (key, value))
    expected = self_attention(query, keys, values)
    torch.testing.assert_close(read, expected, rtol=1e-5, atol=1e-5)
    for part, own in ((store.keys, key), (store.values, value)):
        assert torch.equal(part[0], torch.cat([own.to(stored)] * 2, dim=1))
