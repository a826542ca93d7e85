"""
The files of a COLMAP model, as text and binary.

The formats are those of COLMAP's documentation (https://colmap.github.io/format.html), with the
rigs and frames of version 3.12 and later: one rig a camera, one frame an image.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
import struct

import numpy as np

from xsvggt_ros.geometry.quaternions import quaternion_from_matrix

_PINHOLE = 1
_CAMERA = 0   # a sensor's type


@dataclass(frozen=True)
class ColmapCamera:
    """A pinhole; parameters: fx, fy, cx, cy with the first pixel's centre at 0.5."""

    width: int
    height: int
    parameters: tuple[float, float, float, float]


@dataclass
class ColmapImage:
    """An image: which camera took it, camera_from_world [4, 4], and what it sees where."""

    name: str
    camera: int
    camera_from_world: np.ndarray
    places: list[np.ndarray] = field(default_factory=list)    # [n, 2] each
    points: list[np.ndarray] = field(default_factory=list)    # [n] each, numbers of points

    def observe(self, places: np.ndarray, points: np.ndarray) -> None:
        """Add observations: pixels [n, 2] and the numbers [n] of their points."""
        self.places.append(places)
        self.points.append(points)

    def observations(self) -> tuple[np.ndarray, np.ndarray]:
        """Return all places [n, 2] and point numbers [n]."""
        if not self.places:
            return np.empty((0, 2)), np.empty(0, int)
        return np.concatenate(self.places), np.concatenate(self.points)

    def pose(self) -> tuple[float, ...]:
        """Return quaternion (w, x, y, z) and translation."""
        x, y, z, w = quaternion_from_matrix(self.camera_from_world[:3, :3])
        return (w, x, y, z, *map(float, self.camera_from_world[:3, 3]))


@dataclass
class ColmapModel:
    """Cameras, images and points; numbers count from 0 here and from 1 in the files."""

    cameras: list[ColmapCamera] = field(default_factory=list)
    images: list[ColmapImage] = field(default_factory=list)
    positions: np.ndarray = field(default_factory=lambda: np.empty((0, 3)))
    colours: np.ndarray = field(default_factory=lambda: np.empty((0, 3), np.uint8))

    def tracks(self) -> list[list[tuple[int, int]]]:
        """Return of each point which images see it, and as which of their observations."""
        tracks: list[list[tuple[int, int]]] = [[] for _ in range(len(self.positions))]
        for number, image in enumerate(self.images):
            for index, point in enumerate(image.observations()[1].tolist()):
                tracks[point].append((number, index))
        return tracks

    def errors(self) -> np.ndarray:
        """Return the mean reprojection error of each point in pixels, [N]."""
        sums, counts = np.zeros(len(self.positions)), np.zeros(len(self.positions))
        for image in self.images:
            places, points = image.observations()
            fx, fy, cx, cy = self.cameras[image.camera].parameters
            pose = image.camera_from_world
            local = self.positions[points] @ pose[:3, :3].T + pose[:3, 3]
            there = local[:, :2] / local[:, 2:] * (fx, fy) + (cx, cy)
            np.add.at(sums, points, np.linalg.norm(there - places, axis=1))
            np.add.at(counts, points, 1)
        return sums / np.maximum(counts, 1)


def write_model(folder: Path, model: ColmapModel) -> None:
    """Write cameras, rigs, images, frames and points3D, .txt and .bin; raises OSError."""
    folder.mkdir(parents=True, exist_ok=True)
    tracks, errors = model.tracks(), model.errors()
    parts = {
        'cameras': (_camera_bytes(model), _camera_lines(model)),
        'rigs': (_rig_bytes(model), _rig_lines(model)),
        'images': (_image_bytes(model), _image_lines(model)),
        'frames': (_frame_bytes(model), _frame_lines(model)),
        'points3D': (_point_bytes(model, tracks, errors), _point_lines(model, tracks, errors)),
    }
    for name, (pieces, lines) in parts.items():
        with open(folder / f'{name}.bin', 'wb') as binary:
            binary.writelines(pieces)
        with open(folder / f'{name}.txt', 'w', encoding='ascii') as text:
            text.writelines(f'{line}\n' for line in lines)


# Binary ------------------------------------------------------------------------------------------

def _camera_bytes(model: ColmapModel) -> Iterator[bytes]:
    yield struct.pack('<Q', len(model.cameras))
    for number, camera in enumerate(model.cameras, 1):
        yield struct.pack('<IiQQ4d', number, _PINHOLE, camera.width, camera.height,
                          *camera.parameters)


def _rig_bytes(model: ColmapModel) -> Iterator[bytes]:
    yield struct.pack('<Q', len(model.cameras))
    for number in range(1, len(model.cameras) + 1):
        yield struct.pack('<IIiI', number, 1, _CAMERA, number)


def _image_bytes(model: ColmapModel) -> Iterator[bytes]:
    yield struct.pack('<Q', len(model.images))
    row = np.dtype([('place', '<f8', 2), ('point', '<u8')])
    for number, image in enumerate(model.images, 1):
        places, points = image.observations()
        yield struct.pack('<I7dI', number, *image.pose(), image.camera + 1)
        yield image.name.encode('ascii') + b'\0' + struct.pack('<Q', len(points))
        rows = np.empty(len(points), row)
        rows['place'], rows['point'] = places, points + 1
        yield rows.tobytes()


def _frame_bytes(model: ColmapModel) -> Iterator[bytes]:
    yield struct.pack('<Q', len(model.images))
    for number, image in enumerate(model.images, 1):
        yield struct.pack('<II7dIiIQ', number, image.camera + 1, *image.pose(), 1, _CAMERA,
                          image.camera + 1, number)


def _point_bytes(
    model: ColmapModel, tracks: list[list[tuple[int, int]]], errors: np.ndarray,
) -> Iterator[bytes]:
    yield struct.pack('<Q', len(model.positions))
    for number, (position, colour, error, track) in enumerate(
            zip(model.positions.tolist(), model.colours.tolist(), errors.tolist(), tracks), 1):
        yield struct.pack('<Q3d3BdQ', number, *position, *colour, error, len(track))
        yield b''.join(struct.pack('<II', image + 1, index) for image, index in track)


# Text --------------------------------------------------------------------------------------------

def _camera_lines(model: ColmapModel) -> Iterator[str]:
    yield '# CAMERA_ID MODEL WIDTH HEIGHT fx fy cx cy'
    for number, camera in enumerate(model.cameras, 1):
        yield f'{number} PINHOLE {camera.width} {camera.height} {_numbers(camera.parameters)}'


def _rig_lines(model: ColmapModel) -> Iterator[str]:
    yield '# RIG_ID NUM_SENSORS REF_SENSOR_TYPE REF_SENSOR_ID'
    for number in range(1, len(model.cameras) + 1):
        yield f'{number} 1 CAMERA {number}'


def _image_lines(model: ColmapModel) -> Iterator[str]:
    yield '# IMAGE_ID QW QX QY QZ TX TY TZ CAMERA_ID NAME, then X Y POINT3D_ID of each observation'
    for number, image in enumerate(model.images, 1):
        places, points = image.observations()
        yield f'{number} {_numbers(image.pose())} {image.camera + 1} {image.name}'
        yield ' '.join(f'{x:.17g} {y:.17g} {point + 1}'
                       for (x, y), point in zip(places.tolist(), points.tolist()))


def _frame_lines(model: ColmapModel) -> Iterator[str]:
    yield ('# FRAME_ID RIG_ID QW QX QY QZ TX TY TZ NUM_DATA_IDS, then SENSOR_TYPE SENSOR_ID '
           'DATA_ID of each')
    for number, image in enumerate(model.images, 1):
        yield (f'{number} {image.camera + 1} {_numbers(image.pose())} 1 CAMERA '
               f'{image.camera + 1} {number}')


def _point_lines(
    model: ColmapModel, tracks: list[list[tuple[int, int]]], errors: np.ndarray,
) -> Iterator[str]:
    yield '# POINT3D_ID X Y Z R G B ERROR, then IMAGE_ID POINT2D_IDX of each observation'
    for number, (position, colour, error, track) in enumerate(
            zip(model.positions.tolist(), model.colours.tolist(), errors.tolist(), tracks), 1):
        seen = ' '.join(f'{image + 1} {index}' for image, index in track)
        yield f'{number} {_numbers(position)} {" ".join(map(str, colour))} {error:.17g} {seen}'


def _numbers(values: object) -> str:
    return ' '.join(f'{value:.17g}' for value in values)  # type: ignore[attr-defined]
