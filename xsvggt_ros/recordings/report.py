"""report.json: what a run read, what it made of it, and which files it wrote."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
import json
import math
from pathlib import Path
from typing import Any

import numpy as np

from xsvggt_ros.console.environment import package_version
from xsvggt_ros.mapping.map_files import format_stamp
from xsvggt_ros.recordings.calibration import Calibration
from xsvggt_ros.recordings.recording import Recording, writing

REPORT_FILE = 'report.json'


@dataclass
class RunReport:
    """What is known of a run beside its recording."""

    source: str                          # the input, in words
    calibration: Calibration | None = None
    scale: dict[str, Any] = field(default_factory=dict)     # see `RecordingScale.as_json`
    cache: dict[str, Any] = field(default_factory=dict)     # its settings
    device: str = ''
    seconds: float = 0.0
    skipped: str = ''
    complete: bool = False               # False: interrupted, or ended by an error
    exports: dict[str, Any] = field(default_factory=dict)   # by name: files and notes
    trajectory: str = 'network'          # whose poses
    poses_from: dict[str, int] = field(default_factory=dict)   # source: how many frames
    against_odometry: dict[str, Any] | None = None   # see `RecordingScale.compared`
    localization: dict[str, Any] | None = None   # in a saved map, see `TrackedFrames`
    base_frame: str = ''                 # whose poses trajectory.tum has; '': the camera's


def write_report(folder: Path, run: RunReport, recording: Recording) -> Path:
    """Write the report of a run; return its file; raises ToolError."""
    with writing(folder):
        path = folder / REPORT_FILE
        text = json.dumps(_content(run, recording), indent=2, allow_nan=False)
        path.write_text(text + '\n', encoding='utf-8')
    return path


def _content(run: RunReport, recording: Recording) -> dict[str, Any]:
    stamps = [pose.stamp_ns for pose in recording.poses]
    errors = recording.errors()
    return {
        'version': package_version(),
        'input': run.source,
        'complete': run.complete,
        'trajectory': run.trajectory,
        'frames': recording.frames,
        'seconds': round(run.seconds, 3),
        'frames_per_second': round(recording.frames / run.seconds, 3) if run.seconds else None,
        'median_latency': _finite(recording.median_latency()),
        'stamps': {'first': format_stamp(stamps[0]) if stamps else None,
                   'last': format_stamp(stamps[-1]) if stamps else None,
                   'first_ns': stamps[0] if stamps else None,
                   'last_ns': stamps[-1] if stamps else None},
        'skipped': run.skipped.splitlines(),
        'calibration': _calibration(run.calibration),
        'scale': run.scale,
        'base_frame': run.base_frame or None,
        'poses_from': run.poses_from,
        'localization': run.localization,
        'length': _length(stamped.position for stamped in recording.poses),
        'weights': recording.model,
        'device': run.device,
        'cache': run.cache | _last_cache(recording),
        'errors': None if errors is None else {
            'ate': errors.ate, 'ate_ratio': errors.ate_ratio,
            'rotation_deg': errors.rotation_deg},
        'against_odometry': run.against_odometry,
        'exports': run.exports,
    }


def _calibration(calibration: Calibration | None) -> dict[str, Any] | None:
    if calibration is None:
        return None
    return {'source': calibration.source, 'width': calibration.width,
            'height': calibration.height,
            'camera_matrix': calibration.camera_matrix.tolist(),
            'distortion_model': calibration.distortion_model,
            'distortion': list(calibration.distortion),
            'rectification': calibration.rectification.tolist(),
            'projection': calibration.projection.tolist()}


def _last_cache(recording: Recording) -> dict[str, Any]:
    if not recording.cache:
        return {}
    last = recording.cache[-1]
    return {'tokens_used': last.tokens_used, 'tokens_budget': last.tokens_budget,
            'occupancy': last.occupancy, 'bytes_used': last.bytes_used,
            'bytes_budget': last.bytes_budget,
            'evicted': sum(row.evicted for row in recording.cache)}


def _length(positions: Iterable[tuple[float, float, float]]) -> float | None:
    """Return the length of a path in the run's unit."""
    steps = np.diff(np.array(list(positions)).reshape(-1, 3), axis=0)
    return _finite(float(np.linalg.norm(steps, axis=1).sum()))


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def relative(files: Sequence[Path], folder: Path) -> list[str]:
    """Return files as they are called within a folder; folders end with a slash."""
    return [f'{file.relative_to(folder)}{"/" if file.is_dir() else ""}' for file in files]
