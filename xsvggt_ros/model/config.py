"""Sizes of the network: which StreamVGGT is to be built."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

DPT_LEVELS = 4  # the dense heads fuse this many layers of the aggregator
# Far above any network, and far below what would keep a computer busy before it fails.
MAX_CHANNELS, MAX_LAYERS, MAX_NUMBER, MAX_IMAGE_SIDE = 1 << 16, 1000, 1e9, 1 << 13


def _require(condition: bool, message: str) -> None:
    """Raise ValueError with `message` unless `condition` holds."""
    if not condition:
        raise ValueError(f'model config: {message}')


def _integer(value: Any, name: str, minimum: int, maximum: int = MAX_CHANNELS) -> int:
    """Return `value` if it is a whole number of at least `minimum` and at most `maximum`."""
    _require(isinstance(value, int) and not isinstance(value, bool) and value >= minimum,
             f'{name} must be a whole number of at least {minimum}, got {_told(value)}')
    _require(value <= maximum, f'{name} must be at most {maximum}, got {_told(value)}')
    return value


def _positive(value: Any, name: str, maximum: float = MAX_NUMBER) -> float:
    """Return `value` as a float if it is a number above zero, not above `maximum`."""
    _require(isinstance(value, (int, float)) and not isinstance(value, bool) and value > 0,
             f'{name} must be a number above zero, got {_told(value)}')
    _require(value <= maximum, f'{name} must be at most {maximum:g}, got {_told(value)}')
    return float(value)


def _ratio(value: Any, name: str) -> float:
    """Return how many times wider a hidden layer is, as a float."""
    return _positive(value, name, MAX_LAYERS)


def _told(value: Any) -> str:
    """Return a value that may be anything, in few words."""
    if isinstance(value, int) and abs(value) > 10 ** 20:
        return 'a number of many digits'  # which Python refuses to write beyond 4300
    text = repr(value)
    return text if len(text) <= 100 else text[:100] + '...'


def _take(source: Any, kind: type, where: str, ignored: tuple[str, ...] = ()) -> dict[str, Any]:
    """Return the entries of `source` that are fields of the dataclass `kind`; no other may be."""
    _require(isinstance(source, Mapping),
             f'{where or "it"} must be a mapping, got {_told(source)}')
    known = [field.name for field in fields(kind)]
    prefix = f'{where}.' if where else ''
    for key in source:
        _require(key in known or key in ignored,
                 f'unknown key {prefix}{str(key)[:100]}; known keys are {", ".join(known)}')
    return {key: value for key, value in source.items() if key in known}


def _build(kind: type, values: dict[str, Any], where: str) -> Any:
    """Return `kind(**values)`, with a missing field named in the error."""
    prefix = f'{where}.' if where else ''
    for field in fields(kind):
        _require(field.name in values or not _is_required(field),
                 f'key {prefix}{field.name} is missing')
    return kind(**values)


def _is_required(field: Any) -> bool:
    """Return whether a dataclass field has no default."""
    return field.default is field.default_factory  # both are dataclasses.MISSING


@dataclass(frozen=True)
class PatchEmbedConfig:
    """
    How an image becomes patch tokens.

    `dinov2` is a vision transformer of its own, `conv` one bare convolution, for which the other
    fields mean nothing.
    """

    type: str  # noqa: A003 (the key in configs)
    depth: int = 24
    num_heads: int = 16
    mlp_ratio: float = 4.0
    num_register_tokens: int = 4

    def __post_init__(self) -> None:
        """Check the values."""
        _require(self.type in ('dinov2', 'conv'),
                 f"patch_embed.type must be 'dinov2' or 'conv', got {self.type!r}")
        _integer(self.depth, 'patch_embed.depth', 1, MAX_LAYERS)
        _integer(self.num_heads, 'patch_embed.num_heads', 1)
        _integer(self.num_register_tokens, 'patch_embed.num_register_tokens', 0)
        object.__setattr__(self, 'mlp_ratio', _ratio(self.mlp_ratio, 'patch_embed.mlp_ratio'))


@dataclass(frozen=True)
class CameraHeadConfig:
    """Size of the head that predicts the camera; it is as wide as two aggregator tokens."""

    trunk_depth: int = 4
    num_heads: int = 16
    mlp_ratio: float = 4.0

    def __post_init__(self) -> None:
        """Check the values."""
        _integer(self.trunk_depth, 'camera_head.trunk_depth', 1, MAX_LAYERS)
        _integer(self.num_heads, 'camera_head.num_heads', 1)
        object.__setattr__(self, 'mlp_ratio', _ratio(self.mlp_ratio, 'camera_head.mlp_ratio'))


@dataclass(frozen=True)
class DPTHeadConfig:
    """Size of the two heads that predict dense maps, and the layers they read (0-based)."""

    features: int
    out_channels: tuple[int, ...]
    intermediate_layer_idx: tuple[int, ...]

    def __post_init__(self) -> None:
        """Check the values."""
        # Half of the features and each of the out_channels get sines and cosines of two axes.
        _integer(self.features, 'dpt_head.features', 8)
        _require(self.features % 8 == 0,
                 f'dpt_head.features must be a multiple of 8, got {self.features}')
        for name, minimum in (('out_channels', 4), ('intermediate_layer_idx', 0)):
            values = getattr(self, name)
            _require(isinstance(values, (list, tuple)) and len(values) == DPT_LEVELS,
                     f'dpt_head.{name} must have {DPT_LEVELS} entries, got {_told(values)}')
            for value in values:
                _integer(value, f'each of dpt_head.{name}', minimum)
            object.__setattr__(self, name, tuple(values))
        _require(all(channels % 4 == 0 for channels in self.out_channels),
                 f'dpt_head.out_channels must be multiples of 4, got {self.out_channels}')


@dataclass(frozen=True)
class ModelConfig:
    """
    Everything that decides the network's keys and shapes.

    `img_size` is the side in pixels that the learnt patch positions of `dinov2` belong to; images
    of other sizes are fine, as long as their sides are multiples of `patch_size`.
    """

    img_size: int
    embed_dim: int
    depth: int  # pairs of a frame block and a global block
    num_heads: int
    patch_embed: PatchEmbedConfig
    camera_head: CameraHeadConfig
    dpt_head: DPTHeadConfig
    patch_size: int = 14
    mlp_ratio: float = 4.0
    num_register_tokens: int = 4
    rope_freq: float = 100.0

    def __post_init__(self) -> None:
        """Check the values and that they fit each other."""
        _integer(self.num_register_tokens, 'num_register_tokens', 0)
        for name in ('patch_size', 'embed_dim', 'num_heads'):
            _integer(getattr(self, name), name, 1)
        _integer(self.img_size, 'img_size', 1, MAX_IMAGE_SIDE)
        _integer(self.depth, 'depth', 1, MAX_LAYERS)
        object.__setattr__(self, 'mlp_ratio', _ratio(self.mlp_ratio, 'mlp_ratio'))
        object.__setattr__(self, 'rope_freq', _positive(self.rope_freq, 'rope_freq'))
        _require(self.img_size % self.patch_size == 0,
                 f'img_size {self.img_size} is not a multiple of patch_size {self.patch_size}')
        self._check_heads()
        layers = self.dpt_head.intermediate_layer_idx
        _require(max(layers) < self.depth,
                 f'dpt_head.intermediate_layer_idx {list(layers)} names a layer that a depth of '
                 f'{self.depth} does not have (they count from 0)')

    def _check_heads(self) -> None:
        """Check that every width can be shared out among its attention heads."""
        _require(self.embed_dim % (4 * self.num_heads) == 0,
                 f'embed_dim {self.embed_dim} must be a multiple of 4 * num_heads '
                 f'({self.num_heads}): a head turns pairs of channels on two axes')
        _require(self.patch_embed.type == 'conv'
                 or self.embed_dim % self.patch_embed.num_heads == 0,
                 f'embed_dim {self.embed_dim} is not a multiple of patch_embed.num_heads '
                 f'{self.patch_embed.num_heads}')
        _require(2 * self.embed_dim % self.camera_head.num_heads == 0,
                 f'twice embed_dim {self.embed_dim} is not a multiple of camera_head.num_heads '
                 f'{self.camera_head.num_heads}')

    @property
    def head_dim(self) -> int:
        """Return the channels of one attention head of the aggregator."""
        return self.embed_dim // self.num_heads

    @property
    def special_tokens(self) -> int:
        """Return the number of a frame's tokens that are no patches: camera and registers."""
        return 1 + self.num_register_tokens

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> 'ModelConfig':
        """
        Return the config that a nested mapping describes.

        A key that is not known is an error; `seed`, which golden cases carry for their weights,
        is ignored.
        """
        top = _take(values, cls, '', ignored=('seed',))
        for name, kind in (('patch_embed', PatchEmbedConfig), ('camera_head', CameraHeadConfig),
                           ('dpt_head', DPTHeadConfig)):
            if name in top:
                top[name] = _build(kind, _take(top[name], kind, name), name)
        return _build(cls, top, '')

    def to_dict(self) -> dict[str, Any]:
        """Return the mapping that `from_dict` turns back into this config; JSON can hold it."""
        values = asdict(self)
        if self.patch_embed.type == 'conv':
            values['patch_embed'] = {'type': 'conv'}
        values['dpt_head'] = {name: list(value) if isinstance(value, tuple) else value
                              for name, value in values['dpt_head'].items()}
        return values

    @classmethod
    def full_size(cls) -> 'ModelConfig':
        """Return the size of the public StreamVGGT checkpoint (1.19 billion parameters)."""
        return cls(img_size=518, embed_dim=1024, depth=24, num_heads=16,
                   patch_embed=PatchEmbedConfig(type='dinov2'),
                   camera_head=CameraHeadConfig(),
                   dpt_head=DPTHeadConfig(features=256, out_channels=(256, 512, 1024, 1024),
                                          intermediate_layer_idx=(4, 11, 17, 23)))

    @classmethod
    def small(cls) -> 'ModelConfig':
        """
        Return the size of the checkpoint that comes with the package.

        It keeps up with a camera on two CPU cores.
        """
        return cls(img_size=112, embed_dim=128, depth=6, num_heads=2,
                   patch_embed=PatchEmbedConfig(type='conv'),
                   camera_head=CameraHeadConfig(trunk_depth=2, num_heads=2),
                   dpt_head=DPTHeadConfig(features=32, out_channels=(32, 32, 64, 64),
                                          intermediate_layer_idx=(0, 2, 4, 5)))
