"""Images that could not be processed or published: counted, and reported with the reason."""

import rclpy
import torch

from xsvggt_ros.engine.frame_result import ResultError
from xsvggt_ros.engine.stream_engine import FrameError
from xsvggt_ros.node.inputs.image_codec import ImageError
from xsvggt_ros.node.inputs.stream_clock import OutOfOrderError
from xsvggt_ros.node.loading import is_out_of_memory, LoadedEngine
from xsvggt_ros.node.status.fault_log import FaultLog
from xsvggt_ros.node.status.stream_statistics import StreamStatistics, Ticket


class Rejections:
    """Reports what went wrong with images; for the worker's thread and the publishing one."""

    def __init__(
        self, loaded: LoadedEngine, faults: FaultLog, statistics: StreamStatistics,
    ) -> None:
        """Report to ``faults`` and count in ``statistics``."""
        self._loaded = loaded
        self._faults = faults
        self._statistics = statistics
        self._silenced = False

    def silence(self) -> None:
        """Report nothing from now on: the node has let go of the stream."""
        self._silenced = True

    @property
    def is_silent(self) -> bool:
        """Return whether nobody is left to report to: the process ends, for example."""
        return self._silenced or not rclpy.ok()

    def reject(self, ticket: Ticket, error: BaseException) -> None:
        """Count the images of a set, and report the error."""
        if self.is_silent:
            return
        images = self._statistics.reject(ticket)
        if isinstance(error, (ImageError, FrameError, OutOfOrderError)):
            self._faults.report('image', f'image refused: {error}')
        elif is_out_of_memory(error):
            if self._loaded.device.type == 'cuda':
                torch.cuda.empty_cache()
            self._faults.report(
                'frame', f'{self._loaded.device_name} is out of memory; lower model.image_size or '
                'cache.max_tokens, or end other programs that use it')
        elif isinstance(error, ResultError):
            self._faults.report(
                'frame', f'image refused, the stream is as it was before it: {error}',
                key=error.what)
        elif images:
            self._faults.report(
                'frame', f'image could not be processed: {type(error).__name__}: {error}')
        else:
            self._faults.report(
                'frame', 'an image was published, but a later step failed: '
                f'{type(error).__name__}: {error}')
