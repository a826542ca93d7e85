"""Which images of a recording are used, if fewer a second are wanted than there are."""

from collections.abc import Iterable, Iterator

import numpy as np

from xsvggt_ros.recordings.inputs.skipped import Skipped
from xsvggt_ros.recordings.source_frame import SourceFrame

_EARLY = 0.1  # of a period: how much before its time an image may come


class Pace:
    """Takes at most so many images a second, evenly by their stamps; all if no rate is given."""

    def __init__(self, rate: float | None) -> None:
        """Begin before the first image; rate: in Hz."""
        self._period = None if rate is None else 1e9 / rate
        self._due = 0.0
        self._began = False

    def takes(self, stamp_ns: int) -> bool:
        """Return whether the image with this stamp is used."""
        if self._period is None:
            return True
        if not self._began:
            self._began = True
        elif stamp_ns < self._due - _EARLY * self._period:
            return False
        else:
            # In step with the first one, so that 30 Hz become 10; after a gap anew.
            step = self._due if stamp_ns < self._due + self._period else stamp_ns
            self._due = step + self._period
            return True
        self._due = stamp_ns + self._period
        return True


def paced_frames(
    images: Iterable[tuple[int, np.ndarray]], size: tuple[int, int], rate: float | None,
    limit: int | None, skipped: Skipped,
) -> Iterator[SourceFrame]:
    """
    Yield the images of one size that a pace takes, as frames that count from the first of them.

    images: stamps in ns and pixels [H, W, ...]. size: (width, height); others are left out and
    counted. rate: in Hz, None for all. limit: of the number of frames, None for none.
    """
    start: int | None = None
    number = 0
    pace = Pace(rate)
    for stamp, pixels in images:
        if (pixels.shape[1], pixels.shape[0]) != size:
            skipped.add(f'{pixels.shape[1]}x{pixels.shape[0]}, but the first image is '
                        f'{size[0]}x{size[1]}')
            continue
        if not pace.takes(stamp):
            continue
        start = stamp if start is None else start
        yield SourceFrame(pixels, stamp - start, stamp)
        number += 1
        if number == limit:
            return
