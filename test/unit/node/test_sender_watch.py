"""Whose images are taken: lone stamps, clocks that are set, recordings that loop, two cameras."""

import random

import pytest

from xsvggt_ros.node.inputs.sender_watch import CONFIRMED, MATURE, SenderWatch
from xsvggt_ros.node.inputs.stream_clock import OutOfOrderError, StreamClock

SECOND = 10 ** 9
START = 1_700_000_000 * SECOND
PERIOD = SECOND // 15


class Stream:
    """A watch and the clock behind it, as in the node, with a time of its own."""

    def __init__(self, on_jump=True, on_gap=0.0):
        self.watch, self.clock = SenderWatch(), StreamClock()
        self.on_jump, self.on_gap = on_jump, on_gap
        self.now = 1000.0
        self.taken, self.refused, self.resets = [], [], []

    def image(self, stamp_ns, after=PERIOD, **sender):
        """Let an image come some nanoseconds after the last one."""
        self.now += after * 1e-9
        refusal = self.watch.admit(stamp_ns, self.now, follows_jumps=self.on_jump, **sender)
        if refusal is not None:
            self.refused.append(refusal)
            return
        try:
            reason = self.clock.restart_reason(
                stamp_ns, self.on_jump, self.on_gap, self.watch.era)
        except OutOfOrderError as error:
            self.refused.append(str(error))
            return
        if reason:
            self.resets.append(reason)
            self.clock.forget()
        self.clock.advance(stamp_ns, self.watch.era)
        self.taken.append(stamp_ns)

    def images(self, count, begin=START, period=PERIOD, after=PERIOD):
        """Let some follow each other; return what would be the next stamp."""
        for index in range(count):
            self.image(begin + index * period, after)
        return begin + count * period

    @property
    def fault(self):
        return self.watch.fault(self.now)


@pytest.mark.parametrize('late', [1.1, 1.8, 30])
def test_an_image_that_was_held_up_does_not_make_those_after_it_early(late):
    stream = Stream()
    following = stream.images(150)
    stream.image(following, PERIOD + round(late * SECOND))  # those behind it are lost
    stream.images(20, following + round(late * SECOND))
    assert stream.resets == [] and stream.refused == []


@pytest.mark.parametrize('count', [10, 40])
def test_a_clock_that_stands_and_goes_on_costs_no_map(count):
    stream = Stream()
    following = stream.images(150)
    stream.images(count, following, period=0)
    stream.images(20, following + count * PERIOD)
    assert stream.resets == [] and stream.refused == []


@pytest.mark.parametrize('seed', range(20))
def test_images_that_are_late_by_more_or_less_are_those_of_one_clock(seed):
    stream, rng = Stream(), random.Random(seed)
    stamp = stream.images(150)
    sent = came = 0.0  # seconds since then
    for _ in range(100):
        sent += rng.choice((0.2, 0.2, 0.2, 0.6, 1.4))  # some are lost
        before, came = came, max(came, sent + rng.uniform(0, 1.5))  # in order, and late
        stream.image(stamp + round(sent * SECOND), round((came - before) * SECOND))
    assert stream.resets == [] and stream.refused == [] and stream.fault == ''


@pytest.mark.parametrize('off', [5, -5, 1.5, -0.3, 3600, -3600, 2.4e9, -1.7e9])
def test_a_lone_stamp_costs_itself_and_nothing_else(off):
    stream = Stream()
    following = stream.images(150)
    stream.image(following + round(off * SECOND))
    stream.images(20, following + PERIOD)
    assert stream.resets == [] and len(stream.taken) == 170
    assert len(stream.refused) == 1
    assert f'{abs(off):.1f} s {"ahead" if off > 0 else "behind"}' in stream.refused[0]


@pytest.mark.parametrize('off', [0.25, 0.5, 0.9])
def test_a_lone_stamp_that_is_a_little_ahead_costs_no_map(off):
    stream = Stream()
    following = stream.images(150)
    stream.image(following + round(off * SECOND))
    stream.images(20, following + PERIOD)
    assert stream.resets == [] and stream.taken[-15:] == [
        following + index * PERIOD for index in range(6, 21)]


@pytest.mark.parametrize('count', range(1, CONFIRMED))
def test_a_few_that_do_not_stay_cost_no_map(count):
    stream = Stream()
    following = stream.images(50)
    following = following if stream.images(count, following + 5 * SECOND) else None
    stream.images(20, following)
    assert stream.resets == [] and len(stream.refused) == count


@pytest.mark.parametrize('off', [5, -2, 3600, -3600, -1.7e9])
def test_a_clock_that_stays_begins_a_new_stream_with_the_third_image(off):
    stream = Stream()
    following = stream.images(150)
    stream.images(20, following + round(off * SECOND))
    assert len(stream.refused) == CONFIRMED - 1 and len(stream.resets) == 1
    assert f'time went {"forward" if off > 0 else "back"}' in stream.resets[0]
    assert stream.fault == ''


@pytest.mark.parametrize('begin', [0, -0.5, 0.1])  # the node connected a little late, or early
def test_a_recording_that_loops_loses_nothing(begin):
    stream = Stream()
    for _ in range(4):
        stream.images(100, START + round(begin * SECOND) if stream.taken else START)
    assert len(stream.taken) == 400 and len(stream.resets) == 3 and stream.refused == []
    assert all('time went back' in reason for reason in stream.resets)


def test_a_recording_joined_in_the_middle_loses_two_images_once():
    stream = Stream()
    stream.images(100, START + 100 * PERIOD)
    for _ in range(3):
        stream.images(200)
    assert len(stream.resets) == 3 and len(stream.refused) == CONFIRMED - 1


def test_a_jump_of_a_young_stream_is_followed_at_once():
    stream = Stream()
    stream.images(MATURE - 1)
    stream.images(10, START - 100 * SECOND)
    assert stream.refused == [] and len(stream.resets) == 1


def test_a_jump_is_followed_at_once_while_there_is_no_map():
    watch = SenderWatch()
    for index in range(40):  # of which the node could process one
        assert watch.admit(START + index * SECOND, index * 0.05, frames=1) is None
    assert watch.admit(START + 99 * SECOND, 40 * 0.05, frames=1) is None
    assert watch.admit(START + 999 * SECOND, 41 * 0.05, frames=MATURE) is not None


def test_a_far_future_at_first_does_no_lasting_damage():
    for count in (1, 4, 30):
        stream = Stream()
        stream.images(count, 4_102_444_800 * SECOND)  # 2100
        stream.images(100)
        assert len(stream.refused) < CONFIRMED and len(stream.resets) == 1
        assert stream.taken[-1] == START + 99 * PERIOD


@pytest.mark.parametrize('stamp', [0, START])
def test_stamps_that_stand_still_are_taken_and_so_are_those_that_follow(stamp):
    stream = Stream()
    stream.images(100, stamp, period=0)
    assert len(stream.taken) == 100 and stream.resets == []
    stream.images(100)
    assert stream.taken[-1] == START + 99 * PERIOD
    assert len(stream.resets) <= 1 and len(stream.refused) < CONFIRMED


def test_a_lone_image_without_a_stamp_costs_nothing_else():
    stream = Stream()
    following = stream.images(30)
    stream.image(0)
    stream.images(30, following)
    assert len(stream.refused) == 1 and stream.resets == []


def test_a_driver_that_loses_its_clock_is_followed():
    stream = Stream()
    stream.images(30)
    stream.images(30, 0, period=0)
    assert len(stream.refused) == CONFIRMED - 1 and len(stream.resets) == 1


@pytest.mark.parametrize('off', [10, -10, 0.5, -0.5, 3600])
def test_of_two_cameras_with_other_clocks_one_is_followed_and_it_is_said(off):
    stream = Stream()
    for index in range(15 * 15):
        stream.image(START + index * PERIOD, PERIOD // 2, publisher=b'a')
        stream.image(START + index * PERIOD + round(off * SECOND), PERIOD // 2, publisher=b'b')
    assert len(stream.resets) <= 1
    assert f'{abs(off):.1f} s' in stream.fault and 'refused' in stream.fault
    assert len(stream.taken) >= 15 * 15 - 1
    assert '2 publishers' in stream.fault
    # One of them ends: the other goes on, whichever it is.
    for sender, begin in ((b'a', START), (b'b', START + round(off * SECOND))):
        before = len(stream.taken)
        for index in range(15 * 15, 15 * 40):
            stream.image(begin + index * PERIOD, publisher=sender)
        assert len(stream.taken) - before > 15 * 23
        assert stream.fault == ''


@pytest.mark.parametrize('off', [10, -10, 3600])
def test_if_two_cameras_follow_one_of_them_is_taken(off):
    stream = Stream()
    following = stream.images(100)
    for index in range(100):
        for seconds in (off, 3 * off):
            stream.image(following + round(seconds * SECOND) + index * PERIOD, PERIOD // 2)
    assert len(stream.resets) == 1 and len(stream.taken) > 100 + 75


def test_images_that_are_lost_do_not_hand_the_stream_over():
    stream = Stream()
    for index in range(300):
        if index % 10 not in (4, 5, 6):  # three of the first one in a row
            stream.image(START + index * PERIOD, PERIOD // 2)
        stream.image(START + index * PERIOD + 10 * SECOND, PERIOD // 2)
    assert len(stream.resets) <= 1


def test_two_cameras_with_one_clock_are_said():
    stream = Stream()
    for index in range(20):
        stream.image(START + index * PERIOD, publisher=b'ab'[index % 2:][:1])
    assert stream.fault == 'images of 2 publishers alternate'
    alone = Stream()
    for index in range(20):
        alone.image(START + index * PERIOD, publisher=b'a' if index < 10 else b'b')
    assert alone.fault == ''  # a driver that was started again


def test_a_frame_id_that_changes_with_every_image_is_said_until_it_stays():
    stream = Stream()
    for index in range(20):
        stream.image(START + index * PERIOD, frame_id=f'camera{index}')
    assert "frame_id keeps changing ('camera17', 'camera18', 'camera19')" in stream.fault
    for index in range(20, 20 + 15 * 11):
        stream.image(START + index * PERIOD, frame_id='camera')
    assert stream.fault == ''


def test_one_change_of_the_frame_id_is_none():
    stream = Stream()
    for index in range(40):
        stream.image(START + index * PERIOD, frame_id='a' if index < 20 else 'b')
    assert stream.fault == ''


@pytest.mark.parametrize('pause', [10, 3600])
def test_a_camera_that_pauses_goes_on(pause):
    stream = Stream()
    following = stream.images(50)
    stream.image(following + pause * SECOND, pause * SECOND)
    stream.images(50, following + pause * SECOND + PERIOD)
    assert stream.refused == [] and stream.resets == []
    gap = Stream(on_gap=5.0)
    following = gap.images(50)
    gap.image(following + pause * SECOND, pause * SECOND)
    assert len(gap.resets) == 1 and 'a gap of' in gap.resets[0]


def test_a_lone_stamp_after_a_pause_costs_no_map():
    stream = Stream()
    following = stream.images(50)
    stream.image(following + 30 * SECOND, 40 * SECOND)  # could be right, but is not
    stream.images(50, following + 41 * SECOND)
    assert stream.resets == []
    back = Stream()
    following = back.images(50)
    back.image(following + 30 * SECOND, 29 * SECOND)
    back.images(50, following + 29 * SECOND + PERIOD)
    assert back.resets == [] and back.refused == [] and len(back.taken) == 101


@pytest.mark.parametrize('pace', [0.1, 1, 5, 10])
def test_a_recording_at_any_pace_may_lose_images(pace):
    stream = Stream()
    following = stream.images(60, after=PERIOD / pace)
    stream.image(following + 10 * PERIOD, 11 * PERIOD / pace)
    stream.images(60, following + 11 * PERIOD, after=PERIOD / pace)
    assert stream.refused == [] and stream.resets == []


@pytest.mark.parametrize('period', [2, 15, 60])
def test_a_slow_camera_is_judged_by_its_own_steps(period):
    stream = Stream()
    period *= SECOND
    following = stream.images(20, period=period, after=period)
    assert stream.refused == [] and stream.resets == []
    stream.images(20, following - 10 ** 6 * SECOND, period=period, after=period)
    assert len(stream.refused) == CONFIRMED - 1 and len(stream.resets) == 1


def test_steps_of_a_second_sent_as_fast_as_they_are_processed():
    stream = Stream()
    following = stream.images(30, period=SECOND, after=PERIOD)
    stream.image(following + 5 * SECOND)
    stream.images(30, following, period=SECOND, after=PERIOD)
    assert len(stream.refused) == 1 and stream.resets == []


def test_images_out_of_order_move_nothing():
    stream = Stream()
    following = stream.images(30)
    for _ in range(10):
        stream.image(following + 2 * PERIOD)
        stream.image(following)
        stream.image(following + PERIOD)
        following += 3 * PERIOD
    assert stream.resets == [] and len(stream.taken) == 40 and len(stream.refused) == 20
    stream.images(5, following)
    assert len(stream.taken) == 45


def test_without_reset_on_time_jump_every_stamp_is_taken():
    stream = Stream(on_jump=False)
    following = stream.images(30)
    for off in (5, -5, 3600, -3600):
        stream.image(following + off * SECOND)
    stream.images(30, following)
    assert stream.refused == [] and stream.resets == []


def test_after_a_reset_any_clock_is_welcome():
    stream = Stream()
    following = stream.images(30)
    stream.watch.forget()
    stream.clock.forget()
    stream.images(30, following + 1000 * SECOND)
    assert stream.refused == [] and stream.resets == []


def test_a_camera_whose_stream_is_reset_often_is_one_camera():
    stream = Stream()
    following = START
    for _ in range(12):
        following = stream.images(4, following)
        stream.watch.forget()
        stream.clock.forget()
    assert stream.fault == '' and stream.refused == []
    for index in range(30):   # a second camera is told all the same
        stream.image(following + index * PERIOD, PERIOD // 2)
        stream.image(following + index * PERIOD + 10 * SECOND, PERIOD // 2)
    assert '10.0 s apart' in stream.fault


def test_what_is_remembered_is_bounded():
    stream = Stream()
    stream.images(30)
    for index in range(10_000):
        stream.image(START + 10 ** 12 * (1 + index * 7919 % 9973), publisher=index,
                     frame_id=f'{index}')
    watch = stream.watch
    assert len(watch._others) <= 4
    for changes in (watch._clocks, watch._frames, watch._publishers):
        assert len(changes._heard) <= 6 and len(changes._changes) <= 6
