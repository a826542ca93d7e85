"""The golden data of LingBot-Map, and its network and memory as a case has them."""

from functools import cache
import importlib.util
import json
from typing import Any

from golden_data import GOLDEN, GoldenCase
from safetensors.torch import load_file
import torch

from xsvggt_ros.engine.stream_caches import StreamCaches
from xsvggt_ros.kv_cache.build import build_cache
from xsvggt_ros.kv_cache.cache import KVCache
from xsvggt_ros.kv_cache.config import CacheConfig
from xsvggt_ros.kv_cache.dense_store import DenseStore
from xsvggt_ros.kv_cache.frame_window import FrameWindow
from xsvggt_ros.model.lingbot.config import LingBotConfig
from xsvggt_ros.model.lingbot.network import LingBotMap

FOLDER = GOLDEN / 'lingbot'
CASES = ('lb_tiny_h1', 'lb_small_h2')


@cache
def load_index() -> dict[str, Any]:
    """Return the table of contents."""
    return json.loads((FOLDER / 'README.json').read_text())


@cache
def load_recipe() -> Any:
    """Return the module that makes weights and frames."""
    spec = importlib.util.spec_from_file_location('lingbot_recipe', FOLDER / 'recipe.py')
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@cache
def load_case(name: str) -> GoldenCase:
    """Return the golden case `name`; the tests leave it as it is."""
    recipe, case = load_recipe(), load_index()['cases'][name]
    weights = recipe.state_dict(case['state_dict_shapes'], case['weight_seed'])
    frames = recipe.frames(case['frame_seed'], case['n_frames'], case['H'], case['W'])
    return GoldenCase(
        name, case['config'], {key: torch.from_numpy(array) for key, array in weights.items()},
        case['weights_sha256'], torch.from_numpy(frames), case['modes'],
        load_file(FOLDER / f'{name}.safetensors'))


def make_model(case: GoldenCase, **config: Any) -> LingBotMap:
    """Return the case's network; config: what its weights do not tell."""
    model = LingBotMap(LingBotConfig.from_dict(case.config | config))
    model.load_state_dict(case.weights, strict=True)
    return model


def make_memory(
    model: LingBotMap, height: int, width: int, scale_frames: int, window: int,
    old_frames: int = 1024,
) -> StreamCaches:
    """Return the published memory."""
    layout = model.cache_layout(height, width)
    policy = FrameWindow(layout.tokens.tokens_per_step, layout.tokens.special_tokens, 16,
                         scale_frames=scale_frames, window=window, old_frames=old_frames)
    budget = policy.fit_budget(1 << 30)
    store = DenseStore(layout.tokens, budget + 2 * layout.tokens.tokens_per_step,
                       torch.float32, torch.device('cpu'))
    camera = build_cache(
        layout.camera, CacheConfig(policy='full'), None, torch.float32, 'cpu', 'none')
    return StreamCaches(KVCache(layout.tokens, policy, budget, store), camera)
