"""How good a network is: on unseen rooms of both worlds, and on real recordings."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from training import clip_errors
from training.clips import Clips
from training.wide_losses import SPREAD
from training.wide_pool import FIRST_UNSEEN, height_of, is_old, render_room, Ring, save_textures
from training.wide_world.textures import load_textures
from xsvggt_ros.console.progress import ProgressBar
from xsvggt_ros.evaluation.datasets.layouts import open_sequences
from xsvggt_ros.evaluation.eval_streams import EvalStream, prepare
from xsvggt_ros.evaluation.evaluation import EvalSetting, predict, Prediction, score
from xsvggt_ros.model.causal import ClipPrediction
from xsvggt_ros.model.checkpoint import LoadedModel
from xsvggt_ros.model.streamvggt import StreamVGGT

_FRAMES, _DENSE = 24, 6    # of a clip; every so-manieth has its depth looked at
_SCORES = ('depth_abs_rel', 'depth_delta_1_25', 'ate_ratio', 'rotation_deg', 'focal_error',
           'rpe_translation', 'rpe_rotation_deg')


def open_validation(folder: Path, textures: Path | None, rooms: int) -> Ring:
    """Return `rooms` rooms of each world, rendered if `folder` lacks them, unseen textures."""
    ring, numbers = Ring.open(folder, 2 * rooms), validation_rooms(rooms)
    photographs = folder / 'textures.npz'
    if not photographs.exists():
        save_textures(load_textures(textures).share(held_back=True), photographs)
    missing = [number for number in numbers if number not in ring.arrays['number'] - 1]
    bar = ProgressBar('rendering rooms for validation', max(len(missing), 1))
    for done, number in enumerate(missing, start=1):
        render_room(folder, len(ring), number, numbers.index(number))
        bar.update(done)
    bar.close(len(missing))
    return ring


def validation_rooms(rooms: int) -> list[int]:
    """Return the numbers of `rooms` rooms of the wide world, then of the synthetic one."""
    numbers = range(FIRST_UNSEEN, FIRST_UNSEEN + 10_000)
    wide = [number for number in numbers if not is_old(number) and height_of(number) == 84]
    return wide[:rooms] + [number for number in numbers if is_old(number)][:rooms]


@torch.no_grad()
def validate_rooms(model: StreamVGGT, ring: Ring, device: torch.device) -> dict[str, float]:
    """Return the errors along ways through rooms of both worlds: wide_..., old_..."""
    half = len(ring) // 2
    results = {}
    for name, slots in (('wide', range(half)), ('old', range(half, len(ring)))):
        scores = [_validate_clip(model, ring, slot, device) for slot in slots]
        for key in scores[0]:
            results[f'{name}_{key}'] = float(np.nanmean([one[key] for one in scores]))
    return results


def _validate_clip(model: StreamVGGT, ring: Ring, slot: int,
                   device: torch.device) -> dict[str, float]:
    """Return the errors along one path."""
    clips, predicted = _predict_slot(model, ring, slot, device)
    depth, found = clips.depth[0, ::_DENSE].numpy(), predicted.depth[0].cpu().numpy()
    known, scale = clip_errors.errors(clips, predicted, _DENSE)
    # How large errors are beside what the confidence makes of them; 1 is right.
    off = np.abs(np.log(np.maximum(found * scale, 1e-6) / depth))
    expected = SPREAD / predicted.depth_confidence[0].cpu().numpy()
    field = predicted.poses[-1, 0, :, 8].cpu().numpy()
    true_field = float(clips.fields_of_view[0, 0, 1])
    focal = np.abs(np.tan(true_field / 2) / np.tan(np.clip(field, 0.05, 3.0) / 2) - 1)
    return {**known, 'focal_error': float(focal.mean()),
            'error_over_expected': float(off.mean() / expected.mean())}


def _predict_slot(model: StreamVGGT, ring: Ring, slot: int,
                  device: torch.device) -> tuple[Clips, ClipPrediction]:
    """Return the path in a slot and what the network says about it."""
    clips = ring.clips_of_slots(np.array([slot]), np.arange(_FRAMES)[None], 84)
    return clips, clip_errors.predict(model, clips, device, _DENSE)


@torch.no_grad()
def predict_slot(model: StreamVGGT, ring: Ring,
                 slot: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return depths, true depths and confidences [K, H, W] of some frames of a slot's way."""
    clips, predicted = _predict_slot(model, ring, slot, torch.device('cpu'))
    return (predicted.depth[0].numpy(), clips.depth[0, ::_DENSE].numpy(),
            predicted.depth_confidence[0].numpy())


def open_real(folder: Path, layout: str, frames: int, width: int,
              patch_size: int) -> list[EvalStream]:
    """Return the streams of a data set, as `xsvggt eval --data` reads it; raise ToolError."""
    return [prepare(recording, frames, 1, width, patch_size, lambda: None)
            for recording in open_sequences(folder, layout)]


def predict_stream(model: StreamVGGT, stream: EvalStream, device: torch.device) -> Prediction:
    """Return what the network says about a stream, the cache forgetting nothing."""
    loaded = LoadedModel(model, model.config, 'in training', False)
    return predict(loaded, EvalSetting('full', 'none'), stream, device, 'auto', lambda: None)


def validate_real(model: StreamVGGT, streams: Sequence[EvalStream], device: torch.device,
                  ) -> dict[str, float]:
    """Return the errors on real streams, real_..., the cache forgetting nothing."""
    rows = [score(predict_stream(model, stream, device), stream) for stream in streams]
    results = {}
    for name in _SCORES:
        values = [value for value in (getattr(row, name) for row in rows) if value is not None]
        if values:
            results[f'real_{name}'] = float(np.mean(values))
    return results
