"""7-Scenes: https://www.microsoft.com/en-us/research/project/rgb-d-dataset-7-scenes/."""

from pathlib import Path

import numpy as np

from xsvggt_ros.console.errors import ToolError
from xsvggt_ros.evaluation.datasets.pictures import read_depth
from xsvggt_ros.evaluation.datasets.sequence import camera_matrix, check_truth, RgbdSequence
from xsvggt_ros.evaluation.datasets.text_files import rows


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
        super().__init__(folder)
        self._pictures = sorted(folder.glob('frame-*' + self._SUFFIX))
        self.name = f'{folder.parent.name}/{folder.name}'
        check_truth(self._beside(0, '.pose.txt'))
        registered = self._beside(0, '.depth.proj.png').is_file()
        self._depth_suffix = '.depth.proj.png' if registered else '.depth.png'
        focal = 525.0 if registered else 585.0
        self._camera = camera_matrix(focal, focal, 320.0, 240.0)

    @classmethod
    def fits(cls, folder: Path) -> bool:
        """Return whether the files of `folder` are laid out like this."""
        return any(folder.glob('frame-*' + cls._SUFFIX))

    def _depth(self, index: int) -> np.ndarray | None:
        file = self._beside(index, self._depth_suffix)
        return read_depth(file, 1000.0, unknown=65535) if file.is_file() else None

    def _pose(self, index: int) -> np.ndarray:
        file = self._beside(index, '.pose.txt')
        numbers = [row.numbers(4) for row in rows(file, 'four numbers')]
        if len(numbers) != 4:
            raise ToolError(f'{file}: {len(numbers)} lines of numbers instead of the 4 of a pose; '
                            'unpack it again')
        return np.array(numbers)

    def _beside(self, index: int, suffix: str) -> Path:
        """Return the file of the same frame that ends in `suffix`."""
        picture = self._pictures[index]
        return picture.with_name(picture.name.removesuffix(self._SUFFIX) + suffix)
