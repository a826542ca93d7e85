"""
Measures what the confidences of a checkpoint mean, and writes it into the checkpoint.

python -m training.calibrate CHECKPOINT --out DIR: half of DIR's validation rooms make the table,
the other half, and a real data set if there is one, tell how well it holds.
"""

import argparse
from pathlib import Path

import numpy as np
from safetensors import safe_open
import torch

from training.train_wide import WidePlan
from training.validation import open_real, open_validation, predict_slot, predict_stream
from training.wide_pool import Ring, WIDTH
from xsvggt_ros.console.errors import ToolError
from xsvggt_ros.model.checkpoint import load_model, save_checkpoint
from xsvggt_ros.model.error_table import calibration, ErrorTable, fit_error_table, KEY
from xsvggt_ros.model.streamvggt import StreamVGGT
from xsvggt_ros.model.weight_files import CheckpointError, CONFIG_KEY

Seen = tuple[np.ndarray, np.ndarray]    # confidences and relative errors, [n]


def errors_of(depth: np.ndarray, truth: np.ndarray, confidence: np.ndarray) -> Seen:
    """Return confidences and relative errors where the truth is known, one scale taken out."""
    known = truth > 0
    ratio = depth[known].astype(np.float64) / truth[known]
    return confidence[known], np.abs(ratio / np.median(ratio) - 1)


def see_rooms(model: StreamVGGT, ring: Ring, odd: bool) -> Seen:
    """Return what is seen in every second room of either world."""
    half = len(ring) // 2
    slots = [*range(int(odd), half, 2), *range(half + int(odd), len(ring), 2)]
    return _joined([errors_of(*predict_slot(model, ring, slot)) for slot in slots])


def _joined(parts: list[Seen]) -> Seen:
    confidences, errors = zip(*parts)
    return np.concatenate(confidences), np.concatenate(errors)


def report(name: str, table: ErrorTable, seen: Seen) -> str:
    """Return a line on how well the table holds: true over expected error, tenth by tenth."""
    rows = calibration(table.relative_errors(torch.from_numpy(seen[0])).numpy(), seen[1])
    ratios = [true / expected for expected, true in rows]
    return (f'{name}: true over expected error in tenths of expected error, smallest first: '
            + ' '.join(f'{ratio:.2f}' for ratio in ratios))


def main() -> None:
    """Parse the command line, measure, and write."""
    parser = argparse.ArgumentParser(prog='python -m training.calibrate', description=__doc__)
    add = parser.add_argument
    add('checkpoint', type=Path, help='a .safetensors file, which is written anew')
    add('--out', type=Path, default=Path('out/training'), metavar='DIR',
        help="the training's folder (out/training)")
    add('--rooms', type=int, default=WidePlan().validation_rooms, help='of each world')
    add('--textures', type=Path, metavar='DIR')
    add('--real', type=Path, metavar='DIR', help='a data set to see how well it holds there')
    add('--layout', default='auto')
    options = parser.parse_args()
    try:
        model = load_model(str(options.checkpoint)).model
        assert isinstance(model, StreamVGGT)
        ring = open_validation(options.out / 'validation', options.textures, options.rooms)
        real = [] if options.real is None else open_real(
            options.real, options.layout, WidePlan().real_frames, WIDTH, model.patch_size)
    except (OSError, ValueError, ToolError, CheckpointError) as error:
        parser.exit(1, f'{error}\n')
    table = fit_error_table(*see_rooms(model, ring, odd=False))
    print(report('other rooms', table, see_rooms(model, ring, odd=True)))
    for stream in real:
        predicted = predict_stream(model, stream, torch.device('cpu'))
        assert predicted.confidences is not None
        print(report(stream.name, table, errors_of(predicted.depths, stream.depths,
                                                   predicted.confidences)))
    with safe_open(options.checkpoint, framework='pt') as opened:
        notes = {key: value for key, value in opened.metadata().items() if key != CONFIG_KEY}
        kinds = {opened.get_slice(key).get_dtype() for key in opened.keys()}
    if kinds == {'F16'}:
        model = model.half()
    save_checkpoint(model, options.checkpoint, {**notes, KEY: table.to_json()})
    print(f'{options.checkpoint}: errors from {table.errors[-1]:.3f} to {table.errors[0]:.3f} '
          f'for confidences from {table.confidences[-1]:.1f} to {table.confidences[0]:.1f}')


if __name__ == '__main__':
    main()
