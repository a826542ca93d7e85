"""
Trains a network that sees real rooms, in the wide world: python -m training.train_wide.

It starts from the weights of `small`, can be stopped at any time, and goes on where it was; with
more --steps, after its end too.
"""

import argparse
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
import json
import os
from pathlib import Path
import signal
import time
from typing import Any

import numpy as np
import torch
from torch import nn

from training.attention_matching import find_matches, matching_blocks, MatchLoss, Readout
from training.bounded import BoundedHistory
from training.clips import Clips
from training.curves import draw_curves
from training.growth import grow, renew_confidences
from training.validation import open_real, open_validation, validate_real, validate_rooms
from training.wide_losses import wide_losses, wide_total
from training.wide_pool import FRAMES, RoomPool, WIDTH
from xsvggt_ros.console.environment import device_name
from xsvggt_ros.console.errors import ToolError
from xsvggt_ros.evaluation.eval_streams import EvalStream
from xsvggt_ros.model.causal import predict_clips
from xsvggt_ros.model.checkpoint import load_model, save_checkpoint
from xsvggt_ros.model.streamvggt import StreamVGGT
from xsvggt_ros.model.weight_files import CheckpointError, TRAINING_KEY

STATE_FILE = 'wide_state.pt'
_MUON_MATRICES = ('frame_blocks', 'global_blocks')
_STAGES = (   # from which share of the training on: frames of a clip, share along a path
    (0.0, (2, 4, 8, 12), 0.5),
    (0.25, (4, 8, 16, 24), 0.7),
    (0.9, (8, 12, 16, 24, 48), 0.9))
_BOUNDED_FROM = 0.9
_WARM = 40      # rooms that are there at least when clips are drawn


@dataclass(frozen=True)
class WidePlan:
    """Everything the result depends on, beside the code, the textures and the first weights."""

    seed: int = 0
    steps: int = 20000
    minutes: float | None = None     # instead of steps: of training
    begin: float = 0.0               # share of the plan that the first weights have behind them
    frames_per_step: int = 96
    dense_share: float = 0.5         # of a clip's frames have dense maps in a step
    rooms_per_step: float = 3.0      # new rooms, of 48 frames each: fewer are learned by heart
    slots: int = 400                 # rooms that clips are drawn from
    learning_rate: float = 6e-4      # AdamW
    muon_rate: float = 5e-3          # Muon, for the matrices of the aggregator's blocks
    weight_decay: float = 0.02
    warm_up: int = 100               # steps
    decay_from: float = 0.84         # share after which the rates fall to nothing
    average: float = 0.99            # decay of the moving average of the weights that is kept
    validate_every: int = 250
    validation_rooms: int = 10       # of each world
    real_frames: int = 100


class WideTrainer:
    """A network, its optimisers and the curves so far."""

    def __init__(self, plan: WidePlan, model: StreamVGGT, device: torch.device) -> None:
        """Start from the weights of `model`."""
        self.plan, self.device, self.model = plan, device, model.to(device)
        self.average = {key: value.clone() for key, value in model.state_dict().items()}
        matrices: list[nn.Parameter] = []
        others: list[nn.Parameter] = []
        for name, weight in model.named_parameters():
            weight.requires_grad_(True)
            inside = weight.dim() == 2 and any(part in name for part in _MUON_MATRICES)
            (matrices if inside else others).append(weight)
        self.readout = Readout(2 * model.config.embed_dim).to(device)
        self.optimizers = [
            torch.optim.Muon(matrices, lr=plan.muon_rate, weight_decay=plan.weight_decay),
            torch.optim.AdamW(others, lr=plan.learning_rate, betas=(0.9, 0.98),
                              weight_decay=plan.weight_decay),
            torch.optim.AdamW(self.readout.parameters(), lr=plan.learning_rate)]
        self._rates = [plan.muon_rate, plan.learning_rate, plan.learning_rate]
        self.step = 0
        self.seconds = 0.0
        self.curves: list[dict[str, float]] = []

    def progress(self, step: int | None = None) -> float:
        """Return which share of the training is done, now or, if that is known, at a step."""
        plan = self.plan
        if plan.minutes is not None:
            done = self.seconds / (60 * plan.minutes)
        else:
            done = (self.step if step is None else step) / plan.steps
        return min(plan.begin + (1 - plan.begin) * done, 1.0)

    def rate(self) -> float:
        """Return the share of the learning rate: warm-up, constant, then linearly to nothing."""
        left = (1 - self.progress()) / (1 - self.plan.decay_from)
        return float(np.clip(min((self.step + 1) / self.plan.warm_up, left), 0.0, 1.0))

    def rooms_before(self, step: int) -> int:
        """Return the number after the last room that step `step` may draw from."""
        return _WARM + int(step * self.plan.rooms_per_step)

    def draw(self, pool: RoomPool, step: int, progress: float,
             wait: bool) -> tuple[Clips, list[int], int | None]:
        """Return the clips of a step, which frames have dense maps, and how many are kept."""
        plan = self.plan
        rng = np.random.default_rng((plan.seed, step))
        _, lengths, along = [stage for stage in _STAGES if stage[0] <= progress][-1]
        frames = min(int(rng.choice(lengths)), FRAMES)
        end = pool.prepare(self.rooms_before(step), wait, _WARM)
        clips = pool.draw(rng, end, max(1, plan.frames_per_step // frames), frames, along)
        dense = sorted(rng.choice(frames, max(1, round(plan.dense_share * frames)), replace=False)
                       .tolist())
        bounded = None
        if progress >= _BOUNDED_FROM and frames >= 8 and rng.uniform() < 0.6:
            bounded = int(rng.integers(3, max(4, frames // 2)))
        return clips, dense, bounded

    def train_step(self, clips: Clips, dense: list[int],
                   bounded: int | None = None) -> dict[str, float]:
        """Do the next step with what `draw` returned for it; return its losses."""
        clips = clips.to(self.device)
        self.model.train()
        rate = self.rate()
        for optimizer, full in zip(self.optimizers, self._rates):
            optimizer.param_groups[0]['lr'] = full * rate
        config, generator = self.model.config, torch.Generator().manual_seed(self.step)
        found = find_matches(clips, config.patch_size, generator)
        matches = MatchLoss(found, config.special_tokens, matching_blocks(config.depth))
        with torch.autocast(self.device.type, torch.bfloat16):
            predicted = predict_clips(self.model, clips.images, dense,
                                      BoundedHistory(bounded) if bounded else None, matches)
        terms = {**wide_losses(predicted, clips, dense), 'matches': matches.value(),
                 'motion': self.readout(predicted.patch_tokens, found)}
        loss = wide_total(terms)
        loss.backward()
        norm = nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        for optimizer in self.optimizers:
            if torch.isfinite(norm):    # one bad step must not spoil all
                optimizer.step()
            optimizer.zero_grad()
        self.step += 1
        decay = min(self.plan.average, self.step / (self.step + 10))
        with torch.no_grad():
            torch._foreach_lerp_(list(self.average.values()),
                                 list(self.model.state_dict().values()), 1 - decay)
        return {name: float(term.detach()) for name, term in terms.items()}

    def averaged(self) -> StreamVGGT:
        """Return the network with the averaged weights, which is what is shipped."""
        model = StreamVGGT(self.model.config).to(self.device)
        model.load_state_dict(self.average)
        return model.eval().requires_grad_(False)

    def save(self, path: Path) -> None:
        """Write everything a resumed run needs; an old file stays until the new one is whole."""
        state = {'plan': asdict(self.plan), 'config': self.model.config.to_dict(),
                 'step': self.step, 'seconds': self.seconds, 'curves': self.curves,
                 'model': self.model.state_dict(), 'average': self.average,
                 'readout': self.readout.state_dict(),
                 'optimizers': [optimizer.state_dict() for optimizer in self.optimizers]}
        unfinished = path.with_suffix('.part')
        torch.save(state, unfinished)
        os.replace(unfinished, path)

    def resume(self, path: Path) -> None:
        """Go on from a saved state; raises ValueError if it is of another network."""
        state = torch.load(path, map_location=self.device, weights_only=True)
        if state['config'] != self.model.config.to_dict():
            raise ValueError(f'{path} holds another network: delete it, or name another --out')
        self.model.load_state_dict(state['model'])
        self.average = state['average']
        if 'readout' in state:
            self.readout.load_state_dict(state['readout'])
        for optimizer, values in zip(self.optimizers, state['optimizers']):
            optimizer.load_state_dict(values)
        self.step, self.seconds, self.curves = state['step'], state['seconds'], state['curves']


@dataclass(frozen=True)
class Sources:
    """Where training data come from and go to."""

    out: Path
    textures: Path | None = None
    real: Path | None = None
    layout: str = 'auto'
    processes: int = 1


class Run:
    """A training run in a folder: it feeds the trainer, validates and saves."""

    def __init__(self, trainer: WideTrainer, sources: Sources) -> None:
        """Open or make what the run needs in the folder; raises ToolError and ValueError."""
        self.trainer, self.sources = trainer, sources
        plan, out = trainer.plan, sources.out
        out.mkdir(parents=True, exist_ok=True)
        self._state = out / STATE_FILE
        if self._state.exists():
            trainer.resume(self._state)
            print(f'going on after step {trainer.step}', flush=True)
        self._real: list[EvalStream] = []
        if sources.real is not None:
            self._real = open_real(sources.real, sources.layout, plan.real_frames, WIDTH,
                                   trainer.model.config.patch_size)
        self._validation = open_validation(out / 'validation', sources.textures,
                                           plan.validation_rooms)
        self._stop = False
        self._recent: dict[str, float] = {}

    def stop(self, *_: Any) -> None:
        """Stop after the step that is under way."""
        self._stop = True

    def train(self, stop_at: int | None = None) -> None:
        """Train to the end of the plan or to a step, or until `stop`."""
        trainer, plan = self.trainer, self.trainer.plan
        if not trainer.curves:
            self._validate()
        # On a GPU steps are quicker than rooms: there clips are drawn from those that are ready.
        wait = trainer.device.type == 'cpu'
        pool = RoomPool(self.sources.out / 'rooms', self.sources.textures, plan.slots,
                        self.sources.processes)
        try:
            with ThreadPoolExecutor(1) as thread:
                def ahead(step: int) -> Callable[[], Any]:
                    return thread.submit(trainer.draw, pool, step, trainer.progress(step),
                                         wait).result

                drawn = ahead(trainer.step)
                while not self._over(stop_at):
                    begin = time.monotonic()
                    clips, dense, bounded = drawn()
                    waited = time.monotonic() - begin
                    drawn = ahead(trainer.step + 1)
                    terms = trainer.train_step(clips, dense, bounded)
                    trainer.seconds += time.monotonic() - begin
                    self._account({**terms, 'waited': waited, 'took': time.monotonic() - begin})
                drawn()
        finally:
            pool.close()
        self._save()
        draw_curves(trainer.curves, self.sources.out / 'wide_curves.png')

    def _over(self, stop_at: int | None) -> bool:
        trainer = self.trainer
        return self._stop or trainer.progress() >= 1 or (
            stop_at is not None and trainer.step >= stop_at)

    def _account(self, terms: dict[str, float]) -> None:
        """Take note of a step's losses; validate and save now and then."""
        trainer = self.trainer
        self._recent = {name: 0.98 * self._recent.get(name, value) + 0.02 * value
                        for name, value in terms.items()}
        if trainer.step % 25 == 0:
            words = ' '.join(f'{name} {value:.3f}' for name, value in self._recent.items())
            print(f'step {trainer.step} ({100 * trainer.progress():.1f} %) {words}', flush=True)
        if trainer.step % trainer.plan.validate_every == 0:
            self._validate()
            self._save()
        elif trainer.step % 50 == 0:
            self._save()

    def _validate(self) -> None:
        """Add a point to the curves."""
        trainer = self.trainer
        errors = validate_rooms(trainer.averaged(), self._validation, trainer.device)
        if self._real:
            errors |= validate_real(trainer.averaged(), self._real, trainer.device)
        trainer.curves.append({'step': trainer.step, 'seconds': round(trainer.seconds, 1),
                               **self._recent, **errors})
        print('validation: ' + ' '.join(f'{name} {value:.3f}' for name, value in errors.items()),
              flush=True)

    def _save(self) -> None:
        """Write state, checkpoint and curves."""
        trainer, out = self.trainer, self.sources.out
        trainer.save(self._state)
        words = f'synthetic rooms, simple and wide, {trainer.step} steps, seed {trainer.plan.seed}'
        save_checkpoint(trainer.averaged().to('cpu', torch.float16), out / 'wide.safetensors',
                        {'license': 'Apache-2.0', TRAINING_KEY: words})
        report = {'plan': asdict(trainer.plan), 'device': device_name(trainer.device),
                  'threads': torch.get_num_threads(), 'torch': torch.__version__,
                  'steps': trainer.step, 'frames': trainer.step * trainer.plan.frames_per_step,
                  'hours': round(trainer.seconds / 3600, 2), 'curves': trainer.curves}
        unfinished = out / 'wide_curves.part'
        unfinished.write_text(json.dumps(report, indent=1) + '\n', encoding='ascii')
        os.replace(unfinished, out / 'wide_curves.json')


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog='python -m training.train_wide', description=__doc__)
    plan = WidePlan()
    add = parser.add_argument
    add('--out', type=Path, default=Path('out/training'), metavar='DIR',
        help='where rooms, state, curves and checkpoint go (out/training)')
    add('--start', default='small', help='the weights to start from (small)')
    add('--grow', type=int, default=0, metavar='PAIRS',
        help='more pairs of blocks than the first weights have; the result is the same at first')
    add('--textures', type=Path, metavar='DIR',
        help='photographs of surfaces, CATEGORY_NUMBER.jpg (without: procedural textures)')
    add('--real', type=Path, metavar='DIR',
        help='a data set as `xsvggt eval --data` reads it, to validate on')
    add('--layout', default='auto', help='of the data set')
    add('--seed', type=int, default=plan.seed)
    add('--steps', type=int, default=plan.steps, help='may be another when it is resumed')
    add('--minutes', type=float, help='train so long, instead of so many steps')
    add('--begin', type=float, default=plan.begin, metavar='SHARE',
        help='how far the first weights are: longer clips and falling rates come sooner (0)')
    add('--stop-at', type=int, metavar='STEP', help='stop early; can be resumed')
    add('--frames-per-step', type=int, help='96, on a GPU 768')
    add('--rate', type=float, default=1.0, help='times the learning rates')
    add('--rooms-per-step', type=float, default=plan.rooms_per_step)
    add('--slots', type=int, default=plan.slots, help='rooms kept, 3.2 MB each')
    add('--validate-every', type=int, default=plan.validate_every, metavar='STEPS')
    add('--device', default='cuda' if torch.cuda.is_available() else 'cpu')
    add('--processes', type=int, help='processes that render rooms (1, on a GPU all cores but 2)')
    return parser


def main() -> None:
    """Parse the command line and train."""
    parser = _parser()
    options = parser.parse_args()
    gpu, default = options.device.startswith('cuda'), WidePlan()
    plan = WidePlan(
        seed=options.seed, steps=options.steps, minutes=options.minutes,
        begin=options.begin,
        frames_per_step=options.frames_per_step or (768 if gpu else 96),
        rooms_per_step=options.rooms_per_step * (8 if gpu else 1), slots=options.slots,
        learning_rate=default.learning_rate * options.rate,
        muon_rate=default.muon_rate * options.rate,
        validate_every=options.validate_every)
    processes = options.processes or (max(1, (os.cpu_count() or 1) - 2) if gpu else 1)
    try:
        loaded = load_model(options.start)
        model = loaded.model
        assert isinstance(model, StreamVGGT)
        model = grow(model, options.grow) if options.grow else model
        if loaded.depth_errors is None:
            renew_confidences(model)    # nobody has measured what they mean
        run = Run(WideTrainer(plan, model, torch.device(options.device)),
                  Sources(options.out, options.textures, options.real, options.layout, processes))
    except (OSError, ValueError, ToolError, CheckpointError) as error:
        parser.exit(1, f'{error}\n')
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, run.stop)
    run.train(options.stop_at)
    print(f'stopped after step {run.trainer.step}; the same command goes on from '
          f'{options.out / STATE_FILE}')


if __name__ == '__main__':
    main()
