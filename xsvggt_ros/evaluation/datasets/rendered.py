"""Rooms as `xsvggt world render` and `python -m training.wide_world --write` write them."""

from pathlib import Path

import numpy as np

from xsvggt_ros.console.errors import ToolError
from xsvggt_ros.evaluation.datasets.sequence import check_truth, DatasetSequence
from xsvggt_ros.mapping.map_files import read_tum
from xsvggt_ros.recordings.calibration import load_calibration

CALIBRATION, POSES = 'camera_info.yaml', 'poses.tum'


class Rendered(DatasetSequence):
    """
    A folder of pictures, depth maps and poses with one calibration, which may be of any camera.

    images/T.png and depth/T.npy (float32 metres along the optical axis, 0: unknown) with times T
    in nanoseconds, poses.tum (world_from_camera, optical frame) with the same times,
    camera_info.yaml without lens distortion.
    """

    looks_like = f'room/ with images/, depth/, {POSES} and {CALIBRATION}'

    def __init__(self, folder: Path) -> None:
        """Open a folder; raise ToolError for what is wrong with it."""
        pictures = list((folder / 'images').glob('*.png'))
        for picture in pictures:
            if not picture.stem.isascii() or not picture.stem.isdigit():
                raise ToolError(f'{picture}: its name is no time in nanoseconds; remove it, or '
                                'name it by its time as the poses are')
        if not pictures:
            raise ToolError(f'{folder / "images"}: holds no .png pictures')
        super().__init__(folder)
        self._pictures = sorted(pictures, key=lambda picture: int(picture.stem))
        check_truth(folder / POSES)
        try:
            self._poses = {pose.stamp_ns: pose.matrix() for pose in read_tum(folder / POSES)}
        except (OSError, ValueError) as error:
            raise ToolError(str(error)) from error
        self._calibration = load_calibration(folder / CALIBRATION)
        if self._calibration.camera().needs_rectification:
            raise ToolError(f'{folder / CALIBRATION}: its lens is distorted; rectify the '
                            'pictures, and give the calibration of the rectified ones')

    @classmethod
    def fits(cls, folder: Path) -> bool:
        """Return whether the files of `folder` are laid out like this."""
        return (folder / POSES).is_file() and (folder / CALIBRATION).is_file() and (
            folder / 'images').is_dir()

    def _depth(self, index: int) -> np.ndarray | None:
        file = self.folder / 'depth' / f'{self._pictures[index].stem}.npy'
        if not file.is_file():
            return None
        try:
            depth = np.load(file, mmap_mode='r', allow_pickle=False)
        except (OSError, ValueError, EOFError) as error:
            raise ToolError(f'{file}: cannot be read ({error})') from error
        if not isinstance(depth, np.ndarray) or depth.ndim != 2 or not depth.size or (
                depth.dtype.kind != 'f'):
            raise ToolError(f'{file}: not a depth map, which has rows and columns of metres in '
                            'floating point')
        metres = np.asarray(depth, np.float32)
        return np.where(np.isfinite(metres) & (metres > 0), metres, np.float32(0))

    def _pose(self, index: int) -> np.ndarray | None:
        return self._poses.get(int(self._pictures[index].stem))

    def _intrinsics(self, width: int, height: int) -> np.ndarray:
        return self._calibration.for_images(width, height).camera_matrix
