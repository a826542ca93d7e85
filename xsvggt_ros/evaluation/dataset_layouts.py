"""
Data sets with known depth and poses, read in the folders in which they are published.

Sources of formats and numbers:

- 7-Scenes: https://www.microsoft.com/en-us/research/project/rgb-d-dataset-7-scenes/
- TUM RGB-D: https://cvg.cit.tum.de/data/datasets/rgbd-dataset/file_formats
- Bonn RGB-D Dynamic: https://www.ipb.uni-bonn.de/data/rgbd-dynamic-dataset/
- KITTI odometry: readme of the development kit at
  https://www.cvlibs.net/datasets/kitti/eval_odometry.php

Pictures are given as they are: lens distortion (TUM freiburg1 and 2, Bonn) is not taken out, and
the intrinsics are those of the pinhole model that was published with it.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
import logging
import os
from pathlib import Path
import re
from typing import ClassVar

import numpy as np

from xsvggt_ros.console.errors import ChoiceError, ToolError
from xsvggt_ros.geometry.metrics import nearest_rotation
from xsvggt_ros.images.pictures import opened_picture
from xsvggt_ros.mapping.map_files import format_stamp, parse_stamp, read_rows
from xsvggt_ros.mapping.trajectory import StampedPose

MAX_TIME_OFFSET_NS = 20_000_000   # between a picture and its depth or pose, TUM and Bonn

_RGBD_SIZE = (640, 480)           # of the pictures that the intrinsics below are for
_SEARCH_DEPTH = 2                 # levels of folders below the given one
_POSE_FORM = 'timestamp tx ty tz qx qy qz qw'

_log = logging.getLogger(__name__)


class NoTruthError(ToolError):
    """A sequence that comes without poses, such as those a benchmark keeps secret."""


@dataclass(frozen=True)
class TrueFrame:
    """One picture and what is true about it; None is what is not known."""

    image: np.ndarray                       # [H, W, 3] uint8 RGB
    depth: np.ndarray | None                # [H, W] float32 metres on the optical axis, 0: unknown
    world_from_camera: np.ndarray | None    # [4, 4] float64, optical frame
    intrinsics: np.ndarray | None           # [3, 3] float64, pixels of the image


def _matrix(fx: float, fy: float, cx: float, cy: float) -> np.ndarray:
    return np.array([[fx, 0.0, cx], [0.0, fy, cy], [0.0, 0.0, 1.0]])


class DatasetSequence(ABC):
    """
    One sequence of a data set: pictures in the order of time, and what is true about them.

    Pictures, depth and the poses of 7-Scenes are read when a frame is asked for. Every picture is
    a frame: one without a depth map has depth None, one without a pose, or with one that is not
    finite, has world_from_camera None.
    """

    looks_like: ClassVar[str]   # what a person sees in the folder

    def __init__(self, folder: Path, pictures: list[Path]) -> None:
        """Take the pictures of a sequence, in the order of time."""
        self.folder = folder
        self.name = folder.name
        self._pictures = pictures

    @classmethod
    @abstractmethod
    def fits(cls, folder: Path) -> bool:
        """Return whether the files of `folder` are laid out like this."""

    @classmethod
    def recognises(cls, folder: Path) -> bool:
        """Return whether `folder` is from this data set, if nobody says so."""
        return cls.fits(folder)

    def __len__(self) -> int:
        """Return the number of frames."""
        return len(self._pictures)

    def frame(self, index: int) -> TrueFrame:
        """Return a frame, in the order of time; raise ToolError for what cannot be read."""
        image = _read_colour(self._pictures[index])
        height, width = image.shape[:2]
        depth, pose = self._depth(index), self._pose(index)
        return TrueFrame(image, None if depth is None else _resample(depth, height, width),
                         pose if pose is not None and np.isfinite(pose).all() else None,
                         self._intrinsics(width, height))

    @abstractmethod
    def _depth(self, index: int) -> np.ndarray | None:
        """Return the depth map in metres, at any size."""

    @abstractmethod
    def _pose(self, index: int) -> np.ndarray | None:
        """Return world_from_camera, finite or not."""

    @abstractmethod
    def _intrinsics(self, width: int, height: int) -> np.ndarray:
        """Return the camera matrix of a picture of this size."""


class RgbdSequence(DatasetSequence):
    """A sequence of a camera whose intrinsics were published for 640x480."""

    _camera: np.ndarray   # [3, 3]

    def _intrinsics(self, width: int, height: int) -> np.ndarray:
        return _at_size(self._camera, width, height, self.folder)


class SevenScenes(RgbdSequence):
    """
    7-Scenes: one file each for a frame's colour, depth in mm and pose (camera to world).

    The depth camera sees the scene from beside the colour camera and with another focal length,
    and only its intrinsics are published; used as they are, depth is off at the picture's edges.
    Depth maps that were brought into the colour picture (.depth.proj.png, as SimpleRecon and
    Spann3R make them, for a colour camera of 525 pixels) are taken instead where they exist.
    """

    looks_like = 'seq-01/ with frame-000000.color.png, .depth.png and .pose.txt'
    _SUFFIX = '.color.png'

    def __init__(self, folder: Path) -> None:
        """Open a folder like seq-01."""
        super().__init__(folder, sorted(folder.glob('frame-*' + self._SUFFIX)))
        self.name = f'{folder.parent.name}/{folder.name}'
        _check_truth(self._beside(0, '.pose.txt'))
        registered = self._beside(0, '.depth.proj.png').is_file()
        self._depth_suffix = '.depth.proj.png' if registered else '.depth.png'
        focal = 525.0 if registered else 585.0
        self._camera = _matrix(focal, focal, 320.0, 240.0)

    @classmethod
    def fits(cls, folder: Path) -> bool:
        """Return whether the files of `folder` are laid out like this."""
        return any(folder.glob('frame-*' + cls._SUFFIX))

    def _depth(self, index: int) -> np.ndarray | None:
        file = self._beside(index, self._depth_suffix)
        return _read_depth(file, 1000.0, unknown=65535) if file.is_file() else None

    def _pose(self, index: int) -> np.ndarray:
        file = self._beside(index, '.pose.txt')
        numbers = [row.numbers(4) for row in _rows(file, 'four numbers')]
        if len(numbers) != 4:
            raise ToolError(f'{file}: {len(numbers)} lines of numbers instead of the 4 of a pose; '
                            'unpack it again')
        return np.array(numbers)

    def _beside(self, index: int, suffix: str) -> Path:
        """Return the file of the same frame that ends in `suffix`."""
        picture = self._pictures[index]
        return picture.with_name(picture.name.removesuffix(self._SUFFIX) + suffix)


class Tum(RgbdSequence):
    """
    TUM RGB-D: lists of pictures, depth maps and poses of the colour camera with their times.

    A picture gets the depth map and the pose that are nearest in time, if within 20 ms. Depth maps
    that are listed but missing are passed over, as there are some in what was published.
    """

    looks_like = 'rgbd_dataset_freiburg1_desk/ with rgb.txt, depth.txt and groundtruth.txt'
    _CAMERAS: ClassVar[dict[str, tuple[float, float, float, float]]] = {
        'freiburg1': (517.3, 516.5, 318.6, 255.3), 'freiburg2': (520.9, 521.0, 325.1, 249.7),
        'freiburg3': (535.4, 539.2, 320.1, 247.6)}
    _ROS_DEFAULT = (525.0, 525.0, 319.5, 239.5)

    def __init__(self, folder: Path) -> None:
        """Open a folder like rgbd_dataset_freiburg1_desk."""
        stamps, pictures = _read_list(folder / 'rgb.txt')
        if not pictures:
            raise ToolError(f'{folder / "rgb.txt"}: lists no pictures; unpack it again')
        super().__init__(folder, pictures)
        _check_truth(folder / 'groundtruth.txt')
        self._camera = _matrix(*self._published_camera())
        depth_stamps, self._depths = _read_list(folder / 'depth.txt', only_existing=True)
        self._depth_of = _nearest_in_time(stamps, depth_stamps)
        if self._depths and not any(near is not None for near in self._depth_of):
            _log.warning('%s; frames have no depth', _no_match(
                folder / 'depth.txt', 'depth map', stamps, depth_stamps))
        self._poses = _read_trajectory(folder / 'groundtruth.txt')
        pose_stamps = [pose.stamp_ns for pose in self._poses]
        self._pose_of = _nearest_in_time(stamps, pose_stamps)
        if self._poses and not any(near is not None for near in self._pose_of):
            raise NoTruthError(_no_match(folder / 'groundtruth.txt', 'pose', stamps, pose_stamps)
                               + '; take pictures and poses of one recording and one clock')

    @classmethod
    def fits(cls, folder: Path) -> bool:
        """Return whether the files of `folder` are laid out like this."""
        return (folder / 'rgb.txt').is_file()

    def _published_camera(self) -> tuple[float, float, float, float]:
        """Return fx, fy, cx and cy of the camera that the folder's name tells."""
        found = re.search('|'.join(self._CAMERAS), self.name)
        return self._CAMERAS[found.group()] if found else self._ROS_DEFAULT

    def _depth(self, index: int) -> np.ndarray | None:
        nearest = self._depth_of[index]
        return None if nearest is None else _read_depth(self._depths[nearest], 5000.0)

    def _pose(self, index: int) -> np.ndarray | None:
        nearest = self._pose_of[index]
        if nearest is None:
            return None
        return self._poses[nearest].matrix()  # NaN for a quaternion of zeros


class Bonn(Tum):
    """
    Bonn RGB-D Dynamic: as TUM, but the poses are those of markers that are fixed to the camera.

    The camera's pose is T_ROS @ pose @ T_ROS @ T_m, with the matrices of the data set's page. The
    published T_m also scales by 1.059, which is left out to keep poses rigid; depth is what the
    files say, in 1/5000 m.
    """

    looks_like = 'rgbd_bonn_balloon/ with rgb.txt, depth.txt and groundtruth.txt'
    _T_ROS = np.array([[-1.0, 0, 0, 0], [0, 0, 1, 0], [0, 1, 0, 0], [0, 0, 0, 1]])
    _T_M = np.array([[1.0157, 0.1828, -0.2389, 0.0113], [0.0009, -0.8431, -0.6413, -0.0098],
                     [-0.3009, 0.6147, -0.8085, 0.0111], [0, 0, 0, 1]])
    _T_M[:3, :3] = nearest_rotation(_T_M[:3, :3])

    @classmethod
    def recognises(cls, folder: Path) -> bool:
        """Return whether `folder` is from this data set, if nobody says so."""
        return folder.name.startswith('rgbd_bonn') and cls.fits(folder)

    def _published_camera(self) -> tuple[float, float, float, float]:
        return 542.822841, 542.576870, 315.593520, 237.756098

    def _pose(self, index: int) -> np.ndarray | None:
        markers = super()._pose(index)
        return None if markers is None else self._T_ROS @ markers @ self._T_ROS @ self._T_M


class Kitti(DatasetSequence):
    """
    KITTI odometry: the left colour camera (image_2); poses in file 00.txt beside the sequences.

    The poses are those of camera 0, the left grey one, and P2 projects from its frame; so the last
    column of P2 tells where camera 2 is. A line of the poses belongs to the picture whose name is
    its number, from 0. No depth. times.txt is not needed: pictures are numbered in time.
    """

    looks_like = ('sequences/00/ with image_2/000000.png and calib.txt, and poses/00.txt beside '
                  'sequences/')

    def __init__(self, folder: Path) -> None:
        """Open a folder like sequences/00."""
        super().__init__(folder, sorted((folder / 'image_2').glob('*.png')))
        self.name = f'KITTI {folder.name}'
        self._poses_file = folder.parent.parent / 'poses' / f'{folder.name}.txt'
        _check_truth(self._poses_file)
        self._poses = [row.numbers(12) for row in _rows(self._poses_file, 'twelve numbers')]
        self._camera, self._cam0_from_cam2 = _read_projection(folder / 'calib.txt')

    @classmethod
    def fits(cls, folder: Path) -> bool:
        """Return whether the files of `folder` are laid out like this."""
        return (folder / 'calib.txt').is_file() and any((folder / 'image_2').glob('*.png'))

    def _depth(self, index: int) -> None:
        return None

    def _pose(self, index: int) -> np.ndarray:
        picture = self._pictures[index]
        if not picture.stem.isdecimal():
            raise ToolError(f'{picture}: its name is no number, which tells the line of its pose; '
                            'keep the names of the data set')
        number = int(picture.stem)
        if number >= len(self._poses):
            raise ToolError(f'{self._poses_file}: {len(self._poses)} poses, none for '
                            f'{picture.name}; take poses and pictures of the same sequence')
        world_from_cam0 = np.vstack([np.reshape(self._poses[number], (3, 4)), [0, 0, 0, 1]])
        return world_from_cam0 @ self._cam0_from_cam2

    def _intrinsics(self, width: int, height: int) -> np.ndarray:
        return self._camera


# In the order in which folders are compared with them; Bonn fits TUM, too.
LAYOUTS: dict[str, type[DatasetSequence]] = {
    '7scenes': SevenScenes, 'bonn': Bonn, 'tum': Tum, 'kitti': Kitti}


def open_sequences(folder: Path | str, layout: str = 'auto') -> list[DatasetSequence]:
    """
    Return the sequences that `folder` is or holds, sorted by name; raise ToolError.

    They may lie up to two levels below it, as in the folders of 7-Scenes (chess/seq-01) and KITTI
    (sequences/00). Of several sequences those without poses are named in the log and left out.
    layout: a key of LAYOUTS, or 'auto' for what each sequence looks like.
    """
    if layout != 'auto' and layout not in LAYOUTS:
        raise ChoiceError(f"there is no layout '{layout}'; choose from auto, {', '.join(LAYOUTS)}")
    folder = Path(os.path.abspath(folder))   # names and parents, but no links followed
    if not folder.is_dir():
        raise ToolError(f'{folder}: {"not a" if folder.exists() else "no such"} folder; give a '
                        'sequence of a data set, or a folder of sequences')
    sequences = _find_sequences(folder, layout)
    if not sequences:
        known = LAYOUTS if layout == 'auto' else {layout: LAYOUTS[layout]}
        looks = '\n'.join(f'  {name}: {kind.looks_like}' for name, kind in known.items())
        raise ToolError(f'{folder}: no sequence found in it; give a folder that is or holds\n'
                        + looks)
    return _open_those_with_poses(sequences)


def _find_sequences(folder: Path, layout: str) -> list[tuple[type[DatasetSequence], Path]]:
    """Return layout and folder of the sequences on the first level that has some."""
    level = [folder]
    for _ in range(_SEARCH_DEPTH + 1):
        kinds = [_layout_of(place, layout) for place in level]
        found = [(kind, place) for kind, place in zip(kinds, level) if kind]
        if found:
            return found
        level = sorted(child for place in level for child in _subfolders(place))
    return []


def _layout_of(folder: Path, layout: str) -> type[DatasetSequence] | None:
    if layout == 'auto':
        return next((kind for kind in LAYOUTS.values() if kind.recognises(folder)), None)
    return LAYOUTS[layout] if LAYOUTS[layout].fits(folder) else None


def _subfolders(folder: Path) -> list[Path]:
    return [entry for entry in folder.iterdir() if entry.is_dir()
            and not entry.name.startswith('.') and os.access(entry, os.R_OK | os.X_OK)]


def _open_those_with_poses(
    sequences: list[tuple[type[DatasetSequence], Path]],
) -> list[DatasetSequence]:
    """Return the sequences that have poses; raise NoTruthError if none has."""
    recordings, missing = [], []
    for kind, place in sequences:
        try:
            recordings.append(kind(place))
        except NoTruthError as error:
            missing.append(error)
    if not recordings:
        raise missing[0]
    for error in missing:
        _log.warning('%s; left out', error)
    return recordings


def _check_truth(file: Path) -> None:
    """Raise NoTruthError if there is no file with poses."""
    if not file.is_file():
        raise NoTruthError(f'{file}: missing, so the true poses are not known; unpack it there, '
                           'or take a sequence whose ground truth is published')


# Text files --------------------------------------------------------------------------------------

@dataclass(frozen=True)
class _Row:
    """The words of one line of a file."""

    path: Path
    number: int
    words: list[str]
    form: str          # of a line, for messages

    def numbers(self, count: int, start: int = 0) -> list[float]:
        """Return the `count` numbers from word `start` to the end."""
        self.check(count + start)
        try:
            return [float(word) for word in self.words[start:]]
        except ValueError as error:
            raise self.error(str(error)) from error

    def stamp_ns(self) -> int:
        """Return the first word as a time."""
        try:
            return parse_stamp(self.words[0])
        except ValueError as error:
            raise self.error(str(error)) from error

    def check(self, count: int) -> None:
        """Raise ToolError unless there are `count` words."""
        if len(self.words) != count:
            raise self.error(f'{len(self.words)} values instead of {count}')

    def error(self, text: str) -> ToolError:
        """Return an error that says where it is."""
        return ToolError(f'{self.path}, line {self.number}: {text}; it should be {self.form}')


def _rows(path: Path, form: str) -> Iterator[_Row]:
    """Yield the lines of a file but for comments and empty ones."""
    try:
        lines = list(read_rows(path))
    except (OSError, ValueError) as error:
        raise ToolError(f'{path}: cannot be read ({error}); unpack it again') from error
    for number, words in lines:
        yield _Row(path, number, words, form)


def _read_list(path: Path, only_existing: bool = False) -> tuple[list[int], list[Path]]:
    """Return the times and files that a list such as rgb.txt names, sorted by time."""
    entries = []
    for row in _rows(path, 'timestamp filename'):
        row.check(2)
        file = path.parent / row.words[1]
        if not only_existing or os.path.isfile(file):  # also of names that no file can have
            entries.append((row.stamp_ns(), file))
    entries.sort()
    return [stamp for stamp, _ in entries], [file for _, file in entries]


def _read_trajectory(path: Path) -> list[StampedPose]:
    """Return the poses of a TUM trajectory, sorted by time."""
    poses = []
    for row in _rows(path, _POSE_FORM):
        x, y, z, *quaternion = row.numbers(7, start=1)
        poses.append(StampedPose(row.stamp_ns(), (x, y, z), tuple(quaternion)))
    return sorted(poses, key=lambda pose: pose.stamp_ns)


def _nearest_in_time(stamps: list[int], others: list[int]) -> list[int | None]:
    """Return for each time the index of the nearest of `others`, sorted, None if too far off."""
    if not others:
        return [None] * len(stamps)
    times, known = np.array(stamps, np.int64), np.array(others, np.int64)
    after = np.searchsorted(known, times).clip(max=len(known) - 1)
    before = (after - 1).clip(min=0)
    nearest = np.where(abs(known[before] - times) <= abs(known[after] - times), before, after)
    close = abs(known[nearest] - times) <= MAX_TIME_OFFSET_NS
    return [int(index) if near else None for index, near in zip(nearest, close)]


def _no_match(path: Path, what: str, stamps: list[int], others: list[int]) -> str:
    """Return why none of `others`, sorted and from `path`, is near any of the pictures' times."""
    pictures, found = (f'{format_stamp(times[0])} to {format_stamp(times[-1])} s'
                       for times in (stamps, others))
    return (f'{path}: none of its {len(others)} {what}s is within '
            f'{MAX_TIME_OFFSET_NS / 1e6:g} ms of a picture: pictures are from {pictures}, '
            f'{what}s from {found}')


def _read_projection(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Return camera matrix [3, 3] and cam0_from_cam2 [4, 4] from P2 = K [I | t] of a calib.txt."""
    for row in _rows(path, "'P2:' and twelve numbers"):
        if row.words[0] == 'P2:':
            projection = np.reshape(row.numbers(12, start=1), (3, 4))
            cam0_from_cam2 = np.eye(4)
            try:
                cam0_from_cam2[:3, 3] = -np.linalg.solve(projection[:, :3], projection[:, 3])
            except np.linalg.LinAlgError as error:
                raise row.error('no camera matrix') from error
            return projection[:, :3], cam0_from_cam2
    raise ToolError(f"{path}: no line 'P2: ...', the projection of camera 2; unpack it again")


# Pictures ----------------------------------------------------------------------------------------

def _read_colour(path: Path) -> np.ndarray:
    """Return [H, W, 3] uint8 RGB."""
    return _read_pixels(path, 'RGB')


def _read_depth(path: Path, per_metre: float, unknown: int = 0) -> np.ndarray:
    """Return [H, W] float32 metres, 0 where the file has 0 or `unknown`."""
    raw = _read_pixels(path)
    if raw.dtype.itemsize < 2:   # more than one channel, too: PIL has those at 8 bits only
        raise ToolError(f'{path}: not a depth map, which has one channel of 16 bits; use the '
                        'original file of the data set')
    return np.where(raw == unknown, 0.0, raw / per_metre).astype(np.float32)


def _read_pixels(path: Path, mode: str | None = None) -> np.ndarray:
    """Return the pixels of a picture, in PIL's `mode` if given."""
    try:
        with opened_picture(path) as image:
            return np.array(image.convert(mode) if mode else image)
    except ValueError as error:  # PictureError, and Pillow's for modes that it cannot convert
        raise ToolError(f'{path}: cannot be read as a picture ({error}); unpack it again'
                        ) from error


def _resample(depth: np.ndarray, height: int, width: int) -> np.ndarray:
    """Return the nearest values of a depth map [h, w] at the pixels of a picture [H, W]."""
    rows = (2 * np.arange(height) + 1) * depth.shape[0] // (2 * height)
    columns = (2 * np.arange(width) + 1) * depth.shape[1] // (2 * width)
    return depth[rows[:, None], columns]


def _at_size(camera: np.ndarray, width: int, height: int, folder: Path) -> np.ndarray:
    """
    Return the matrix of a camera for 640x480 at another size; pixel centres are at integers.

    Raises ToolError for another shape, as a picture that was cropped could be any part.
    """
    if width * _RGBD_SIZE[1] != height * _RGBD_SIZE[0]:
        raise ToolError(f'{folder}: its pictures are {width}x{height}, but its camera took '
                        f'{_RGBD_SIZE[0]}x{_RGBD_SIZE[1]}; use pictures that are not cropped')
    scale = width / _RGBD_SIZE[0]
    matrix = camera * [[scale], [scale], [1.0]]
    matrix[:2, 2] += (scale - 1.0) / 2.0
    return matrix
