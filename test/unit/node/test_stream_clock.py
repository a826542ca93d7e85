"""When stamps mean that a new stream has begun."""

import pytest

from xsvggt_ros.node.inputs.stream_clock import OutOfOrderError, StreamClock

SECOND = 10 ** 9


def clock_at(seconds):
    clock = StreamClock()
    clock.advance(round(seconds * SECOND))
    return clock


def test_the_first_image_begins_no_new_stream():
    clock = StreamClock()
    assert clock.restart_reason(5 * SECOND, on_jump=True, on_gap=1.0) is None
    clock.advance(100 * SECOND)
    clock.forget()
    assert clock.restart_reason(0, on_jump=True, on_gap=1.0) is None


@pytest.mark.parametrize('step, on_jump, on_gap, words', [
    (0.033, True, 1.0, None), (0.0, True, 1.0, None), (50.0, True, 0.0, None),
    (-3.0, True, 0.0, 'back by 3.0 s'), (-0.2, True, 0.0, 'back by 0.2 s'),
    (-3.0, False, 0.0, None), (1.1, True, 1.0, 'a gap of 1.1 s'), (1.0, True, 1.0, None),
    (-90.0, False, 1.0, None),
])
def test_jumps_and_gaps(step, on_jump, on_gap, words):
    reason = clock_at(1000).restart_reason(round((1000 + step) * SECOND), on_jump, on_gap)
    assert (reason is None) == (words is None) and (words is None or words in reason)


@pytest.mark.parametrize('on_jump', [True, False])
def test_an_image_a_little_too_late_is_refused(on_jump):
    clock = clock_at(1000)
    with pytest.raises(OutOfOrderError, match='0.100 s older'):
        clock.restart_reason(round(999.9 * SECOND), on_jump, 0.0)
    assert clock.restart_reason(round(1000.1 * SECOND), on_jump, 0.0) is None


def test_stamps_that_stand_still_or_are_missing():
    clock = clock_at(7)
    assert 'same stamp' in clock.stuck_message(7 * SECOND)
    assert clock.stuck_message(8 * SECOND) is None
    assert 'no stamp' in StreamClock().stuck_message(0)
