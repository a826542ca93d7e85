"""Exceptions, exhausted memory, NaN and standstill inside the node."""

import time

from xsvggt_ros.msg import StreamStatus
from xsvggt_ros.soak.harness import Harness
from xsvggt_ros.soak.kinds import Failure, fault
from xsvggt_ros.soak.patches import FRAME_POINTS

GROUP = 'inside the node'
GOES_ON = 'says so; the stream goes on, or begins anew and says that'
SENT = 30   # images after which a fault that does not come again must be over


def each_stage_fails(harness: Harness, effect: str) -> None:
    """Let one call of one stage of a frame fail."""
    point = harness.rng.choice(FRAME_POINTS)
    before = harness.observer.status
    harness.break_inside(point, effect, harness.rng.choice((1, 1, 3)))

    def is_told() -> bool:
        # What was said of the same fault a moment ago is not said again at once.
        now = harness.observer.status
        return bool(harness.observer.said or harness.complaints()
                    or now.frames_rejected > before.frames_rejected
                    or now.reset_count > before.reset_count)

    harness.until(is_told, 'a word or a count of the fault', 'silent')


@fault(GROUP, GOES_ON, new_stream=True, tries=5)
def an_exception_at_a_stage(harness: Harness) -> None:
    """Raise RuntimeError at a random stage of a frame, once or three times."""
    each_stage_fails(harness, harness.rng.choice(('exception', 'value error')))


@fault(GROUP, GOES_ON, new_stream=True, tries=3)
def an_exception_after_a_stage(harness: Harness) -> None:
    """Raise RuntimeError when a random stage of a frame has done its work."""
    each_stage_fails(harness, 'late exception')


@fault(GROUP, GOES_ON, new_stream=True, tries=3)
def a_memory_error_at_a_stage(harness: Harness) -> None:
    """Raise MemoryError at a random stage of a frame."""
    each_stage_fails(harness, 'memory error')


@fault(GROUP, GOES_ON, new_stream=True, tries=3)
def a_device_out_of_memory_at_a_stage(harness: Harness) -> None:
    """Raise torch.OutOfMemoryError at a random stage of a frame."""
    each_stage_fails(harness, 'out of memory')


@fault(GROUP, 'begins the worker anew and says so', new_stream=True, tries=3)
def an_exit_at_a_stage(harness: Harness) -> None:
    """Raise SystemExit or GeneratorExit, which are no Exceptions, at a random stage."""
    each_stage_fails(harness, harness.rng.choice(('exit', 'generator exit')))


@fault(GROUP, 'begins the worker anew and says so', new_stream=True, tries=2)
def an_exception_in_the_error_handler(harness: Harness) -> None:
    """Raise in what is called because of an exception."""
    effect = harness.rng.choice(('exception', 'memory error', 'exit'))
    with harness.broken('error handler', effect):
        harness.break_inside('decode', 'exception')
        harness.await_shots(SENT)


@fault(GROUP, 'goes on')
def an_exception_in_diagnostics(harness: Harness) -> None:
    """Raise while diagnostics are made, twice."""
    harness.break_inside('diagnostics', harness.rng.choice(('exception', 'memory error')), 2)
    harness.hears_diagnostics()


@fault(GROUP, 'never publishes nor remembers it; the stream goes on', new_stream=True, tries=4)
def a_NaN_in_what_the_network_predicts(harness: Harness) -> None:
    """Put a NaN, an infinity, a zero rotation or 1e30 into depth, confidence or pose."""
    effect = harness.rng.choice(('nan depth', 'infinite depth', 'nan confidence', 'nan pose',
                                 'zero rotation', 'huge position', 'nan field of view'))
    harness.break_inside('network', effect, harness.rng.choice((1, 3)))


@fault(GROUP, 'never publishes nor remembers it; the stream goes on', new_stream=True, tries=3)
def a_NaN_inside_the_network(harness: Harness) -> None:
    """Put a NaN into attention, the camera head or the depth head."""
    harness.break_inside(harness.rng.choice(('attention', 'camera head', 'depth head')), 'nan')


@fault(GROUP, 'begins a new stream by itself and says so', new_stream=True)
def frames_that_keep_failing(harness: Harness) -> None:
    """Have the attention of twenty frames give NaN."""
    harness.break_inside('attention', 'nan', 20)


@fault(GROUP, 'is DEGRADED and says since when; services and diagnostics answer', tries=2,
       new_stream=True)
def a_frame_that_hangs(harness: Harness) -> None:
    """Let a frame stand still until services have answered and diagnostics have said so."""
    moment = time.monotonic()
    with harness.broken(harness.rng.choice(('network', 'decode', 'map')), 'hang') as fired:
        harness.until(fired, 'a hang')
        harness.until(lambda: harness.observer.state_since(moment, StreamStatus.DEGRADED),
                      'DEGRADED')
        harness.await_complaint('Inference')
        for service in ('save_map', 'reset'):
            harness.trigger(service)
        harness.hears_diagnostics()


@fault(GROUP, 'never has two workers; activation waits or is refused', new_stream=True)
def a_hang_while_deactivated(harness: Harness) -> None:
    """Let a frame stand still, deactivate the node and try to activate it again."""
    with harness.broken('network', 'hang') as fired:
        harness.until(fired, 'a hang')
        harness.try_change('deactivate')
        harness.observer.expect_restart()
        harness.hears_diagnostics()
        if harness.state() == 'inactive':
            harness.try_change('activate')
        harness.hears_diagnostics()
        calls = fired()
    if calls > 1:
        raise Failure('wrong', f'{calls} frames were in work at the same time')
    harness.activate()
