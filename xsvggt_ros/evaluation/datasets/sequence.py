"""A sequence of a data set: pictures in the order of time, and the ground truth of each."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np

from xsvggt_ros.console.errors import ToolError
from xsvggt_ros.evaluation.datasets.pictures import read_colour, resample

RGBD_SIZE = (640, 480)   # of the pictures that published RGB-D intrinsics are for


class NoTruthError(ToolError):
    """A sequence that comes without poses, such as those a benchmark keeps secret."""


@dataclass(frozen=True)
class TrueFrame:
    """One picture and what is true about it; None is what is not known."""

    image: np.ndarray                       # [H, W, 3] uint8 RGB
    depth: np.ndarray | None                # [H, W] float32 metres on the optical axis, 0: unknown
    world_from_camera: np.ndarray | None    # [4, 4] float64, optical frame
    intrinsics: np.ndarray | None           # [3, 3] float64, pixels of the image


class DatasetSequence(ABC):
    """
    One sequence of a data set: pictures in the order of time, and what is true about them.

    Pictures, depth and the poses of 7-Scenes are read when a frame is asked for. Every picture is
    a frame: one without a depth map has depth None, one without a pose, or with one that is not
    finite, has world_from_camera None.
    """

    looks_like: ClassVar[str]   # what a person sees in the folder
    _pictures: list[Path]       # in the order of time

    def __init__(self, folder: Path) -> None:
        """Open the sequence in `folder`; raise ToolError, NoTruthError if it has no poses."""
        self.folder = folder
        self.name = folder.name

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
        image = read_colour(self._pictures[index])
        height, width = image.shape[:2]
        depth, pose = self._depth(index), self._pose(index)
        return TrueFrame(image, None if depth is None else resample(depth, height, width),
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


def camera_matrix(fx: float, fy: float, cx: float, cy: float) -> np.ndarray:
    """Return the matrix [3, 3] of a pinhole camera, in pixels."""
    return np.array([[fx, 0.0, cx], [0.0, fy, cy], [0.0, 0.0, 1.0]])


def _at_size(camera: np.ndarray, width: int, height: int, folder: Path) -> np.ndarray:
    """
    Return the matrix of a camera for 640x480 at another size; pixel centres are at integers.

    Raises ToolError for another shape, as a picture that was cropped could be any part.
    """
    if width * RGBD_SIZE[1] != height * RGBD_SIZE[0]:
        raise ToolError(f'{folder}: its pictures are {width}x{height}, but its camera took '
                        f'{RGBD_SIZE[0]}x{RGBD_SIZE[1]}; use pictures that are not cropped')
    scale = width / RGBD_SIZE[0]
    matrix = camera * [[scale], [scale], [1.0]]
    matrix[:2, 2] += (scale - 1.0) / 2.0
    return matrix


def check_truth(file: Path) -> None:
    """Raise NoTruthError if there is no file with poses."""
    if not file.is_file():
        raise NoTruthError(f'{file}: missing, so the true poses are not known; unpack it there, '
                           'or take a sequence whose ground truth is published')
