"""No more often than so many times a second, by the stamps of the images."""

TOLERANCE = 0.1  # share of the period by which stamps may come early, as those of cameras do


class RateLimit:
    """
    Choose the images that keep a rate.

    A chosen one is at least a period, less TOLERANCE, after the one chosen before, so that every
    third image of a camera at 30 Hz is chosen for 10 Hz, though its stamps jitter.
    """

    def __init__(self) -> None:
        """Begin with an image that is chosen in any case."""
        self._last: tuple[int, float] | None = None  # stamp in ns, arrival in s

    def forget(self) -> None:
        """Choose the next image in any case."""
        self._last = None

    def is_due(self, stamp_ns: int, arrival: float, rate: float) -> bool:
        """
        Return whether to choose this image, and remember it if so.

        arrival: seconds on any steady clock, for stamps that stand still. rate: Hz, 0 chooses
        all. Stamps that go back are chosen too: what they mean is for others to say.
        """
        if self._last is not None and rate > 0:
            last_ns, last_arrival = self._last
            elapsed = 1e-9 * (stamp_ns - last_ns) or arrival - last_arrival
            if 0 <= elapsed < (1 - TOLERANCE) / rate:
                return False
        self._last = (stamp_ns, arrival)
        return True
