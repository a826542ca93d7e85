"""What another odometry (nav_msgs/Odometry) says of poses at the times of images. No ROS."""

from bisect import bisect_left
from collections import Counter, deque
from collections.abc import Callable
import math
import threading
import time
from typing import Any

import numpy as np

from xsvggt_ros.geometry.frame_names import frame_name, nanoseconds
from xsvggt_ros.geometry.pose_with_covariance import PoseWithCovariance
from xsvggt_ros.geometry.quaternions import pose_matrix, Quaternion

MAX_MESSAGES = 2000  # messages remembered: ten seconds of a fast odometry
MAX_GAP = 0.5  # seconds between two messages across which a position is interpolated
MAX_DISTANCE = 1e8  # metres from the origin; coordinates on the earth are a tenth of that
LOST_VARIANCE = 1e3  # square metres: who is less sure than 30 m says that he does not know
MAX_SPEED = 100.0  # m/s: what goes farther has jumped
MIN_JUMP = 0.1  # metres; less does not change a trajectory by much
STANDS_OUT = 5.0  # times as fast as just before and just after: a jump, too
SENDER_PATIENCE = 2.0  # seconds after which another frame may take over
RECENT = 5.0  # seconds for which a message that was refused is worth telling
MAX_TURN = 20.0  # rad/s: what turns faster has jumped
MIN_TURN = 0.3  # rad; less is no jump
TURNED_BACK = 10  # messages in a row that are older than one before: time has begun anew


def refusal(message: Any) -> str:
    """
    Return why a pose is none, as its sender declares or as its numbers show; empty if it is one.

    A covariance of -1 or of LOST_VARIANCE and more in x or y says that the pose is not known. In
    z it may: an odometry of wheels does not know its height. NaN says nothing (MAVROS).
    """
    position, turn = message.pose.pose.position, message.pose.pose.orientation
    xyz = position.x, position.y, position.z
    turns = turn.x, turn.y, turn.z, turn.w
    variances = message.pose.covariance[0], message.pose.covariance[7], message.pose.covariance[14]
    if not all(map(math.isfinite, xyz + turns)):
        return 'its pose is not finite'
    if max(map(abs, turns)) < 1e-3:
        return 'its quaternion is zero, which means that its tracking is lost'
    if max(map(abs, xyz)) > MAX_DISTANCE:
        return f'its position is {max(map(abs, xyz)):.3g} m away'
    if any(variance < 0 for variance in variances):
        return f'its covariance is negative ({min(variances):.3g}): its tracking is lost'
    if max(variances[:2]) >= LOST_VARIANCE:
        return f'its covariance is {max(variances[:2]):.3g} m^2: its tracking is lost'
    return ''


class OdometryHint:
    """
    The newest poses; filled by the executor's thread, read by the worker's.

    They come in numbered pieces, within which the odometry is continuous. A new piece begins where
    it was lost, where it jumps, where its frames change and where time begins anew.
    `at` tells positions, for the scale; `around` whole poses, which turns that jump and gaps
    divide further.
    """

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        """Begin empty. now: a steady clock, seconds."""
        self._now = now
        self._lock = threading.Lock()
        self._stamps: deque[int] = deque(maxlen=MAX_MESSAGES)
        self._positions: deque[tuple[float, float, float]] = deque(maxlen=MAX_MESSAGES)
        self._pieces: deque[int] = deque(maxlen=MAX_MESSAGES)
        # Orientation, covariance [36], and how often whole poses were interrupted until then.
        self._turns: deque[tuple[Quaternion, Any, int] | None] = deque(maxlen=MAX_MESSAGES)
        self._interruptions = 0
        self._piece = 0  # of the newest
        self._breaks = False  # before the next one
        self._doubted = False  # whether the newest step is a jump: the next one decides
        self._frames: tuple[str, str] | None = None  # of the messages that are taken
        self._taken_at = self._refused_at = -math.inf  # seconds of the clock
        self._reason = '', ''  # for the newest refusal: kind, in words
        self._older = 0  # messages in a row that are older than the newest
        self.taken = self.repeated = 0
        self.refused: Counter[str] = Counter()  # kind: how often
        self.heard: float | None = None  # when a message came last, seconds of the clock

    def take(self, message: Any) -> None:
        """Remember where a message says that the camera is, unless it says nothing."""
        self.heard = self._now()
        frames = frame_name(message.header.frame_id), frame_name(message.child_frame_id)
        reason, position = refusal(message), message.pose.pose.position
        turn = message.pose.pose.orientation
        if self._frames is not None and self._is_of_another(frames):
            self._refuse('frames', f"its frames are '{frames[0]}' and '{frames[1]}', but others "
                         f"come with '{self._frames[0]}' and '{self._frames[1]}': two odometries "
                         'publish on one topic; give each its own')
        elif reason:
            self.lose(reason)
        elif not nanoseconds(message.header):
            self._refuse('time', 'it has no stamp')
        else:
            self._breaks |= self._frames not in (None, frames)
            self._frames = frames
            self.add(nanoseconds(message.header), (position.x, position.y, position.z),
                     (turn.x, turn.y, turn.z, turn.w), message.pose.covariance)

    def lose(self, reason: str) -> None:
        """Refuse a message whose pose is none: what comes after it may be elsewhere."""
        self._breaks = True
        self._refuse('lost', reason)

    def add(self, stamp_ns: int, position: tuple[float, float, float],
            turn: Quaternion | None = None, covariance: Any = None) -> None:
        """
        Remember a position in metres; one with the stamp of the newest is the same again.

        turn, covariance [36]: of the whole pose; without them `around` does not know it.
        """
        newest = self._stamps[-1] if self._stamps else None
        if stamp_ns == newest:
            self.repeated += 1
            return
        if newest is not None and stamp_ns < newest:
            self._older += 1
            if self._older < TURNED_BACK:
                self._refuse('time', f'its stamp is {(newest - stamp_ns) * 1e-9:.3g} s older than '
                             'one before: out of order, or two odometries on one topic')
                return
            self._breaks = True
            with self._lock:
                for kept in (self._stamps, self._positions, self._pieces, self._turns):
                    kept.clear()
                self._doubted = False
        self._older = 0
        with self._lock:
            self._append_turn(stamp_ns, turn, covariance)
            self._append(stamp_ns, position)
        self.taken += 1
        self._taken_at = self._now()

    def at(self, stamp_ns: int) -> tuple[np.ndarray, int] | None:
        """
        Return the position [3] at a time, interpolated, and its piece; None if it is not known.

        It may be known later: messages come after images, and a jump shows by what follows it.
        """
        with self._lock:
            rows = self._rows(stamp_ns)
            if rows is None:
                return None
            (start, here, piece), (end, there, later) = (
                (self._stamps[row], np.array(self._positions[row]), self._pieces[row])
                for row in rows)
        if end - start > MAX_GAP * 1e9 or later != piece:
            return None
        part = (stamp_ns - start) / max(end - start, 1)
        return (1 - part) * here + part * there, piece

    def newest(self) -> int | None:
        """Return the stamp up to which poses are known; None if there is none."""
        with self._lock:
            known = len(self._stamps) - self._doubted
            return self._stamps[known - 1] if known > 0 else None

    def around(self, stamp_ns: int,
               ) -> tuple[PoseWithCovariance, PoseWithCovariance, tuple[int, int]] | None:
        """
        Return the poses before and after a time, and their segment; None if one is not known.

        Between poses of one segment there is neither a jump nor a gap of more than MAX_GAP. With
        a pose at this very time both are that one.
        """
        with self._lock:
            rows = self._rows(stamp_ns)
            known = [] if rows is None else [
                (self._stamps[row], self._positions[row], self._turns[row], self._pieces[row])
                for row in rows]
        poses, segments = [], set()
        for stamp, position, turned, piece in known:
            if turned is None:
                return None
            turn, covariance, interruptions = turned
            segments.add((piece, interruptions))
            poses.append(PoseWithCovariance(stamp, pose_matrix(position, turn),
                                            np.array(covariance, np.float64).reshape(6, 6)))
        return None if len(segments) != 1 else (poses[0], poses[1], segments.pop())

    @property
    def body(self) -> str | None:
        """Return the frame whose poses come (child_frame_id); None: there were none yet."""
        return None if self._frames is None else self._frames[1]

    def distance(self, stamp_ns: int) -> float | None:
        """Return the seconds between a time and the nearest position; None if there is none."""
        with self._lock:
            return min((abs(stamp - stamp_ns) * 1e-9 for stamp in self._stamps), default=None)

    def fault(self) -> tuple[str, str] | None:
        """Return the kind of fault of messages that are refused, and its words; None if none."""
        if self._refused_at > max(self._taken_at, self._now() - RECENT):
            return self._reason
        other = self._reason[0] != 'lost' and self._now() - self._refused_at < RECENT
        return self._reason if other else None

    def description(self) -> str:
        """Return what has come, in words."""
        if not (self.taken or self.repeated or self.refused):
            return 'nothing yet'
        words = [f'{self.taken} used', f'{self._piece} discontinuities']
        words += [f'{self.repeated} repeated'] * bool(self.repeated)
        words += [f'{count} refused ({kind})' for kind, count in self.refused.items()]
        return ', '.join(words)

    # Parts ---------------------------------------------------------------------------------------

    def _is_of_another(self, frames: tuple[str, str]) -> bool:
        """Return whether a message is of another odometry than the one that is listened to."""
        return (self._frames not in (None, frames)
                and self._now() - self._taken_at < SENDER_PATIENCE)

    def _refuse(self, kind: str, reason: str) -> None:
        self.refused[kind] += 1
        self._reason = kind, reason
        self._refused_at = self._now()

    def _rows(self, stamp_ns: int) -> tuple[int, int] | None:
        """Return the rows before and after a time, one twice if it is at that time; or None."""
        if not self._stamps or not self._stamps[0] <= stamp_ns <= self._stamps[-1]:
            return None
        after = bisect_left(self._stamps, stamp_ns)
        if self._doubted and after == len(self._stamps) - 1:
            return None
        return after - (self._stamps[after] != stamp_ns), after

    def _append_turn(self, stamp_ns: int, turn: Quaternion | None, covariance: Any) -> None:
        """Remember the rest of a pose; after a gap, or a turn that jumps, it is interrupted."""
        if self._stamps and turn is not None and self._turns[-1] is not None:
            seconds = (stamp_ns - self._stamps[-1]) * 1e-9
            angle = _angle(self._turns[-1][0], turn)
            self._interruptions += seconds > MAX_GAP or (
                angle > MIN_TURN and angle > MAX_TURN * seconds)
        self._turns.append(None if turn is None else (turn, covariance, self._interruptions))

    def _append(self, stamp_ns: int, position: tuple[float, float, float]) -> None:
        length, speed = self._step(stamp_ns, position)
        if self._doubted:
            self._doubted = False
            if self._step_speed(-2) > STANDS_OUT * speed:
                self._piece += 1
                self._pieces[-1] = self._piece
        jumps = length > 1.0 and speed > MAX_SPEED
        if self._breaks or jumps:
            self._piece += bool(self._stamps) or bool(self.taken)
        elif length > MIN_JUMP and len(self._stamps) > 1 and (
                self._pieces[-2] == self._pieces[-1]):
            self._doubted = speed > STANDS_OUT * self._step_speed(-2)
        self._breaks = False
        self._stamps.append(stamp_ns)
        self._positions.append(position)
        self._pieces.append(self._piece)

    def _step(self, stamp_ns: int, position: tuple[float, float, float]) -> tuple[float, float]:
        """Return how far a position is from the newest, in metres, and how fast that was."""
        if not self._stamps:
            return 0.0, 0.0
        length = math.dist(self._positions[-1], position)
        return length, length / ((stamp_ns - self._stamps[-1]) * 1e-9)

    def _step_speed(self, index: int) -> float:
        """Return how fast it went from a remembered position to the next."""
        length = math.dist(self._positions[index], self._positions[index + 1])
        return length / ((self._stamps[index + 1] - self._stamps[index]) * 1e-9)


def _angle(first: Quaternion, second: Quaternion) -> float:
    """Return the angle between two orientations, by quaternions of any length, in rad."""
    cosine = abs(sum(a * b for a, b in zip(first, second)))
    return 2 * math.acos(min(1.0, cosine / (math.hypot(*first) * math.hypot(*second))))
