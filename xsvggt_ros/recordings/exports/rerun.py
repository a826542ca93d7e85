"""A Rerun recording: camera, images, depth, way and map in 3D, cache and latency as plots."""

from pathlib import Path
from typing import Any

import numpy as np

from xsvggt_ros.console.optional import need
from xsvggt_ros.recordings.exports.export import ExportOptions, FrameOutput
from xsvggt_ros.recordings.recording import Recording

FILE = 'recording.rrd'
TIMELINE = 'stamp'
_POINTS_EVERY = 10      # frames: how often the way so far is logged anew
_MOST_POINTS = 500_000  # of the map
_QUALITY = 85           # of the images' JPEG


class RerunExport:
    """
    Writes recording.rrd while the run goes on; the map comes at its end, for all times.

    Times are those of the recording's stamps. Clouds have colours of their own, uint8.
    """

    name = 'rerun'

    def __init__(self, options: ExportOptions) -> None:
        """Take the library; raises ToolError if it lacks. The file comes with a frame."""
        self._rr = need('rerun', '--export rerun', 'rerun-sdk', 'rerun')
        self._path = options.folder / FILE
        self._source = options.source
        self._stream: Any = None
        self._way: list[tuple[float, float, float]] = []
        self.notes: dict[str, Any] = {}

    def add(self, frame: FrameOutput) -> None:
        """Log a frame at its stamp."""
        stream = self._begun()
        rr = self._rr
        stream.set_time(TIMELINE, timestamp=np.datetime64(frame.stamp_ns, 'ns'))
        stream.set_time('frame', sequence=frame.number)
        matrix = frame.pose.matrix()
        stream.log('odom/camera', rr.Transform3D(translation=matrix[:3, 3],
                                                 mat3x3=matrix[:3, :3]))
        height, width = frame.depth.shape
        stream.log('odom/camera/image', rr.Pinhole(
            image_from_camera=frame.intrinsics, width=width, height=height,
            camera_xyz=rr.ViewCoordinates.RDF))
        stream.log('odom/camera/image/rgb', rr.Image(frame.image).compress(_QUALITY))
        stream.log('odom/camera/image/depth',
                   rr.DepthImage(np.nan_to_num(frame.depth.astype(np.float32)), meter=1.0))
        stream.log('plots/cache_occupancy', rr.Scalars(frame.cache.occupancy))
        stream.log('plots/cache_tokens', rr.Scalars(frame.cache.tokens_used))
        stream.log('plots/latency_ms', rr.Scalars(1e3 * frame.cache.latency))
        self._way.append(frame.pose.position)
        if len(self._way) % _POINTS_EVERY == 0:
            stream.log('odom/trajectory', rr.LineStrips3D([self._way[-_POINTS_EVERY - 1:]]))

    def finish(self, recording: Recording) -> list[Path]:
        """Log the map and the final way, and end the file."""
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
        self.notes = {'timelines': [TIMELINE, 'frame'], 'map_points': len(cloud)}
        return [self._path]

    def _begun(self) -> Any:
        if self._stream is None:
            self._stream = self._rr.RecordingStream('xsvggt', recording_id=None)
            self._stream.save(str(self._path))
            self._stream.log('odom', self._rr.ViewCoordinates.FLU, static=True)
            self._stream.log('source', self._rr.TextDocument(self._source), static=True)
        return self._stream
