"""The networks there are, and how weights tell which one they belong to."""

from collections.abc import Collection
from dataclasses import dataclass

from xsvggt_ros.model.config import ModelConfig
from xsvggt_ros.model.lingbot.config import LingBotConfig
from xsvggt_ros.model.lingbot.network import LingBotMap
from xsvggt_ros.model.network import StreamNetwork
from xsvggt_ros.model.streamvggt import StreamVGGT


@dataclass(frozen=True)
class NetworkKind:
    """A network that checkpoints may be for."""

    name: str
    config: type[ModelConfig]
    network: type[StreamNetwork]
    key: str | None = None  # of the weights of this network only
    note: str = ''  # what it cannot do, for a person


STREAMVGGT = NetworkKind('StreamVGGT', ModelConfig, StreamVGGT)
LINGBOT_MAP = NetworkKind(
    'LingBot-Map', LingBotConfig, LingBotMap, 'aggregator.scale_token',
    'no point head: clouds come from the depth')
KINDS = (STREAMVGGT, LINGBOT_MAP)
SIZES = {'small': STREAMVGGT, 'full': STREAMVGGT, 'lingbot': LINGBOT_MAP}


def kind_of_weights(keys: Collection[str]) -> NetworkKind:
    """Return the network that weights with these keys are for, StreamVGGT if nothing tells."""
    return next((kind for kind in KINDS if kind.key in keys), STREAMVGGT)


def kind_of_config(config: ModelConfig) -> NetworkKind:
    """Return the network that a config describes."""
    return next(kind for kind in KINDS if type(config) is kind.config)


def sized(size: str) -> ModelConfig:
    """Return the config of a size, one of `SIZES`."""
    config = SIZES[size].config
    return config.small() if size == 'small' else config.full_size()
