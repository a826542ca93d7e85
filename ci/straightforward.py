"""
The network as it was first written, before anything was made quick, for `xsvggt bench --compare`.

From the root of a git checkout: `PYTHONPATH=ci xsvggt bench --compare straightforward:engine`. The
old code is taken from the history into a folder of its own, under another package name.
"""

from pathlib import Path
import subprocess
import sys
from typing import Any

import numpy as np
import torch

from xsvggt_ros.bench.frame_bench import fill_caches

COMMIT = 'c972993'  # the node, demo and tests of the first step were complete
PACKAGE = 'xsvggt_straightforward'
FOLDER = Path('out') / 'straightforward'


def unpack() -> None:
    """Write the old package once, with its imports renamed."""
    if (FOLDER / PACKAGE).is_dir():
        return
    names = subprocess.run(['git', 'ls-tree', '-r', '--name-only', COMMIT, 'xsvggt_ros'],
                           capture_output=True, text=True, check=True).stdout.split()
    for name in names:
        if not name.endswith('.py'):
            continue
        content = subprocess.run(['git', 'show', f'{COMMIT}:{name}'], capture_output=True,
                                 text=True, check=True).stdout
        file = FOLDER / name.replace('xsvggt_ros', PACKAGE, 1)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(content.replace('xsvggt_ros', PACKAGE), encoding='utf-8')


def engine(settings: dict[str, Any]) -> Any:
    """Return the old engine with the weights of the new one; it has only the policies of then."""
    unpack()
    sys.path.insert(0, str(FOLDER))
    from xsvggt_straightforward.engine.stream_engine import StreamEngine
    from xsvggt_straightforward.kv_cache.config import CacheConfig
    from xsvggt_straightforward.kv_cache.retention import POLICIES
    from xsvggt_straightforward.model.config import ModelConfig
    from xsvggt_straightforward.model.streamvggt import StreamVGGT

    model = settings['loaded'].model
    with torch.device('meta'):
        old = StreamVGGT(ModelConfig.from_dict(model.config.to_dict()))
    # Copies: the new engine folds its weights into each other and may round them.
    old.load_state_dict({name: weight.clone() for name, weight in model.state_dict().items()},
                        assign=True)
    policy = settings['policy'] if settings['policy'] in POLICIES else 'xstream'
    made = StreamEngine(old.eval(), CacheConfig(policy=policy, max_tokens=settings['max_tokens']),
                        settings['device'])
    if settings['fill']:
        fill_caches(made, np.zeros((settings['height'], settings['width'], 3), np.uint8))
    return made
