"""Depth of each frame: 16-bit PNG in millimetres, and floats with their confidence as npz."""

import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from xsvggt_ros.recordings.exports.export import ExportOptions, FrameOutput, remove_old
from xsvggt_ros.recordings.recording import Recording

FOLDER = 'depth'
MOST_MM = 65535
_OURS = r'-?\d{18,19}\.(png|npz)'   # names of the files


class DepthExport:
    """
    Writes depth/STAMP.png, STAMP.npz and depth.json.

    PNG: uint16, thousandths of the unit, 0 where nothing is known or it does not fit. npz: `depth`
    float32 along the optical axis (NaN: unknown), `confidence` float32, `intrinsics` [3, 3] of
    these pixels.
    """

    name = 'depth'

    def __init__(self, options: ExportOptions) -> None:
        """Write below the run's folder."""
        self._folder = options.folder / FOLDER
        self.notes: dict[str, Any] = {
            'png': 'uint16, thousandths of the unit; 0: unknown, or beyond 65.535 units',
            'npz': 'depth float32 in the unit, NaN: unknown; confidence float32; intrinsics',
            'intrinsics': 'of the depth images, in their pixels (integers at pixel centres)'}
        self._is_empty = True

    def add(self, frame: FrameOutput) -> None:
        """Write the files of a frame."""
        if self._is_empty:
            self._folder.mkdir(parents=True, exist_ok=True)
            remove_old(self._folder, _OURS)
            self._is_empty = False
        name = f'{frame.stamp_ns:019d}'   # so that they sort by time
        thousandths = np.rint(np.nan_to_num(frame.depth.astype(np.float64), nan=0.0) * 1000)
        fits = (thousandths > 0) & (thousandths <= MOST_MM)
        png = np.where(fits, thousandths, 0).astype(np.uint16)
        Image.fromarray(png).save(self._folder / f'{name}.png', compress_level=1)
        np.savez(self._folder / f'{name}.npz', depth=frame.depth,
                 confidence=frame.confidence, intrinsics=frame.intrinsics)

    def finish(self, recording: Recording) -> list[Path]:
        """Write what the files mean."""
        self.notes = {'unit': 'metre' if recording.metric else "the network's own, not metres",
                      **self.notes}
        self._folder.mkdir(parents=True, exist_ok=True)
        text = json.dumps(self.notes, indent=2) + '\n'
        (self._folder / 'depth.json').write_text(text, encoding='utf-8')
        return [self._folder]
