"""A camera's calibration from a file: ROS camera_info YAML or ASL (EuRoC) sensor.yaml."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import yaml

from xsvggt_ros.engine.camera_model import CameraError, CameraModel, LENSES
from xsvggt_ros.tools.errors import ToolError

FILE_NAMES = ('camera_info.yaml', 'calibration.yaml', 'sensor.yaml')

_ASL_MODELS = {'radial-tangential': 'plumb_bob', 'radtan': 'plumb_bob',
               'equidistant': 'equidistant', 'none': 'plumb_bob'}


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

    def check_size(self, width: int, height: int) -> None:
        """Raise CalibrationError unless images of `width` x `height` are what was calibrated."""
        if (width, height) != (self.width, self.height):
            raise CalibrationError(
                f'{self.source}: the calibration is for {self.width}x{self.height} images, but '
                f'these are {width}x{height}; use the calibration of this camera and resolution, '
                'or none')


def load_calibration(path: Path | str) -> Calibration:
    """Read a calibration file; raises CalibrationError that says what is wrong with it."""
    path = Path(path)
    try:
        text = path.read_text(encoding='utf-8')
    except (OSError, UnicodeDecodeError) as error:
        raise CalibrationError(f'{path}: cannot read the calibration: {error}') from error
    if text.startswith('%YAML:'):   # OpenCV's header, which no YAML parser accepts
        text = text.partition('\n')[2]
    try:
        content = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise CalibrationError(f'{path}: not a YAML file: {error}') from error
    if isinstance(content, dict) and 'camera_matrix' in content:
        read = _read_ros
    elif isinstance(content, dict) and 'intrinsics' in content:
        read = _read_asl
    else:
        raise CalibrationError(
            f"{path}: neither a ROS camera_info YAML (no 'camera_matrix') nor an ASL sensor.yaml "
            "(no 'intrinsics')")
    try:
        return read(content, str(path))
    except (KeyError, TypeError) as error:
        raise CalibrationError(f'{path}: incomplete calibration, missing or malformed: {error}'
                               ) from error
    except ValueError as error:
        raise CalibrationError(f'{path}: {error}') from error


def find_calibration(folder: Path) -> Path | None:
    """Return the calibration file that lies in `folder` or beside it, if there is one."""
    for place in (folder, folder.parent):
        for name in FILE_NAMES:
            if (place / name).is_file():
                return place / name
    return None


def _read_ros(content: dict, source: str) -> Calibration:
    """Read the format of camera_calibration_parsers."""
    width, height = int(content['image_width']), int(content['image_height'])
    camera_matrix = _matrix(content, 'camera_matrix', (3, 3))
    model = str(content.get('distortion_model', 'plumb_bob'))
    if model not in LENSES:
        raise CalibrationError(f"{source}: distortion_model '{model}' is not one of "
                               f'{", ".join(LENSES)}')
    coefficients = content['distortion_coefficients']['data']
    plain = Calibration.pinhole(width, height, camera_matrix)
    rectification, projection = plain.rectification, plain.projection
    if 'rectification_matrix' in content:
        rectification = _matrix(content, 'rectification_matrix', (3, 3))
    if 'projection_matrix' in content:
        projection = _matrix(content, 'projection_matrix', (3, 4))
    return Calibration(width, height, camera_matrix, model, _coefficients(model, coefficients),
                       rectification, projection, source)


def _read_asl(content: dict, source: str) -> Calibration:
    """Read the sensor.yaml of the ASL dataset format."""
    model = str(content.get('camera_model', 'pinhole'))
    if model != 'pinhole':
        raise CalibrationError(f"{source}: camera_model '{model}' is not supported, only pinhole")
    fx, fy, cx, cy = (float(value) for value in content['intrinsics'])
    width, height = (int(value) for value in content['resolution'])
    name = str(content.get('distortion_model', 'none'))
    if name not in _ASL_MODELS:
        raise CalibrationError(f"{source}: distortion_model '{name}' is not one of "
                               f'{", ".join(_ASL_MODELS)}')
    distortion = _coefficients(_ASL_MODELS[name], content.get('distortion_coefficients', []))
    return Calibration.pinhole(width, height, np.array([[fx, 0, cx], [0, fy, cy], [0, 0, 1]]),
                               _ASL_MODELS[name], distortion, source)


def _matrix(content: dict, name: str, shape: tuple[int, int]) -> np.ndarray:
    """Return the matrix called `name`, whose numbers stand in a flat list `data`."""
    values = [float(value) for value in content[name]['data']]
    if len(values) != shape[0] * shape[1]:
        raise ValueError(f'{name} has {len(values)} numbers instead of {shape[0] * shape[1]}')
    return np.array(values).reshape(shape)


def _coefficients(model: str, values: list[float]) -> tuple[float, ...]:
    """Return the coefficients, filled up with zeros to what `model` has."""
    numbers = [float(value) for value in values]
    count = LENSES[model]
    if len(numbers) > count and any(numbers[count:]):
        raise ValueError(f'{len(numbers)} distortion coefficients are too many for {model}')
    return tuple((numbers + [0.0] * count)[:count])
