"""The tiny networks of the golden data, and engines for them."""

import golden_data
import lingbot_golden

from xsvggt_ros.engine.config import EngineConfig
from xsvggt_ros.engine.stream_engine import StreamEngine
from xsvggt_ros.kv_cache.config import CacheConfig
from xsvggt_ros.model.config import ModelConfig
from xsvggt_ros.model.lingbot.network import LingBotMap
from xsvggt_ros.model.streamvggt import StreamVGGT

CASE = golden_data.load_case('tiny_h1')
NETWORKS = ('streamvggt', 'lingbot')


def make_model(network='streamvggt'):
    """Return the network, a few milliseconds a frame."""
    if network == 'lingbot':
        return lingbot_golden.make_model(lingbot_golden.load_case('lb_tiny_h1'))
    model = StreamVGGT(ModelConfig.from_dict(CASE.config))
    model.load_state_dict(CASE.weights, strict=True)
    return model


def make_engine(model, **settings):
    """Return an engine with small caches; settings: of the caches and of the engine."""
    cache = {'policy': 'xstream', 'max_tokens': 60,
             'camera_max_tokens': 6 if isinstance(model, LingBotMap) else 24}  # six frames
    cache |= {k: settings.pop(k) for k in list(settings) if k in CacheConfig.__dataclass_fields__}
    own = {name: settings.pop(name) for name in ('graphs', 'report') if name in settings}
    return StreamEngine(model, EngineConfig(CacheConfig(**cache), **settings), **own)
