"""KITTI odometry, as in the readme of the development kit at https://www.cvlibs.net."""

from pathlib import Path

import numpy as np

from xsvggt_ros.console.errors import ToolError
from xsvggt_ros.evaluation.datasets.sequence import check_truth, DatasetSequence
from xsvggt_ros.evaluation.datasets.text_files import rows


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
        super().__init__(folder)
        self._pictures = sorted((folder / 'image_2').glob('*.png'))
        self.name = f'KITTI {folder.name}'
        self._poses_file = folder.parent.parent / 'poses' / f'{folder.name}.txt'
        check_truth(self._poses_file)
        self._poses = [row.numbers(12) for row in rows(self._poses_file, 'twelve numbers')]
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


def _read_projection(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Return camera matrix [3, 3] and cam0_from_cam2 [4, 4] from P2 = K [I | t] of a calib.txt."""
    for row in rows(path, "'P2:' and twelve numbers"):
        if row.words[0] == 'P2:':
            projection = np.reshape(row.numbers(12, start=1), (3, 4))
            cam0_from_cam2 = np.eye(4)
            try:
                cam0_from_cam2[:3, 3] = -np.linalg.solve(projection[:, :3], projection[:, 3])
            except np.linalg.LinAlgError as error:
                raise row.error('no camera matrix') from error
            return projection[:, :3], cam0_from_cam2
    raise ToolError(f"{path}: no line 'P2: ...', the projection of camera 2; unpack it again")
