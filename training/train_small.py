"""
Trains the checkpoint `small` in synthetic rooms: `make train-small`, or python -m training.

The same seed gives the same weights on the same machine and torch. It can be stopped at any time
and goes on where it saved last.
"""

import argparse
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
import json
import os
from pathlib import Path
import time
from typing import TypeVar

import numpy as np
import torch
from torch import nn

from training.clip_errors import errors, predict
from training.clips import Clips, draw_clips, load_clips
from training.curves import draw_curves
from training.losses import losses, total
from training.rooms import open_rooms, RANDOM_VIEWS, Rooms
from xsvggt_ros.console.environment import device_name
from xsvggt_ros.console.progress import ProgressBar
from xsvggt_ros.model.causal import predict_clips
from xsvggt_ros.model.checkpoint import save_checkpoint
from xsvggt_ros.model.config import ModelConfig
from xsvggt_ros.model.random_weights import POINT_AHEAD, POSE_CHANGE
from xsvggt_ros.model.streamvggt import StreamVGGT
from xsvggt_ros.model.weight_files import TRAINING_KEY
from xsvggt_ros.world.synthetic_world import SPLITS

STATE_FILE = 'state.pt'
Drawn = TypeVar('Drawn')
_HELPER_LEVEL = 1   # of the four layers that the dense heads read
_MUON_MATRICES = ('frame_blocks', 'global_blocks')


@dataclass(frozen=True)
class Plan:
    """Everything the result depends on, beside the code."""

    seed: int = 0
    steps: int = 5600
    rooms: int = 1600
    validation_rooms: int = 24
    width: int = 112
    height: int = 84
    frames_per_step: int = 96        # clips of S frames come in batches of frames_per_step / S
    dense_share: float = 0.25        # of a clip's frames have dense maps in a step
    short_clips: tuple[int, ...] = (2, 4, 6)       # at first
    long_clips: tuple[int, ...] = (4, 8, 16)       # in the end
    long_from: float = 0.6           # share of the steps after which clips are long, rates fall
    path_share: float = 0.5          # of the long clips follow a path; of the short ones half that
    learning_rate: float = 1.5e-3    # AdamW
    muon_rate: float = 1.2e-2        # Muon, for the matrices of the aggregator's blocks
    weight_decay: float = 0.02
    warm_up: int = 200               # steps
    average: float = 0.998           # decay of the moving average of the weights that is kept
    validate_every: int = 500


class Trainer:
    """A network, its optimisers and the curves so far."""

    def __init__(self, plan: Plan, config: ModelConfig, device: torch.device) -> None:
        """Build the network with the first weights of `plan.seed`."""
        self.plan, self.device = plan, device
        torch.manual_seed(plan.seed)
        self.model = StreamVGGT(config)
        initialize(self.model)
        self.model.to(device)
        # Reads the room's frame from the camera token half-way up; see `losses`.
        self.helper = nn.Linear(2 * config.embed_dim, 12).to(device)
        self.average = {key: value.clone() for key, value in self.model.state_dict().items()}
        matrices: list[nn.Parameter] = []
        others: list[nn.Parameter] = []
        for name, weight in self.model.named_parameters():
            inside = weight.dim() == 2 and any(part in name for part in _MUON_MATRICES)
            (matrices if inside else others).append(weight)
        self.optimizers = [
            torch.optim.Muon(matrices, lr=plan.muon_rate, weight_decay=plan.weight_decay),
            torch.optim.AdamW([*others, *self.helper.parameters()], lr=plan.learning_rate,
                              betas=(0.9, 0.98), weight_decay=plan.weight_decay)]
        self.schedules = [torch.optim.lr_scheduler.LambdaLR(optimizer, self._rate)
                          for optimizer in self.optimizers]
        self.step = 0
        self.seconds = 0.0
        self.curves: list[dict[str, float]] = []

    def _rate(self, step: int) -> float:
        """Return the share of the learning rate: warm-up, constant, then linearly to nothing."""
        plan = self.plan
        left = (plan.steps - step) / ((1 - plan.long_from) * plan.steps)
        return float(np.clip(min((step + 1) / plan.warm_up, left), 0.0, 1.0))

    def draw(self, rooms: Rooms, step: int) -> tuple[Clips, list[int]]:
        """Return the clips of a step and which of their frames have dense maps in it."""
        plan = self.plan
        rng = np.random.default_rng((plan.seed, step))   # a resumed run draws the same
        long = step >= plan.long_from * plan.steps
        frames = int(rng.choice(plan.long_clips if long else plan.short_clips))
        clips = draw_clips(rooms, rng, plan.frames_per_step // frames, frames,
                           plan.path_share if long else plan.path_share / 2)
        dense = sorted(rng.choice(frames, max(1, round(plan.dense_share * frames)), replace=False)
                       .tolist())
        return clips, dense

    def train_step(self, clips: Clips, dense: list[int]) -> dict[str, float]:
        """Do the next step with what `draw` returned for it; return its losses."""
        clips = clips.to(self.device)
        self.model.train()
        with torch.autocast(self.device.type, torch.bfloat16):
            predicted = predict_clips(self.model, clips.images, dense)
        room = self.helper(nn.functional.layer_norm(
            predicted.camera_tokens[_HELPER_LEVEL].float(), (self.helper.in_features,)))
        terms = losses(predicted, clips, dense, room)
        total(terms).backward()
        nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        for optimizer, schedule in zip(self.optimizers, self.schedules):
            optimizer.step()
            optimizer.zero_grad()
            schedule.step()
        self.step += 1
        decay = min(self.plan.average, self.step / (self.step + 10))
        with torch.no_grad():
            for key, value in self.model.state_dict().items():
                self.average[key].lerp_(value, 1 - decay)
        return {name: float(term.detach()) for name, term in terms.items()}

    def averaged(self) -> StreamVGGT:
        """Return the network with the averaged weights, which is what is shipped."""
        model = StreamVGGT(self.model.config).to(self.device)
        model.load_state_dict(self.average)
        return model.eval()

    def save(self, path: Path) -> None:
        """Write everything a resumed run needs; an old file stays until the new one is whole."""
        state = {'plan': asdict(self.plan), 'config': self.model.config.to_dict(),
                 'step': self.step, 'seconds': self.seconds, 'curves': self.curves,
                 'model': self.model.state_dict(), 'average': self.average,
                 'helper': self.helper.state_dict(),
                 'optimizers': [optimizer.state_dict() for optimizer in self.optimizers],
                 'schedules': [schedule.state_dict() for schedule in self.schedules]}
        unfinished = path.with_suffix('.part')
        torch.save(state, unfinished)
        os.replace(unfinished, path)

    def resume(self, path: Path) -> None:
        """Go on from a saved state; raises ValueError if it is of another plan."""
        state = torch.load(path, map_location=self.device, weights_only=True)
        if state['plan'] != asdict(self.plan):
            raise ValueError(f'{path} was trained to another plan: delete it, or name another '
                             '--out')
        self.model.load_state_dict(state['model'])
        self.helper.load_state_dict(state['helper'])
        self.average = state['average']
        for optimizer, values in zip(self.optimizers, state['optimizers']):
            optimizer.load_state_dict(values)
        for schedule, values in zip(self.schedules, state['schedules']):
            schedule.load_state_dict(values)
        self.step, self.seconds, self.curves = state['step'], state['seconds'], state['curves']


def initialize(model: StreamVGGT) -> None:
    """Give `model` the weights that training starts from; torch's generator draws them."""
    for name, weight in model.named_parameters():
        if name.endswith('gamma'):
            nn.init.constant_(weight, 0.5)   # 0.01 is for networks that are already trained
        elif 'camera_token' in name or 'register_token' in name:
            nn.init.normal_(weight, std=0.5)
    with torch.no_grad():
        model.camera_head.pose_branch.fc2.weight.mul_(0.1)
        model.camera_head.pose_branch.fc2.bias.copy_(torch.tensor(POSE_CHANGE))
        for head, bias in ((model.point_head, POINT_AHEAD), (model.depth_head, (0.8, 0.0))):
            last = head.scratch.output_convolutions[1]
            if last.bias is not None:
                last.bias.copy_(torch.tensor(bias))


@torch.no_grad()
def validate(model: StreamVGGT, rooms: Rooms, device: torch.device) -> dict[str, float]:
    """Return the errors over ways through rooms that were never trained on."""
    results = []
    for room in range(len(rooms)):
        clips = load_clips(rooms, np.array([room]), RANDOM_VIEWS + np.arange(32)[None])
        results.append(errors(clips, predict(model, clips, device, 8), 8)[0])
    return {name: float(np.nanmean([one[name] for one in results])) for name in results[0]}


def train(plan: Plan, config: ModelConfig, folder: Path, device: torch.device,
          processes: int, stop_at: int | None = None) -> Trainer:
    """Train to the end of `plan` (or to step `stop_at`), saving in `folder` as it goes."""
    folder.mkdir(parents=True, exist_ok=True)
    size = (plan.width, plan.height)
    validation = open_rooms(folder / 'rooms_validation',
                            SPLITS['validation'][:plan.validation_rooms], size, processes)
    rooms = open_rooms(folder / 'rooms', SPLITS['train'][:plan.rooms], size, processes)
    trainer = Trainer(plan, config, device)
    state = folder / STATE_FILE
    if state.exists():
        trainer.resume(state)
        print(f'going on after step {trainer.step}')
    bar = ProgressBar('training', plan.steps)
    end = min(plan.steps, stop_at or plan.steps)
    recent: dict[str, float] = {}
    for clips, dense in ahead(lambda step: trainer.draw(rooms, step), trainer.step, end):
        begin = time.monotonic()
        terms = trainer.train_step(clips, dense)
        trainer.seconds += time.monotonic() - begin
        recent = {name: 0.98 * recent.get(name, value) + 0.02 * value
                  for name, value in terms.items()}
        words = ' '.join(f'{name} {value:.3f}' for name, value in recent.items())
        bar.update(trainer.step, words)
        if trainer.step % plan.validate_every == 0 or trainer.step == end:
            errors = validate(trainer.averaged(), validation, device)
            trainer.curves.append({'step': trainer.step, 'seconds': round(trainer.seconds, 1),
                                   **recent, **errors})
            trainer.save(state)
            write_results(trainer, folder)
            print('\n' + ' '.join(f'{name} {value:.3f}' for name, value in errors.items()))
    bar.close(trainer.step)
    return trainer


def ahead(draw: Callable[[int], Drawn], start: int, end: int) -> Iterator[Drawn]:
    """Yield what `draw` returns for the steps from `start` to `end`, one drawn in advance."""
    with ThreadPoolExecutor(1) as pool:
        upcoming = pool.submit(draw, start)
        for step in range(start, end):
            drawn = upcoming.result()
            if step + 1 < end:
                upcoming = pool.submit(draw, step + 1)
            yield drawn


def write_results(trainer: Trainer, folder: Path) -> None:
    """Write the checkpoint and the curves to `folder`."""
    model = trainer.averaged().to('cpu', torch.float16)
    plan = trainer.plan
    save_checkpoint(model, folder / 'small.safetensors', {
        'license': 'Apache-2.0',
        TRAINING_KEY: f'synthetic rooms, {trainer.step} steps, seed {plan.seed}'})
    report = {'plan': asdict(plan), 'device': device_name(trainer.device),
              'threads': torch.get_num_threads(),
              'torch': torch.__version__, 'steps': trainer.step,
              'frames': trainer.step * plan.frames_per_step,
              'hours': round(trainer.seconds / 3600, 2), 'curves': trainer.curves}
    (folder / 'curves.json').write_text(json.dumps(report, indent=1) + '\n', encoding='ascii')
    draw_curves(trainer.curves, folder / 'curves.png')


def main() -> None:
    """Parse the command line and train."""
    parser = argparse.ArgumentParser(prog='python -m training', description=__doc__)
    plan = Plan()
    parser.add_argument('--out', type=Path, default=Path('out/training'), metavar='DIR',
                        help='where rooms, state, curves and checkpoint go (out/training)')
    parser.add_argument('--seed', type=int, default=plan.seed)
    parser.add_argument('--steps', type=int, default=plan.steps)
    parser.add_argument('--rooms', type=int, default=plan.rooms, help='rooms to render and use')
    parser.add_argument('--stop-at', type=int, metavar='STEP', help='stop early; can be resumed')
    parser.add_argument('--device', default='cuda' if torch.cuda.is_available() else 'cpu')
    parser.add_argument('--processes', type=int, default=os.cpu_count() or 1,
                        help='processes that render rooms')
    options = parser.parse_args()
    plan = Plan(seed=options.seed, steps=options.steps, rooms=options.rooms)
    try:
        train(plan, ModelConfig.small(), options.out, torch.device(options.device),
              options.processes, options.stop_at)
    except KeyboardInterrupt:
        print(f'\nstopped; the same command goes on from {options.out / STATE_FILE}')
    except (OSError, ValueError) as error:
        parser.exit(1, f'{error}\n')
