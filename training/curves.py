"""The curves of a training run as a picture: `python -m training.curves CURVES.json OUT.png`."""

import json
from pathlib import Path
import sys

import matplotlib
from matplotlib.figure import Figure

from training import losses, wide_losses

_ERRORS = {'depth_abs_rel': 'depth AbsRel', 'ate_ratio': 'ATE / spread of positions',
           'rotation_deg': 'rotation error (deg)'}
# Prefixes of errors, by what they were measured on; of a training in one world they have none.
_SETS = {'': 'unseen rooms', 'old_': 'synthetic world', 'wide_': 'wide world', 'real_': 'real'}


def draw_curves(curves: list[dict[str, float]], path: Path) -> None:
    """
    Write a PNG with errors and losses over the steps.

    Each point has `step`, errors by the names of `xsvggt eval`, with prefixes `old_`, `wide_` and
    `real_` where several sets were measured, and losses.
    """
    matplotlib.use('agg')
    figure = Figure(figsize=(12, 3.2), layout='constrained')
    axes = figure.subplots(1, 4)
    steps = [point['step'] for point in curves]
    for axis, (name, label) in zip(axes, _ERRORS.items()):
        for prefix, measured in _SETS.items():
            if prefix + name in curves[0]:
                axis.plot(steps, [point[prefix + name] for point in curves], marker='.',
                          label=measured)
        axis.set(title=label, xlabel='step', ylim=(0, None))
        axis.grid(alpha=0.3)
        axis.legend(fontsize=7)
    for name in curves[-1]:
        if name in losses.WEIGHTS or name in wide_losses.WEIGHTS:
            axes[3].plot(steps, [point.get(name, float('nan')) for point in curves], label=name)
    axes[3].set(title='losses', xlabel='step')
    axes[3].legend(fontsize=7)
    axes[3].grid(alpha=0.3)
    figure.savefig(path, dpi=110)


if __name__ == '__main__':
    draw_curves(json.loads(Path(sys.argv[1]).read_text())['curves'], Path(sys.argv[2]))
