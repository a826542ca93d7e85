"""Weights of others that this package can load: what they are, what they allow, where they lie."""

from dataclasses import dataclass
import os
from pathlib import Path


@dataclass(frozen=True)
class PublicWeights:
    """
    Weights that their authors publish.

    network: whose they are, as `model.kinds` calls it. repository, file: on Hugging Face; licence:
    its name; terms: what it allows, for people; note: what else to know before they are fetched.
    """

    name: str
    network: str
    repository: str
    file: str
    size: str
    licence: str
    terms: str
    note: str = ''
    is_gated: bool = False   # their authors ask for a form to be filled in first


STREAMVGGT = PublicWeights(
    'streamvggt', 'StreamVGGT', 'lch01/StreamVGGT', 'checkpoints.pth', '5.0 GB',
    'CC BY-NC-SA 4.0',
    'not for commercial use: the code is under this licence, and the work builds on VGGT weights '
    'that are non-commercial; read the terms in the repository before use')
VGGT_COMMERCIAL = PublicWeights(
    'vggt-commercial', 'StreamVGGT', 'facebook/VGGT-1B-Commercial', 'model.safetensors', '5.0 GB',
    'VGGT License', 'commercial use too, with the exceptions that it names (military uses)',
    'the keys are the same, but they were not trained for a stream: what they are worth here was '
    'not measured', is_gated=True)
LINGBOT_MAP = PublicWeights(
    'lingbot-map', 'LingBot-Map', 'robbyant/lingbot-map', 'lingbot-map.pt', '4.6 GB',
    'not declared',
    'the code is under Apache-2.0, and its README calls the project so, but the page of the '
    'weights declares no licence; whether they descend from non-commercial weights is an open '
    'question there: ask before you build a product on them',
    'another network, LingBot-Map: no point head, and poses from the first image on '
    '(docs/models.md)')
ALL = {weights.name: weights for weights in (STREAMVGGT, VGGT_COMMERCIAL, LINGBOT_MAP)}


def networks() -> str:
    """Return the names of the networks whose weights can be loaded, for a sentence."""
    return ' or '.join(dict.fromkeys(weights.network for weights in ALL.values()))


def where_to_get_weights() -> str:
    """Return in words which weights there are, and under which terms."""
    there = [f"{weights.network}'s are '{weights.file}' ({weights.size}) in the Hugging Face "
             f'model repository {weights.repository}, {weights.licence}: {weights.terms}. '
             for weights in ALL.values() if not weights.is_gated]
    return (f"{''.join(there)}xsvggt weights fetches them. 'small' is the checkpoint that comes "
            'with this package.')


def weights_folder() -> Path:
    """Return where fetched weights lie: XSVGGT_WEIGHTS, or the user's cache."""
    named = os.environ.get('XSVGGT_WEIGHTS')
    if named:
        return Path(named).expanduser()
    cache = os.environ.get('XDG_CACHE_HOME') or '~/.cache'
    return Path(cache).expanduser() / 'xsvggt' / 'weights'


def fetched_file(name: str) -> Path:
    """Return the file in which the weights called `name` are, once they were fetched."""
    return weights_folder() / f'{name}.safetensors'


def how_to_fetch(name: str) -> str:
    """Return in words how to get the weights called `name`."""
    weights = ALL[name]
    return (f"the weights '{name}' are not here ({fetched_file(name)}): xsvggt weights {name} "
            f'fetches them ({weights.size}, {weights.licence}: {weights.terms})')
