"""The first images of a stream, while the network waits for more of them to see together."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
import threading

import numpy as np

from xsvggt_ros.engine.first_frames import check_size
from xsvggt_ros.geometry.camera_model import CameraModel
from xsvggt_ros.node.inputs.camera_sets import CameraImage
from xsvggt_ros.node.inputs.image_intake import ImageSet
from xsvggt_ros.node.status.stream_statistics import StreamStatistics, Ticket


@dataclass(frozen=True)
class DecodedSet:
    """Images that belong together, decoded; times in seconds of the steady clock."""

    item: ImageSet
    pixels: Sequence[np.ndarray]
    ticket: Ticket
    start: float    # of processing
    decoded: float
    cameras: Sequence[CameraModel | None] = ()

    @property
    def images(self) -> Sequence[CameraImage]:
        """Return the images as they came."""
        return self.item.images

    def predicted(self, now: float, seconds: float) -> 'DecodedSet':
        """Return the same as if the network had begun so many seconds ago, its share of them."""
        decoded = now - seconds
        return replace(self, start=decoded - (self.decoded - self.start), decoded=decoded)


class Opening:
    """
    Collects the sets of images that a stream is to begin with.

    The worker's thread collects; any other may ask how many there are. Images that come to nothing
    because the stream is reset meanwhile are counted as skipped.
    """

    def __init__(self, images: int, statistics: StreamStatistics) -> None:
        """Wait for so many images; with one there is nothing to collect."""
        self._wanted = images
        self._statistics = statistics
        self._sets: list[DecodedSet] = []
        self._lock = threading.Lock()

    @property
    def collected(self) -> int:
        """Return how many images wait for others; from any thread."""
        with self._lock:
            return sum(len(one.images) for one in self._sets)

    def wanted(self, frames: int) -> int:
        """Return how many a stream is to begin with that has had so many; 0 if it has begun."""
        return self._wanted if frames == 0 and self._wanted > 1 else 0

    def check(self, height: int, width: int) -> None:
        """Raise FrameError for an image of another size than those that wait."""
        if self._sets:
            check_size(self._sets[0].pixels[0].shape[:2], (height, width))

    def add(self, one: DecodedSet) -> list[DecodedSet]:
        """Collect a set; return all of them as soon as there are enough."""
        with self._lock:
            self._sets.append(one)
            if sum(len(each.images) for each in self._sets) < self._wanted:
                return []
            complete, self._sets = self._sets, []
            return complete

    def forget(self) -> None:
        """Let go of what waits: the stream that it was for will not be."""
        with self._lock:
            sets, self._sets = self._sets, []
        self._statistics.unused += sum(one.ticket.take() for one in sets)
