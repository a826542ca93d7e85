"""What the images' stamps say: whether the stream goes on, or a new one has begun."""

DISORDER = 0.2  # seconds: an image that is older than the one before by less came out of order


class OutOfOrderError(ValueError):
    """An image that is older than one already processed."""


class StreamClock:
    """Watches the stamps of the images that are processed."""

    def __init__(self) -> None:
        """Begin without a last stamp."""
        self._last: int | None = None
        self._era: int | None = None

    def forget(self) -> None:
        """Take whatever stamp comes next."""
        self._last = self._era = None

    def restart_reason(
        self, stamp_ns: int, on_jump: bool, on_gap: float, era: int | None = None,
    ) -> str | None:
        """
        Return why this image begins a new stream, or None if it goes on with the old one.

        on_jump: whether a clock that jumps does; on_gap: seconds between two images that do, 0 for
        never. era: of the sender's clock (`SenderWatch`), another one if it has jumped; None: any
        stamp that goes back is a jump. Raises OutOfOrderError for an image that is only a little
        too late.
        """
        if self._last is None:
            return None
        step = (stamp_ns - self._last) * 1e-9
        jumps = step < 0 if era is None else era != self._era
        if -DISORDER < step < 0 and (era is None or not jumps):
            raise OutOfOrderError(
                f'it is {-step:.3f} s older than the previous image: images arrive out of order; '
                'if several cameras publish on this topic, give each its own topic')
        if jumps and on_jump:
            direction = 'back' if step < 0 else 'forward'
            cause = 'a bag that loops, or a clock that was set' if step < 0 else (
                'a clock that was set, or a part of a recording that is missing')
            return f'time went {direction} by {abs(step):.1f} s ({cause})'
        if on_gap and step > on_gap:
            return f'a gap of {step:.1f} s between the stamps of two images'
        return None

    def stuck_message(self, stamp_ns: int) -> str | None:
        """Return what is wrong if the stamp is the last one's, or none at all."""
        if stamp_ns == 0:
            return ('images have no stamp, which TF and synchronization need; set it in the '
                    'camera driver')
        if stamp_ns == self._last:
            return ('two images have the same stamp; TF and synchronization need increasing '
                    'ones; check the camera driver')
        return None

    def advance(self, stamp_ns: int, era: int | None = None) -> None:
        """Remember the stamp of an image that was processed, and its era."""
        self._last, self._era = stamp_ns, era
