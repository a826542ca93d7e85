"""
TUM RGB-D and Bonn RGB-D Dynamic.

https://cvg.cit.tum.de/data/datasets/rgbd-dataset/file_formats
https://www.ipb.uni-bonn.de/data/rgbd-dynamic-dataset/
"""

import logging
import os
from pathlib import Path
import re
from typing import ClassVar

import numpy as np

from xsvggt_ros.console.errors import ToolError
from xsvggt_ros.evaluation.datasets.pictures import read_depth
from xsvggt_ros.evaluation.datasets.sequence import (
    camera_matrix,
    check_truth,
    NoTruthError,
    RgbdSequence,
)
from xsvggt_ros.evaluation.datasets.text_files import rows
from xsvggt_ros.geometry.metrics import nearest_rotation
from xsvggt_ros.mapping.map_files import format_stamp
from xsvggt_ros.mapping.trajectory import StampedPose

MAX_TIME_OFFSET_NS = 20_000_000   # between a picture and its depth or pose
_POSE_FORM = 'timestamp tx ty tz qx qy qz qw'

_log = logging.getLogger(__name__)


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
        super().__init__(folder)
        stamps, self._pictures = _read_list(folder / 'rgb.txt')
        if not self._pictures:
            raise ToolError(f'{folder / "rgb.txt"}: lists no pictures; unpack it again')
        check_truth(folder / 'groundtruth.txt')
        self._camera = camera_matrix(*self._published_camera())
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
        return None if nearest is None else read_depth(self._depths[nearest], 5000.0)

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


def _read_list(path: Path, only_existing: bool = False) -> tuple[list[int], list[Path]]:
    """Return the times and files that a list such as rgb.txt names, sorted by time."""
    entries = []
    for row in rows(path, 'timestamp filename'):
        row.check(2)
        file = path.parent / row.words[1]
        if not only_existing or os.path.isfile(file):  # also of names that no file can have
            entries.append((row.stamp_ns(), file))
    entries.sort()
    return [stamp for stamp, _ in entries], [file for _, file in entries]


def _read_trajectory(path: Path) -> list[StampedPose]:
    """Return the poses of a TUM trajectory, sorted by time."""
    poses = []
    for row in rows(path, _POSE_FORM):
        x, y, z, qx, qy, qz, qw = row.numbers(7, start=1)
        poses.append(StampedPose(row.stamp_ns(), (x, y, z), (qx, qy, qz, qw)))
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
