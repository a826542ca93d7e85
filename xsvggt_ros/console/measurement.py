"""What all commands that measure something need: device, network, a file for the results."""

import json
from pathlib import Path
import sys
from typing import Any

import torch

from xsvggt_ros.console.errors import ToolError
from xsvggt_ros.kernels import native
from xsvggt_ros.model.checkpoint import CheckpointError, load_model, LoadedModel


def choose_device(name: str) -> torch.device:
    """Return the device that `--device` names; raise ToolError if it is not there."""
    if name == 'auto':
        name = 'cuda' if torch.cuda.is_available() else 'cpu'
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ToolError(f'--device {name}: there is no such device; use cpu, cuda or cuda:N'
                        ) from error
    if device.type == 'cuda' and not torch.cuda.is_available():
        raise ToolError(f'--device {name}: torch {torch.__version__} sees no GPU')
    return device


def load_network(
    checkpoint: str, size: str, device: torch.device, weights: str = 'auto', dtype: str = 'auto',
) -> LoadedModel:
    """Return the network on the device; dtype: what `--dtype` says. Raises ToolError."""
    try:
        loaded = load_model(checkpoint, size, device, weights=weights, precision=dtype)
        warn_missing_kernels(device)
        return loaded
    except (CheckpointError, RuntimeError) as error:
        raise ToolError(str(error)) from error
    except ValueError as error:
        raise ToolError(f'--{error}') from error


def warn_missing_kernels(device: torch.device) -> None:
    """Say on the console why the C++ kernels are not used on a CPU, if they should be."""
    reason = native.why_missing() if device.type == 'cpu' else None
    if reason is not None:
        print(reason, file=sys.stderr)


def check_image_size(width: int, patch_size: int) -> None:
    """Raise ToolError unless `--image-size` is a number of whole patches."""
    if width % patch_size:
        raise ToolError(f'--image-size must be a multiple of {patch_size}, for example '
                        f'{max(1, round(width / patch_size)) * patch_size}; got {width}')


def check_tracking_size(
    width: int | None, image_width: int, stride: int, patch_size: int,
) -> None:
    """Raise ToolError for a `--tracking-size` that cannot be, or that changes nothing."""
    if width is None:
        return
    if stride == 1:
        raise ToolError('--tracking-size is for frames that are not remembered, and all are: give '
                        '--keyframe-stride 2 or more')
    if width % patch_size or width > image_width:
        raise ToolError(f'--tracking-size must be a multiple of {patch_size}, {image_width} at '
                        f'most; got {width}')


def check_writable(file: Path | None) -> None:
    """Make the folder of the JSON file now: a long run must not end with nothing written."""
    if file is None:
        return
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ToolError(f'--json {file}: its folder cannot be made: {error}') from error
    if file.is_dir():
        raise ToolError(f'--json {file}: this is a folder; name a file')


def write_json(file: Path, content: dict[str, Any]) -> None:
    """Write the results; raise ToolError."""
    try:
        file.write_text(json.dumps(content, indent=2) + '\n', encoding='utf-8')
    except OSError as error:
        raise ToolError(f'--json {file}: cannot be written: {error}') from error
