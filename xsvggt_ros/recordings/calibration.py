"""
A camera's calibration from a file, in the formats that calibration tools write.

ROS camera_info YAML, OpenCV's FileStorage YAML, ASL (EuRoC) sensor.yaml and Kalibr's camchain of
one camera. Files come from anywhere: size and depth are bounded before anything is made of them,
and whatever is wrong ends in one line that names the file and the field.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
import reprlib
from typing import Any

import numpy as np
import yaml

from xsvggt_ros.console.errors import ToolError
from xsvggt_ros.geometry.camera_model import CameraError, CameraModel, checked_lens, LENSES

FILE_NAMES = ('camera_info.yaml', 'calibration.yaml', 'sensor.yaml')
MOST_BYTES = 2 ** 20   # of a file; a calibration has one or two thousand
MOST_NODES = 100_000   # numbers, names, lists: OpenCV may write all the corners that it saw
DEEPEST = 16           # lists and mappings within each other
MOST_ALIASES = 100
MOST_NUMBERS = 1000    # in a field; references make many of a few
MOST_PIXELS = 10 ** 6  # a side of an image

_ASL_MODELS = {'radial-tangential': 'plumb_bob', 'radtan': 'plumb_bob',
               'equidistant': 'equidistant', 'none': 'plumb_bob'}
# The names of one thing: ROS and OpenCV's calibration samples, what else is written with cv2.
_CAMERA_MATRIX = ('camera_matrix', 'cameraMatrix')
_DISTORTION = ('distortion_coefficients', 'distCoeffs', 'dist_coeffs', 'dist_coeff')
_ASL_DISTORTION = ('distortion_coefficients', 'distortion_coeffs')


class CalibrationError(ToolError):
    """A calibration that cannot be read or does not fit the images."""


@dataclass(frozen=True)
class Calibration:
    """What sensor_msgs/CameraInfo says about a camera; matrices are float64, in pixels."""

    width: int
    height: int
    camera_matrix: np.ndarray        # [3, 3]
    distortion_model: str
    distortion: tuple[float, ...]
    rectification: np.ndarray        # [3, 3]
    projection: np.ndarray           # [3, 4]
    source: str = ''                 # where it comes from, for messages

    @staticmethod
    def pinhole(width: int, height: int, camera_matrix: np.ndarray,
                distortion_model: str = 'plumb_bob', distortion: tuple[float, ...] = (0.0,) * 5,
                source: str = '') -> 'Calibration':
        """Return a camera whose rectified image would have the same camera matrix."""
        matrix = np.asarray(camera_matrix, np.float64).reshape(3, 3)
        projection = np.hstack([matrix, np.zeros((3, 1))])
        return Calibration(width, height, matrix, distortion_model, distortion, np.eye(3),
                           projection, source)

    def camera(self) -> CameraModel:
        """Return the camera for the engine; raises CalibrationError if it is none."""
        try:
            return CameraModel.calibrated(
                (self.width, self.height), self.camera_matrix.ravel(), self.distortion,
                self.rectification.ravel(), self.projection.ravel(), self.distortion_model)
        except CameraError as error:
            raise CalibrationError(f'{self.source}: {error}') from error

    def for_images(self, width: int, height: int) -> 'Calibration':
        """
        Return the calibration for images of another size that show the same, as the node does.

        Raises CalibrationError unless they have the same aspect, and if there is none to scale.
        """
        if (width, height) == (self.width, self.height):
            return self
        try:
            camera = self.camera().for_images(width, height)
        except CameraError as error:
            raise CalibrationError(f'{self.source}: {error}') from error
        # The last column is the baseline, in pixels like the rest of its row.
        column = self.projection[:, 3:] * ((width / self.width,), (height / self.height,), (1,))
        return replace(self, width=width, height=height, camera_matrix=camera.camera_matrix,
                       projection=np.hstack([camera.rectified_matrix, column]))


def load_calibration(path: Path | str) -> Calibration:
    """Read a calibration file; raises CalibrationError that says what is wrong with it."""
    path = Path(path)
    content = _read_yaml(path)
    try:
        return _read(content, str(path))
    except CalibrationError:
        raise
    except (ValueError, TypeError) as error:
        raise CalibrationError(f'{path}: {error}') from error


def find_calibration(folder: Path) -> Path | None:
    """Return the calibration file that lies in `folder` or beside it, if there is one."""
    for place in (folder, folder.parent):
        for name in FILE_NAMES:
            if (place / name).is_file():
                return place / name
    return None


# The file ----------------------------------------------------------------------------------------

class _Loader(yaml.BaseLoader):
    """
    Everything as text, lists and mappings: no dates, no numbers, no objects of any tag.

    What a field means is for its reader to say. Tags as OpenCV's are passed over.
    """

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self._depth = 0
        self._nodes = 0
        self._aliases = 0

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node:
        """Count before anything is made: neither depth nor size is what the file wants."""
        self._nodes += 1
        if self.check_event(yaml.AliasEvent):
            self._aliases += 1
        if self._depth > DEEPEST:
            raise yaml.YAMLError(f'lists or mappings lie more than {DEEPEST} deep in each other')
        if self._nodes > MOST_NODES or self._aliases > MOST_ALIASES:
            raise yaml.YAMLError(f'more than {MOST_NODES} values, or {MOST_ALIASES} references')
        self._depth += 1
        try:
            return super().compose_node(parent, index)
        finally:
            self._depth -= 1


def _read_yaml(path: Path) -> Any:
    """Return what stands in the file; raise CalibrationError."""
    try:
        if path.exists() and not path.is_file():
            raise CalibrationError(f'{path}: not a file; give the calibration file')
        with open(path, 'rb') as file:
            data = file.read(MOST_BYTES + 1)
        if len(data) > MOST_BYTES:
            raise CalibrationError(f'{path}: no calibration, it has more than {MOST_BYTES} bytes')
        text = data.decode('utf-8-sig')
    except (OSError, ValueError) as error:  # a name with a zero in it, bytes that are no text
        raise CalibrationError(f'{path}: cannot read the calibration: {error}') from error
    if text.startswith('%YAML:'):   # OpenCV's header, which no YAML parser accepts
        text = text.partition('\n')[2]
    loader = None
    try:
        loader = _Loader(text)  # which looks for characters that YAML does not have
        return loader.get_single_data()
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        words = ' '.join(str(error).split())[:200]
        raise CalibrationError(f'{path}: not a YAML file of a calibration: {words}') from error
    finally:
        if loader is not None:
            loader.dispose()


# The formats -------------------------------------------------------------------------------------

def _read(content: Any, source: str) -> Calibration:
    """Return the calibration that a file's content is."""
    if isinstance(content, dict):
        if _name_of(content, _CAMERA_MATRIX) is not None:
            return _read_matrices(content, source)
        if 'intrinsics' in content:
            return _read_asl(content, source)
        cameras = [name for name, value in content.items()
                   if isinstance(value, dict) and 'intrinsics' in value]
        if len(cameras) > 1:
            raise ValueError(f'has {len(cameras)} cameras, {_told(cameras)}; copy the part of the '
                             'one that took these images into a file of its own')
        if cameras:
            return _read_asl(content[cameras[0]], source)
    raise ValueError(
        "neither a ROS or OpenCV calibration (no 'camera_matrix') nor an ASL sensor.yaml or a "
        "camchain of Kalibr (no 'intrinsics')")


def _read_matrices(content: dict, source: str) -> Calibration:
    """Read the format of camera_calibration_parsers, or of OpenCV's samples."""
    width, height = (_side(content, name) for name in ('image_width', 'image_height'))
    name = _name_of(content, _CAMERA_MATRIX) or _CAMERA_MATRIX[0]
    camera_matrix = _matrix(content, name, (3, 3))
    distortion = _name_of(content, _DISTORTION)
    if distortion is None:
        raise ValueError(f"'{_DISTORTION[0]}' is missing")
    numbers = _numbers(content[distortion], distortion)
    model = content.get('distortion_model')
    if model is None:
        model = _opencv_model(content, numbers)
    model, coefficients = _lens(model, numbers)
    calibration = Calibration.pinhole(width, height, camera_matrix, model, coefficients, source)
    if 'rectification_matrix' in content:
        calibration = replace(
            calibration, rectification=_matrix(content, 'rectification_matrix', (3, 3)))
    if 'projection_matrix' in content:
        calibration = replace(
            calibration, projection=_matrix(content, 'projection_matrix', (3, 4)))
    return calibration


def _read_asl(content: dict, source: str) -> Calibration:
    """Read the sensor.yaml of the ASL dataset format, or a camera of Kalibr's camchain."""
    model = content.get('camera_model', 'pinhole')
    if model != 'pinhole':
        raise ValueError(f'camera_model {_told(model)} is not supported, only pinhole')
    values = _numbers(content['intrinsics'], 'intrinsics')
    if len(values) != 4:
        many = 'too many' if len(values) > 4 else 'not enough'
        raise ValueError(
            f'intrinsics has {many} values, {len(values)} instead of fx, fy, cx, cy')
    fx, fy, cx, cy = values
    size = content.get('resolution')
    if not isinstance(size, list) or len(size) != 2:
        raise ValueError(f'resolution is {_told(size)} instead of [width, height]')
    width, height = (_whole(value, 'resolution') for value in size)
    name = content.get('distortion_model', 'none')
    if name not in _ASL_MODELS:
        raise ValueError(f'distortion_model {_told(name)} is not one of {", ".join(_ASL_MODELS)}')
    field = _name_of(content, _ASL_DISTORTION)
    numbers = [] if field is None else _numbers(content[field], field)
    return Calibration.pinhole(
        width, height, np.array([[fx, 0, cx], [0, fy, cy], [0, 0, 1]]),
        *_lens(_ASL_MODELS[name], numbers), source)


def _opencv_model(content: dict, numbers: Sequence[float]) -> str:
    """Return which lens a file of OpenCV's means, which says it by the number of coefficients."""
    if content.get('fisheye_model') not in (None, '0'):
        return 'equidistant'
    return 'rational_polynomial' if any(numbers[LENSES['plumb_bob']:]) else 'plumb_bob'


def _lens(model: Any, numbers: Sequence[float]) -> tuple[str, tuple[float, ...]]:
    """Return a lens model's name, and the coefficients filled up with zeros to what it has."""
    if not isinstance(model, str):
        raise ValueError(f'distortion_model is {_told(model)} instead of a name')
    known, coefficients = LENSES.get(model), tuple(numbers)
    if known is not None and any(coefficients[known:]):
        raise ValueError(f'{len(numbers)} distortion coefficients are too many for {model}')
    try:
        return checked_lens(model, coefficients)
    except CameraError as error:
        if known is not None:
            raise
        raise ValueError(
            f'distortion_model {_told(model)} is not one of {", ".join(LENSES)}') from error


# The fields --------------------------------------------------------------------------------------

def _name_of(content: dict, names: Sequence[str]) -> str | None:
    """Return by which of its names a field is there, None if it is not."""
    return next((name for name in names if name in content), None)


def _side(content: dict, name: str) -> int:
    if name not in content:
        raise ValueError(f"'{name}' is missing: write the size of the images that the camera was "
                         'calibrated with')
    return _whole(content[name], name)


def _whole(value: Any, name: str) -> int:
    number = _number(value, name)
    if number != int(number) or not 1 <= number <= MOST_PIXELS:
        raise ValueError(f'{name} is {_told(value)} instead of a number of pixels')
    return int(number)


def _matrix(content: dict, name: str, shape: tuple[int, int]) -> np.ndarray:
    """Return the matrix called `name`, float64."""
    values = _numbers(content[name], name)
    if len(values) != shape[0] * shape[1]:
        raise ValueError(f'{name} has {len(values)} numbers instead of {shape[0] * shape[1]}')
    return np.array(values).reshape(shape)


def _numbers(value: Any, name: str) -> list[float]:
    """Return the numbers of a list, of a list of rows, or of a mapping with such a `data`."""
    if isinstance(value, dict):
        name, value = f'{name}.data', value.get('data')
    if not isinstance(value, list):
        raise ValueError(f'{name} is {_told(value)} instead of a list of numbers')
    rows = [row if isinstance(row, list) else [row] for row in value]
    count = sum(map(len, rows))
    if count > MOST_NUMBERS:
        raise ValueError(f'{name} has {count} numbers; no field of a calibration has so many')
    return [_number(number, name) for row in rows for number in row]


def _number(value: Any, name: str) -> float:
    try:
        number = float(value) if isinstance(value, str) else float('nan')
    except ValueError:
        number = float('nan')
    if not abs(number) < float('inf'):
        raise ValueError(f'{name} has {_told(value)} where a finite number belongs')
    return number


def _told(value: Any) -> str:
    """Return a value for a message: one line, however long and deep it is."""
    if value is None:
        return 'missing'
    brief = reprlib.Repr()
    brief.maxlevel = 2
    return brief.repr(value)
