"""What an export is: it takes each frame's result as it comes, and writes files for one tool."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
import re
from typing import Any, Protocol

import numpy as np
import torch

from xsvggt_ros.engine.frame_result import FrameResult
from xsvggt_ros.geometry.camera_model import CameraModel
from xsvggt_ros.images.preprocess import Resize
from xsvggt_ros.images.rectify import Rectification
from xsvggt_ros.mapping.trajectory import StampedPose
from xsvggt_ros.recordings.outputs import CacheRow
from xsvggt_ros.recordings.recording import Recording

ALWAYS = ('ply', 'tum')   # are written for every run


class SourcePictures:
    """The source's images as a pinhole camera would see them, at their own size."""

    def __init__(self, camera: CameraModel | None, resize: Resize) -> None:
        """Remember how; the map of a lens is made when the first picture is asked for."""
        self._camera, self._resize = camera, resize

    @cached_property
    def _rectify(self) -> Rectification | None:
        camera = self._camera
        if camera is None or not camera.needs_rectification:
            return None
        return Rectification(camera, camera.width, camera.height)

    def rectified(self, pixels: np.ndarray) -> np.ndarray:
        """Return uint8 [H, W, 3] without distortion; black where the lens shows nothing."""
        if self._rectify is None:
            return pixels
        return self._rectify(torch.from_numpy(np.ascontiguousarray(pixels))).numpy()

    @cached_property
    def source_from_model(self) -> np.ndarray:
        """Return the map from the model image's pixels to the source's, [3, 3]."""
        return np.linalg.inv(self._resize.model_from_source().numpy())

    def intrinsics(self, of_model: np.ndarray) -> np.ndarray:
        """Return the camera matrix [3, 3] for the source's pixels of that for the model image."""
        return self.source_from_model @ of_model


@dataclass(frozen=True)
class FrameOutput:
    """One frame and what was made of it; nothing in it is kept after the call that gives it."""

    number: int                 # counts the frames of the run, from 0
    stamp_ns: int
    source: np.ndarray          # [H, W, 3] uint8 RGB, as it was recorded
    result: FrameResult         # on any device; lengths in the run's unit
    pose: StampedPose           # odom_from_camera, optical axes of the camera
    cloud: torch.Tensor         # packed [N, 5], in the camera's frame, on the CPU
    cache: CacheRow
    pictures: SourcePictures
    base_from_camera: np.ndarray | None = None   # [4, 4], metres; of the robot, if that is asked

    @cached_property
    def image(self) -> np.ndarray:
        """Return what the network saw, uint8 [h, w, 3]."""
        return self.result.image.cpu().numpy()

    @cached_property
    def depth(self) -> np.ndarray:
        """Return the depth along the optical axis, float32 [h, w]; NaN where nothing is known."""
        return self.result.depth.cpu().numpy()

    @cached_property
    def confidence(self) -> np.ndarray:
        """Return the depth's confidence, float32 [h, w]; 0 where nothing is known."""
        return self.result.depth_confidence.cpu().numpy()

    @cached_property
    def intrinsics(self) -> np.ndarray:
        """Return the camera matrix of the model image, float64 [3, 3]."""
        return self.result.intrinsics.cpu().numpy().astype(np.float64)


class Export(Protocol):
    """Files for one tool. Memory is bounded: `add` keeps no image."""

    name: str
    notes: dict[str, Any]   # for the report

    def add(self, frame: FrameOutput) -> None:
        """Take a frame; raises OSError."""

    def finish(self, recording: Recording) -> list[Path]:
        """
        Write what waits for the end, and return the files or folders; raises OSError.

        recording: of the frames added so far, with their final poses.
        """


@dataclass(frozen=True)
class ExportOptions:
    """Where and how exports are written."""

    folder: Path
    source: str = ''                # the recording's name
    grid: dict[str, float] = field(default_factory=dict)   # fields of `GridOptions`
    base_frame: str = ''            # of the robot, whose poses are published; '': the camera's


def make_exports(names: Sequence[str], options: ExportOptions) -> list[Export]:
    """Return the exports that are called `names`; raises ToolError for a library that lacks."""
    return [_MAKERS[name](options) for name in names if name not in ALWAYS]


def remove_old(folder: Path, pattern: str) -> None:
    """Remove an earlier run's files from a folder: those whose whole name matches; OSError."""
    for file in folder.iterdir():
        if file.is_file() and re.fullmatch(pattern, file.name, re.ASCII):
            file.unlink()


def export_names(text: str) -> list[str]:
    """Return the names in a list with commas, each once."""
    return list(dict.fromkeys(filter(None, (name.strip() for name in text.split(',')))))


def _colmap(options: ExportOptions) -> Export:
    from xsvggt_ros.recordings.exports.colmap import ColmapExport
    return ColmapExport(options)


def _depth(options: ExportOptions) -> Export:
    from xsvggt_ros.recordings.exports.depth import DepthExport
    return DepthExport(options)


def _grid(options: ExportOptions) -> Export:
    from xsvggt_ros.recordings.exports.grid import GridExport
    return GridExport(options)


def _mcap(options: ExportOptions) -> Export:
    from xsvggt_ros.recordings.exports.mcap import McapExport
    return McapExport(options)


def _rerun(options: ExportOptions) -> Export:
    from xsvggt_ros.recordings.exports.rerun import RerunExport
    return RerunExport(options)


_MAKERS: dict[str, Callable[[ExportOptions], Export]] = {
    'mcap': _mcap, 'rerun': _rerun, 'colmap': _colmap, 'depth': _depth, 'grid': _grid}
