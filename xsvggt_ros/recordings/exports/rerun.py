"""A Rerun recording: camera, images, depth, trajectory and map in 3D, plots of the cache."""

from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np

from xsvggt_ros.console.optional import need
from xsvggt_ros.recordings.exports.export import ExportOptions, FrameOutput, remove_old
from xsvggt_ros.recordings.exports.rerun_log import begin, log_frame
from xsvggt_ros.recordings.recording import Recording

_POINTS_EVERY = 10      # frames: how often the trajectory so far is logged anew
_MOST_POINTS = 500_000  # of the map


class RerunExport:
    """
    Writes recording.rrd while the run goes on; the map comes at its end, for all times.

    A run that was resumed has recording_1.rrd, too: both are one for the viewer.

    Times are those of the recording's stamps. Clouds have colours of their own, uint8.
    """

    name = 'rerun'

    def __init__(self, options: ExportOptions) -> None:
        """Take the library; raises ToolError if it lacks. The file comes with a frame."""
        self._rr = need('rerun', '--export rerun', 'rerun-sdk', 'rerun')
        self._options = options
        self._id = str(uuid4())      # of the recording, however many files it has
        self._files: list[Path] = []
        self._stream: Any = None
        self._way: list[tuple[float, float, float]] = []
        self.notes: dict[str, Any] = {}

    def __getstate__(self) -> dict[str, Any]:
        """Return what a run that goes on needs: a second file, of the same recording."""
        return {'options': self._options, 'id': self._id, 'files': self._files}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(state['options'])   # type: ignore[misc]
        self._id, self._files = state['id'], list(state['files'])

    def add(self, frame: FrameOutput) -> None:
        """Log a frame at its stamp."""
        stream = self._begun()
        log_frame(self._rr, stream, frame)
        self._way.append(frame.pose.position)
        if len(self._way) == _POINTS_EVERY + 1:
            stream.log('odom/trajectory', self._rr.LineStrips3D([self._way]))
            self._way = self._way[-1:]

    def finish(self, recording: Recording) -> list[Path]:
        """Log the map and the final trajectory, and end the file."""
        stream, rr = self._begun(), self._rr
        cloud = recording.cloud()
        cloud = cloud[::len(cloud) // _MOST_POINTS + 1]
        stream.log('odom/map', rr.Points3D(
            np.stack([cloud[name] for name in 'xyz'], axis=1),
            colors=np.stack([cloud[name] for name in ('red', 'green', 'blue')], axis=1)),
            static=True)
        stream.log('odom/final_trajectory', rr.LineStrips3D(
            [[pose.position for pose in recording.poses]]), static=True)
        stream.flush()
        stream.disconnect()
        self.notes = {'timelines': ['stamp', 'frame'], 'map_points': len(cloud)}
        return list(self._files)

    def _begun(self) -> Any:
        if self._stream is None:
            number = f'_{len(self._files)}' if self._files else ''
            if not self._files:   # parts of an earlier run, which was gone on with
                remove_old(self._options.folder, r'recording_\d+\.rrd')
            self._files.append(self._options.folder / f'recording{number}.rrd')
            self._stream = self._rr.RecordingStream('xsvggt', recording_id=self._id)
            self._stream.save(str(self._files[-1]))
            begin(self._rr, self._stream, self._options.source)
        return self._stream
