"""
Who sends the images of a topic: one camera by one clock, or several, or one that stumbles.

Every image is looked at when it comes, before anything is made of it. One whose stamp is far from
those before it is refused: a lone one costs nothing but itself. If CONFIRMED of them follow each
other, the clock has been set, and with it a new era of the stream begins.
"""

from collections import deque
from collections.abc import Hashable
from statistics import median
import threading

from xsvggt_ros.node.inputs.stream_clock import DISORDER

CONFIRMED = 3     # images in a row by another clock, and it is the stream's
MATURE = 5        # images of a stream; what fewer have made is not worth an image's refusal
STEP = 1.0        # seconds that stamps may go forward from one image to the next ...
STEPS = 3.0       # ... or so many of the usual steps, whichever is more, ...
LATE = 5.0        # seconds that an image may be held up on its way, more than others
SLACK = 1.2       # ... and so many times the time that has passed since; DISORDER is usual
MAX_PACE = 10.0    # times the real time: the pace of a recording that is believed
EARLIER = 1.0     # seconds before a stream's first stamp at which a recording may begin again ...
EARLIER_STEPS = 6.0  # ... or so many steps: the first images come before the node has connected
STEADY = 20       # images from which the usual step is taken
MAX_CLOCKS = 4   # beside the stream's
SILENT = 1.0      # seconds after which one of several clocks may have stopped
FORGOTTEN = 10.0  # seconds after which a clock that nobody goes by is forgotten
OFTEN = 6         # changes within WINDOW, of what should never change
WINDOW = 10.0     # seconds
_NS = 1e-9


class _Clock:
    """Images whose stamps follow each other."""

    def __init__(self, stamp_ns: int, now: float) -> None:
        self.first_ns = self.last_ns = stamp_ns
        self.heard = now
        self.count = 1
        self.run = 1  # images in a row
        self.left_for: _Clock | None = None  # the clock that followed it after a gap
        self._recent = deque([(stamp_ns, now)], maxlen=STEADY)

    def gap(self, stamp_ns: int, now: float) -> '_Clock':
        """Return the clock that goes on with an image after a gap of the stamps."""
        other = _Clock(stamp_ns, now)
        other.first_ns, other.count = self.first_ns, self.count + 1
        other._recent = deque((*self._recent, (stamp_ns, now)), maxlen=STEADY)
        return other

    def add(self, stamp_ns: int, now: float) -> None:
        """Take an image that belongs to it; one that is late moves nothing."""
        if stamp_ns < self.last_ns:
            return
        before_ns, self.last_ns, self.heard = self.last_ns, stamp_ns, now
        self.count += 1
        self.run += 1
        if stamp_ns > before_ns:  # a clock that stands is not late
            self._recent.append((stamp_ns, now))

    @property
    def step(self) -> float:
        """Return the usual seconds from one stamp to the next, 0 if that is not known."""
        stamps = [stamp for stamp, _ in self._recent]
        steps = [after - before for before, after in zip(stamps, stamps[1:]) if after > before]
        return median(steps) * _NS if steps else 0.0

    def is_silent(self, now: float) -> bool:
        """Return whether images have come before, but do not any more."""
        interval = (self.heard - self._recent[0][1]) / len(self._recent)
        return now - self.heard > max(SILENT, STEPS * interval)

    def distance(self, stamp_ns: int, now: float) -> float:
        """Return how many seconds a stamp is ahead of where the time that has passed has it."""
        return (stamp_ns - self.last_ns) * _NS - (now - self.heard)

    def is_usual(self, stamp_ns: int, now: float) -> bool:
        """Return whether an image follows as images do: soon, or when its time has come."""
        little = max(DISORDER, STEPS * self.step)
        step = (stamp_ns - self.last_ns) * _NS
        return -DISORDER < step and (min(step, abs(self.distance(stamp_ns, now))) <= little
                                     or -LATE <= self.lead(stamp_ns, now) <= little)

    def lead(self, stamp_ns: int, now: float) -> float:
        """
        Return how many seconds a stamp is ahead of the clock by the least late of the last images.

        What is not ahead of any of them is no clock that was set, whatever it seems to be after
        the last one: some images are held up on their way, and some behind them lost.
        """
        return min((stamp_ns - before) * _NS - (now - heard) for before, heard in self._recent)

    def is_possible(self, stamp_ns: int, now: float, fastest: float = 1.0) -> bool:
        """Return whether an image may follow, after the time that has passed, at some pace."""
        begin_ns, begin = self._recent[0]
        seconds = self.heard - begin
        pace = (self.last_ns - begin_ns) * _NS / seconds if seconds > 0 else 1.0
        waited = SLACK * min(max(pace, 1.0), fastest) * (now - self.heard)
        step = (stamp_ns - self.last_ns) * _NS
        return -DISORDER < step <= max(STEP, STEPS * self.step) + waited

    def is_beginning(self, stamp_ns: int) -> bool:
        """Return whether an image is where the stream began: a recording that is played again."""
        after = (stamp_ns - self.first_ns) * _NS
        earliest = -max(EARLIER, EARLIER_STEPS * self.step)
        return stamp_ns < self.last_ns and earliest <= after <= max(DISORDER, 1.5 * self.step)


class Changes:
    """How often something changes that should stay."""

    def __init__(self) -> None:
        """Begin without anything."""
        self._last: Hashable = None
        self._changes: deque[float] = deque(maxlen=OFTEN)
        self._heard: dict[Hashable, float] = {}

    def note(self, what: Hashable, now: float) -> None:
        """Take what an image has."""
        if self._last is not None and what != self._last:
            self._changes.append(now)
        self._last = what
        self._heard.pop(what, None)
        self._heard[what] = now
        if len(self._heard) > OFTEN:
            del self._heard[next(iter(self._heard))]

    def forget_last(self) -> None:
        """Take whatever comes next for no change."""
        self._last = None

    def are_often(self, now: float) -> bool:
        """Return whether it changes again and again."""
        return len(self._changes) == OFTEN and now - self._changes[0] < WINDOW

    def heard(self, now: float) -> list[Hashable]:
        """Return the last things that it was, the newest last."""
        return [what for what, when in self._heard.items() if now - when < WINDOW]


class SenderWatch:
    """
    The senders of one topic.

    Images come in the executor's thread; `forget` may be called from any other.
    """

    def __init__(self) -> None:
        """Begin with an image of any clock."""
        self._lock = threading.Lock()
        self._clock: _Clock | None = None  # the stream's
        self._others: list[_Clock] = []
        self._clocks, self._frames, self._publishers = Changes(), Changes(), Changes()
        self._distance = 0.0  # seconds between the clocks
        self.era = 0  # how often the clock was another one

    def forget(self) -> None:
        """Take whatever stamp comes next."""
        with self._lock:
            self._clock, self._others = None, []
            self._clocks.forget_last()   # the same camera has another clock here now

    def admit(
        self, stamp_ns: int, now: float, frame_id: str = '', publisher: Hashable = None,
        follows_jumps: bool = True, frames: int = MATURE,
    ) -> str | None:
        """
        Look at an image; return why it is refused, or None if it is not.

        now: seconds on a steady clock. publisher: who sent it, None if nobody knows.
        follows_jumps: whether stamps that jump mean anything (`reset.on_time_jump`). frames: how
        many images the stream is made of by now.
        """
        with self._lock:
            self._frames.note(frame_id, now)
            if publisher is not None:
                self._publishers.note(publisher, now)
            if self._clock is not None and follows_jumps:
                return self._judge(
                    self._clock, stamp_ns, now, min(frames, self._clock.count) < MATURE)
            if self._clock is not None and self._clock.is_usual(stamp_ns, now):
                self._clock.add(stamp_ns, now)
            else:
                self._clock, self._others = _Clock(stamp_ns, now), []
            return None

    def fault(self, now: float) -> str:
        """Return what is wrong with the senders, empty if nothing is."""
        with self._lock:
            faults = []
            if self._publishers.are_often(now):
                faults.append(f'images of {len(self._publishers.heard(now))} publishers '
                              'alternate')
            if self._clocks.are_often(now):
                faults.append(
                    f'their stamps alternate between two clocks {abs(self._distance):.1f} s '
                    'apart; images of one clock are processed, the others refused')
            if self._frames.are_often(now):
                names = ', '.join(repr(str(name)[:40]) for name in self._frames.heard(now)[-3:])
                faults.append(f'their frame_id keeps changing ({names})')
            return '; '.join(faults)

    # Parts ---------------------------------------------------------------------------------------

    def _judge(self, clock: _Clock, stamp_ns: int, now: float, is_young: bool) -> str | None:
        """Return why an image does not belong to the stream, or None; young: without a map yet."""
        self._others = [other for other in self._others[:-1]
                        if now - other.heard < FORGOTTEN] + self._others[-1:]
        if clock.is_usual(stamp_ns, now):
            self._go_on(clock, stamp_ns, now)
            return None
        known = next((o for o in self._others if o.is_possible(stamp_ns, now)), None)
        if known is None and (clock.is_possible(stamp_ns, now, MAX_PACE) or (
                is_young or not clock.last_ns) and stamp_ns > clock.last_ns):
            self._leave(clock, clock.gap(stamp_ns, now))
            return None
        if known is not None:
            known.add(stamp_ns, now)
            if known.left_for is clock and clock.run < CONFIRMED:
                self._return_to(clock, known)  # what came between was a lone one
                return None
            self._others.remove(known)
            self._others.append(known)  # the newest is not forgotten, however slow images come
        else:
            known = _Clock(stamp_ns, now)
            self._others = [*self._others[1 - MAX_CLOCKS:], known]
            if is_young or clock.is_beginning(stamp_ns):
                self._set(clock, known)
                return None
        self._distance = clock.distance(stamp_ns, now)
        self._clocks.note(id(known), now)
        for other in self._others:
            other.run = other.run if other is known else 0
        by_turns = self._clocks.are_often(now)  # then the row may be due to images that were lost
        if (known.count if clock.is_silent(now) else 0 if by_turns else known.run) >= CONFIRMED:
            self._set(clock, known)
            return None
        side = 'ahead of' if self._distance > 0 else 'behind'
        return (f'its stamp is {abs(self._distance):.1f} s {side} the previous ones; a '
                f'clock that was set is accepted at the {CONFIRMED}rd such image in a row')

    def _go_on(self, clock: _Clock, stamp_ns: int, now: float) -> None:
        """Take an image that follows as images do."""
        clock.add(stamp_ns, now)
        self._clocks.note(id(clock), now)
        for other in self._others:
            other.run = 0
        if clock.run >= CONFIRMED:  # then it was a gap, and nobody will go back
            self._others = [other for other in self._others if other.left_for is not clock]

    def _leave(self, before: _Clock, after: _Clock) -> None:
        """Go on after a gap, but remember where: what lies behind it may be a lone image."""
        self._clock = after
        before.left_for = after
        self._others = [*self._others[1 - MAX_CLOCKS:], before]

    def _return_to(self, left: _Clock, before: _Clock) -> None:
        self._clock = before
        before.left_for, left.run = None, 0
        self._others = [other for other in self._others if other is not before] + [left]

    def _set(self, left: _Clock, other: _Clock) -> None:
        """Follow another clock: a new era."""
        self._clock = other
        left.run, left.left_for = 0, None
        self._others = [clock for clock in self._others if clock is not other] + [left]
        self.era += 1
