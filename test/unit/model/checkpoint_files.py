"""Files of weights for tests of checkpoints."""

import json
import pickle
import zipfile

from safetensors.torch import save_file
import torch


def save(weights, path, config=None):
    """Write weights as their suffix says, and a config beside them."""
    if path.suffix == '.safetensors':
        save_file(weights, path)
    else:
        torch.save(weights, path)
    if config is not None:
        path.with_suffix('.json').write_text(json.dumps(config))


def pickled(content, path):
    path.write_bytes(pickle.dumps(content, protocol=2))


def zipped(names):
    def write(path):
        with zipfile.ZipFile(path, 'w') as archive:
            for name in names:
                archive.writestr(name, b'x')
    return write
