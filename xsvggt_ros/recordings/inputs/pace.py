"""Which images of a recording are used, if fewer a second are wanted than there are."""

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
