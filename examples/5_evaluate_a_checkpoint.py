"""
Measure how true a checkpoint is, from Python: `xsvggt eval` without the command.

It reconstructs rooms of the synthetic world that nothing was trained on, whose depth and poses
are known, and prints one line of errors:

    python3 examples/5_evaluate_a_checkpoint.py [CHECKPOINT] [--rooms N] [--frames N]
"""

import argparse
import sys

import torch

from xsvggt_ros.evaluation import evaluation
from xsvggt_ros.evaluation.eval_streams import prepare, world_sources
from xsvggt_ros.evaluation.evaluation import EvalSetting, Scores
from xsvggt_ros.model.checkpoint import CheckpointError, load_model

RATE = 5.0  # frames a second: 100 of them go about a room
SETTING = EvalSetting(policy='frame_coverage', quantization='int4')


def evaluate(checkpoint: str, rooms: int, frames: int) -> Scores:
    """Return the mean errors over some rooms; raise CheckpointError."""
    loaded, cpu = load_model(checkpoint), torch.device('cpu')
    scores = []
    for recording in world_sources('test', rooms, frames, RATE):
        stream = prepare(recording, frames, stride=1, image_size=loaded.config.img_size,
                         patch_size=loaded.config.patch_size, frame_done=lambda: None)
        predicted = evaluation.predict(
            loaded, SETTING, stream, cpu, 'auto', frame_done=lambda: None)
        scores.append(evaluation.score(predicted, stream))
    return evaluation.mean(scores)


def main(arguments: list[str] | None = None) -> None:
    """Evaluate and print; what is wrong with the checkpoint is said in one line."""
    parser = argparse.ArgumentParser(description=__doc__.split(':')[0])
    parser.add_argument('checkpoint', nargs='?', default='small')
    parser.add_argument('--rooms', type=int, default=2)
    parser.add_argument('--frames', type=int, default=50, help='of each room')
    options = parser.parse_args(arguments)
    try:
        scores = evaluate(options.checkpoint, options.rooms, options.frames)
    except CheckpointError as error:
        sys.exit(str(error))
    print(f'{options.checkpoint}, {SETTING}, {options.rooms} rooms of {options.frames} frames: '
          f'depth AbsRel {scores.depth_abs_rel:.3f}, within a factor of 1.25 '
          f'{scores.depth_delta_1_25:.3f}, ATE {scores.ate:.2f} m ({scores.ate_ratio:.3f} of the '
          f'spread), rotation {scores.rotation_deg:.1f} deg')


if __name__ == '__main__':
    main()
