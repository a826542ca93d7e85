"""A run while it goes on, in Rerun's viewer: a window, or a page where there is no display."""

from collections.abc import Mapping
import os
import sys
from typing import Any
from urllib.parse import quote

import numpy as np

from xsvggt_ros.console.errors import ToolError
from xsvggt_ros.console.optional import need
from xsvggt_ros.mapping.map_files import cloud_from_packed
from xsvggt_ros.recordings.exports.export import FrameOutput
from xsvggt_ros.recordings.exports.rerun_log import begin, log_frame
from xsvggt_ros.recordings.recording import Recording

CLOUDS = 60             # of the newest frames that are shown
_CLOUD_EVERY = 5        # frames
_MOST_POINTS = 10_000   # of a frame
_MOST_MAP_POINTS = 500_000
_MEMORY = '1GiB'        # of the viewer: it forgets the oldest


class LiveViewer:
    """
    Shows each frame as it is located, and the map at the end.

    Poses are those of the moment, in the network's unit: final ones, and metres, come with the
    files. What the viewer keeps is bounded.
    """

    def __init__(self, source: str, environment: Mapping[str, str] = os.environ) -> None:
        """Open a viewer; raises ToolError without Rerun, or if no viewer can be opened."""
        self._rr = need('rerun', '--viewer', 'rerun-sdk', 'rerun')
        self._stream = self._rr.RecordingStream('xsvggt')
        self._way: list[tuple[float, float, float]] = []
        self.is_page = not (environment.get('DISPLAY') or environment.get('WAYLAND_DISPLAY'))
        try:
            self.address = self._serve() if self.is_page else self._open()
        except Exception as error:   # of the library: a port in use, no graphics
            words = ' '.join(str(error).split()) or type(error).__name__
            raise ToolError(f'--viewer: cannot be opened: {words}; --export rerun writes a '
                            'recording for later') from error
        begin(self._rr, self._stream, source)

    def _open(self) -> str:
        self._stream.spawn(memory_limit=_MEMORY, hide_welcome_screen=True)
        return 'a window of Rerun'

    def _serve(self) -> str:
        address = self._stream.serve_grpc(server_memory_limit=_MEMORY)
        self._rr.serve_web_viewer(open_browser=False, connect_to=address)
        return f'http://localhost:9090/?url={quote(address, safe=":/")}'

    def show(self, frame: FrameOutput) -> None:
        """Show a frame; what the viewer makes of that is not waited for."""
        rr, stream = self._rr, self._stream
        log_frame(rr, stream, frame)
        self._way.append(frame.pose.position)
        stream.log('odom/trajectory', rr.LineStrips3D([self._way[-2:]]))
        if frame.number % _CLOUD_EVERY == 0:
            cloud = cloud_from_packed(frame.cloud.numpy())
            cloud = cloud[::len(cloud) // _MOST_POINTS + 1]
            matrix = frame.pose.matrix()
            place = f'odom/clouds/{frame.number // _CLOUD_EVERY % CLOUDS}'
            stream.log(place, rr.Transform3D(translation=matrix[:3, 3], mat3x3=matrix[:3, :3]))
            stream.log(place, _points(rr, cloud))
            stream.log('odom/way', rr.LineStrips3D([self._way]))

    def finish(self, recording: Recording, wait: bool | None = None) -> None:
        """
        Show the map in place of the frames' clouds; a page stays until Enter.

        wait: for that; None: if somebody is there to press it.
        """
        rr, stream = self._rr, self._stream
        cloud = recording.cloud()
        stream.log('odom/clouds', rr.Clear(recursive=True))
        stream.log('odom/map', _points(rr, cloud[::len(cloud) // _MOST_MAP_POINTS + 1]))
        stream.log('odom/way', rr.LineStrips3D([[pose.position for pose in recording.poses]]))
        stream.flush()
        if self.is_page and (sys.stdin.isatty() if wait is None else wait):
            print(f'the viewer stays at {self.address} until Enter', flush=True)
            sys.stdin.readline()


def _points(rr: Any, cloud: np.ndarray) -> Any:
    """Return points with their own colours, uint8."""
    return rr.Points3D(np.stack([cloud[name] for name in 'xyz'], axis=1),
                       colors=np.stack([cloud[name] for name in ('red', 'green', 'blue')], axis=1))
