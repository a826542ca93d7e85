"""The curves of a training run as a picture."""

from pathlib import Path

import matplotlib
from matplotlib.figure import Figure

_ERRORS = {'depth_abs_rel': 'depth AbsRel', 'ate_ratio': 'ATE / spread of positions',
           'rotation_deg': 'rotation error (deg)'}


def draw_curves(curves: list[dict[str, float]], path: Path) -> None:
    """Write a PNG with the errors in unseen rooms and the losses over the steps."""
    matplotlib.use('agg')
    figure = Figure(figsize=(12, 3.2), layout='constrained')
    axes = figure.subplots(1, 4)
    steps = [point['step'] for point in curves]
    for axis, (name, label) in zip(axes, _ERRORS.items()):
        axis.plot(steps, [point[name] for point in curves], marker='.')
        axis.set(title=label, xlabel='step', ylim=(0, None))
        axis.grid(alpha=0.3)
    for name in curves[0]:
        if name not in ('step', 'seconds', 'depth_delta_1_25', *_ERRORS):
            axes[3].plot(steps, [point[name] for point in curves], label=name)
    axes[3].set(title='losses', xlabel='step')
    axes[3].legend(fontsize=7)
    axes[3].grid(alpha=0.3)
    figure.savefig(path, dpi=110)
