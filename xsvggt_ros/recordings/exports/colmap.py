"""A COLMAP model of keyframes, with their images, for Gaussian splatting and other trainers."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from xsvggt_ros.mapping.keyframes import Keyframes
from xsvggt_ros.recordings.exports.colmap_files import (
    ColmapCamera,
    ColmapImage,
    ColmapModel,
    write_model,
)
from xsvggt_ros.recordings.exports.depth_grid import DepthGrid
from xsvggt_ros.recordings.exports.export import ExportOptions, FrameOutput, remove_old
from xsvggt_ros.recordings.recording import Recording

FOLDER = 'colmap'
MOST_IMAGES = 300
COLUMNS, ROWS = 32, 24    # points of a keyframe, at most
_AGREE = 0.05             # of a depth: another keyframe sees the same point
_SAME = 1e-6              # of a focal length: cameras that differ by less are one


@dataclass(frozen=True)
class _Keyframe:
    """An image of the model; intrinsics and places are in the source's pixels."""

    number: int
    file: Path
    size: tuple[int, int]
    intrinsics: np.ndarray          # [3, 3]
    grid: DepthGrid
    places: np.ndarray              # [rows, columns, 2]


class ColmapExport:
    """
    Writes colmap/images and colmap/sparse/0, as text and binary.

    Images are the source's, rectified. Points are depths of the keyframes; one that another
    keyframe sees at the same depth is observed there too. The world is that of trajectory.tum.
    """

    name = 'colmap'

    def __init__(self, options: ExportOptions) -> None:
        """Write below the run's folder."""
        self._folder = options.folder / FOLDER
        self._keyframes = _Images(MOST_IMAGES)
        self.notes: dict[str, Any] = {}

    def add(self, frame: FrameOutput) -> None:
        """Take a frame if it is a keyframe, and write its image."""
        grid = DepthGrid.sample(frame, COLUMNS, ROWS)
        if not self._keyframes.takes(frame.pose.matrix(), grid.median()):
            return
        images = self._folder / 'images'
        images.mkdir(parents=True, exist_ok=True)
        if not self._keyframes.items:
            remove_old(images, r'frame_\d{6,}\.png')
        picture = frame.pictures.rectified(frame.source)
        file = images / f'frame_{frame.number:06d}.png'   # text models end names at a space
        Image.fromarray(picture).save(file, compress_level=1)
        to_source = frame.pictures.source_from_model
        places = grid.pixels @ to_source[:2, :2].T + to_source[:2, 2]
        self._keyframes.add(_Keyframe(
            frame.number, file, (picture.shape[1], picture.shape[0]),
            frame.pictures.intrinsics(frame.intrinsics), grid, places))

    def finish(self, recording: Recording) -> list[Path]:
        """Write the model with the final poses."""
        model = self._model(recording)
        write_model(self._folder / 'sparse' / '0', model)
        self.notes = {'images': len(model.images), 'cameras': len(model.cameras),
                      'points': len(model.positions)}
        return [self._folder]

    def _model(self, recording: Recording) -> ColmapModel:
        model = ColmapModel()
        keyframes = self._keyframes.items
        for keyframe in keyframes:
            camera_from_odom = np.linalg.inv(recording.poses[keyframe.number].matrix())
            camera = _camera_number(model, keyframe)
            model.images.append(ColmapImage(keyframe.file.name, camera, camera_from_odom))
        for index in range(len(keyframes)):
            others = [other for other in (index - 1, index + 1) if 0 <= other < len(keyframes)]
            _add_points(model, keyframes, index, others)
        return model


class _Images(Keyframes[_Keyframe]):
    """Keyframes whose images are removed when they are left out later."""

    def _forget(self, item: _Keyframe) -> None:
        item.file.unlink(missing_ok=True)


def _camera_number(model: ColmapModel, keyframe: _Keyframe) -> int:
    """Return which of the model's cameras took a keyframe, added if it is none of them."""
    k = keyframe.intrinsics
    # In COLMAP the centre of the first pixel is at 0.5.
    camera = ColmapCamera(*keyframe.size, (k[0, 0], k[1, 1], k[0, 2] + 0.5, k[1, 2] + 0.5))
    if model.cameras:
        last = model.cameras[-1]
        near = np.allclose(last.parameters, camera.parameters, rtol=_SAME, atol=_SAME * k[0, 0])
        if near and (last.width, last.height) == (camera.width, camera.height):
            return len(model.cameras) - 1
    model.cameras.append(camera)
    return len(model.cameras) - 1


def _add_points(
    model: ColmapModel, keyframes: list[_Keyframe], index: int, others: list[int],
) -> None:
    """Add the points of a keyframe, with what it and other keyframes see of them."""
    keyframe, image = keyframes[index], model.images[index]
    points = keyframe.grid.points().reshape(-1, 3)
    known = np.isfinite(points).all(axis=1)
    odom_from_camera = np.linalg.inv(image.camera_from_world)
    points = points[known] @ odom_from_camera[:3, :3].T + odom_from_camera[:3, 3]
    start = len(model.positions)
    numbers = np.arange(start, start + len(points))
    model.positions = np.concatenate([model.positions, points])
    model.colours = np.concatenate(
        [model.colours, keyframe.grid.colours.reshape(-1, 3)[known]])
    image.observe(keyframe.places.reshape(-1, 2)[known] + 0.5, numbers)
    for other in others:
        seen, places = _seen(keyframes[other], model.images[other].camera_from_world, points)
        model.images[other].observe(places[seen] + 0.5, numbers[seen])


def _seen(
    keyframe: _Keyframe, camera_from_odom: np.ndarray, points: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
    """Return which points [N, 3] a keyframe sees at its own depth, and where, [N, 2]."""
    local = points @ camera_from_odom[:3, :3].T + camera_from_odom[:3, 3]
    depth = local[:, 2]
    safe = np.where(depth > 0, depth, 1.0)
    places = (local @ keyframe.intrinsics.T)[:, :2] / safe[:, None]
    model_pixels = (local @ keyframe.grid.intrinsics.T)[:, :2] / safe[:, None]
    rows, columns = keyframe.grid.depth.shape
    across, down = keyframe.grid.pixels[0, :, 0], keyframe.grid.pixels[:, 0, 1]
    column = np.clip(np.rint(np.interp(model_pixels[:, 0], across, np.arange(columns))),
                     0, columns - 1).astype(int)
    row = np.clip(np.rint(np.interp(model_pixels[:, 1], down, np.arange(rows))),
                  0, rows - 1).astype(int)
    width, height = keyframe.size
    inside = ((depth > 0) & (places >= 0).all(axis=1) & (places[:, 0] <= width - 1)
              & (places[:, 1] <= height - 1))
    with np.errstate(invalid='ignore'):
        agrees = np.abs(keyframe.grid.depth[row, column] - depth) < _AGREE * safe
    return inside & agrees, places
