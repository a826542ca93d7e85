"""The golden data: what the public implementation computed on seeded random weights."""

from dataclasses import dataclass
import hashlib
import importlib.util
import json
from pathlib import Path
from types import ModuleType
from typing import Any

from safetensors import safe_open
import torch
from torch import Tensor

GOLDEN = Path(__file__).parent / 'golden'
CASES = ('tiny_h1', 'small_h2')


@dataclass(frozen=True)
class GoldenCase:
    """One network, the frames it saw and everything it answered."""

    name: str
    config: dict[str, Any]  # as ModelConfig.from_dict takes it
    weights: dict[str, Tensor]  # fp32, by checkpoint key
    weights_sha256: str  # of `weights`, as the authors of the data computed it
    frames: Tensor  # uint8 [F, 3, H, W]
    modes: dict[str, dict[str, Any]]  # budget, pool and map stride per cache mode
    tensors: dict[str, Tensor]  # '<mode>/<output>' and 'dbg/<name>'

    def image(self, index: int) -> Tensor:
        """Return frame `index` as the network takes it: [3, H, W] in [0, 1]."""
        return self.frames[index].float() / 255

    def rgb(self, index: int) -> Tensor:
        """Return frame `index` as the engine takes it: uint8 [H, W, 3]."""
        return self.frames[index].permute(1, 2, 0).contiguous()


def load_recipe() -> ModuleType:
    """Return the module that makes seeded weights; it lies with the data, outside any package."""
    spec = importlib.util.spec_from_file_location('golden_recipe', GOLDEN / 'recipe.py')
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def load_index() -> dict[str, Any]:
    """Return the table of contents of the golden data."""
    return json.loads((GOLDEN / 'README.json').read_text())


def load_case(name: str) -> GoldenCase:
    """Return the golden case `name`."""
    case = load_index()['cases'][name]
    tensors = load_tensors(case['file'])
    if case['weights_stored']:
        prefix = 'weights/'
        weights = {key[len(prefix):]: tensors.pop(key)
                   for key in list(tensors) if key.startswith(prefix)}
    else:
        made = load_recipe().state_dict(case['state_dict_shapes'], case['weight_seed'])
        weights = {key: torch.from_numpy(array) for key, array in made.items()}
    return GoldenCase(name, case['config'], weights, case['weights_sha256'],
                      tensors.pop('frames'), case['modes'], tensors)


def load_tensors(file: str) -> dict[str, Tensor]:
    """Return all tensors of one of the golden files."""
    with safe_open(GOLDEN / file, framework='pt') as opened:
        return {key: opened.get_tensor(key) for key in opened.keys()}


def load_full_shapes() -> dict[str, list[int]]:
    """Return key to shape of the full-size checkpoint, without the track head."""
    listed = json.loads((GOLDEN / 'state_dict_full.json').read_text())['state_dict']
    return {key: entry['shape'] for key, entry in listed.items()
            if not key.startswith('track_head.')}


def sha256_of(weights: dict[str, Tensor]) -> str:
    """Return the digest of weights: key bytes and fp32 bytes in the order of the keys."""
    digest = hashlib.sha256()
    for key in sorted(weights):
        digest.update(key.encode())
        digest.update(weights[key].numpy().tobytes())
    return digest.hexdigest()


def excess(value: Tensor, reference: Tensor) -> float:
    """Return the largest error in units of the tolerance, 1e-4 * (1 + |reference|)."""
    assert value.shape == reference.shape, (value.shape, reference.shape)
    assert torch.isfinite(value).all()
    return ((value - reference).abs() / (1e-4 * (1 + reference.abs()))).max().item()
