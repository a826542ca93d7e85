"""Faults of the images' stamps, and of the clock that they come from."""

from collections.abc import Callable

from builtin_interfaces.msg import Time

from xsvggt_ros.demo.ros_messages import from_stamp, to_stamp
from xsvggt_ros.soak.camera import Shot
from xsvggt_ros.soak.harness import Harness
from xsvggt_ros.soak.kinds import fault

GROUP = 'stamps'
SECOND = 10 ** 9


def stamped(shot: Shot, change: Callable[[int], int]) -> None:
    """Give all that a shot holds another stamp; change: from and to nanoseconds."""
    for messages in shot.values():
        for message in messages:
            if hasattr(message, 'header'):
                message.header.stamp = to_stamp(change(from_stamp(message.header.stamp)))


def once(change: Callable[[int], int]) -> Callable[[Shot, int], None]:
    """Return an edit that changes the stamps of one shot."""
    shots: list[int] = []

    def edit(shot: Shot, number: int) -> None:
        if not shots:
            stamped(shot, change)
        shots.append(number)

    return edit


@fault(GROUP, 'says that images have no stamp', new_stream=True)
def stamps_of_zero(harness: Harness) -> None:
    """Send images without a stamp."""
    with harness.camera.playing(lambda shot, number: stamped(shot, lambda stamp: 0)):
        harness.await_complaint('Input', 'stamp')


@fault(GROUP, 'says that stamps repeat')
def stamps_that_repeat(harness: Harness) -> None:
    """Send each image twice, with its stamp."""
    def twice(shot: Shot, number: int) -> None:
        shot['image'].append(shot['image'][0])

    with harness.camera.playing(twice, rate=5.0):
        harness.await_complaint('Input', 'stamp', or_log=True)


@fault(GROUP, 'says that stamps repeat')
def a_clock_that_stands(harness: Harness) -> None:
    """Send a second of images that all have the stamp of the first."""
    first = []

    def same(shot: Shot, number: int) -> None:
        first.append(from_stamp(shot['image'][0].header.stamp))
        stamped(shot, lambda stamp: first[0])

    with harness.camera.playing(same):
        harness.await_complaint('Input', 'stamp')


@fault(GROUP, 'refuses what comes too late; the stream goes on')
def disordered_stamps(harness: Harness) -> None:
    """Swap the stamps of neighbouring images."""
    harness.play(lambda shot, number: stamped(
        shot, lambda stamp: stamp - number % 2 * SECOND // 10), 20)


@fault(GROUP, 'refuses the image; the map stays')
def one_stamp_ahead(harness: Harness) -> None:
    """Send one image whose stamp is 5 s, or more, ahead."""
    far = harness.rng.choice((5, 60, 3600, 10 ** 8))
    harness.play(once(lambda stamp: stamp + far * SECOND), 10)


@fault(GROUP, 'refuses the image; the map stays')
def one_stamp_behind(harness: Harness) -> None:
    """Send one image whose stamp is 5 s, or more, behind, but not where the stream began."""
    far = harness.rng.choice((5, 60, 3600, 10 ** 8)) * SECOND
    began = harness.observer.stream_began()

    def behind(stamp: int) -> int:
        at_the_beginning = abs(stamp - far - began) < 2 * SECOND  # a recording that loops
        return stamp - far - (3 * SECOND if at_the_beginning else 0)

    harness.play(once(behind), 10)


@fault(GROUP, 'begins a new stream', new_stream=True)
def a_clock_far_in_the_future(harness: Harness) -> None:
    """Send images from the year 2036 for a while."""
    harness.play(lambda shot, number: stamped(
        shot, lambda stamp: stamp + 10 * 365 * 86400 * SECOND), 20)


@fault(GROUP, 'begins a new stream', new_stream=True)
def a_clock_that_jumps_back(harness: Harness) -> None:
    """Set the camera's clock back, and right again later."""
    harness.camera.offset_ns = -harness.rng.choice((1, 10, 3600)) * SECOND
    harness.await_shots(20)
    harness.camera.offset_ns = 0
    harness.await_shots(10)


@fault(GROUP, 'goes on, or begins a new stream', new_stream=True)
def a_clock_that_jumps_ahead(harness: Harness) -> None:
    """Set the camera's clock ahead, and right again later."""
    harness.camera.offset_ns = harness.rng.choice((1, 10, 3600)) * SECOND
    harness.await_shots(20)
    harness.camera.offset_ns = 0
    harness.await_shots(10)


@fault(GROUP, 'goes on, or begins a new stream', new_stream=True)
def a_bag_that_loops(harness: Harness) -> None:
    """Play the same second of stamps again and again."""
    first = []

    def loop(shot: Shot, number: int) -> None:
        stamp = from_stamp(shot['image'][0].header.stamp)
        first.append(stamp)
        stamped(shot, lambda stamp: first[0] + (stamp - first[0]) % SECOND)

    harness.play(loop, 45)


@fault(GROUP, 'refuses them, or takes them as they are', new_stream=True)
def stamps_before_1970(harness: Harness) -> None:
    """Send images with negative seconds."""
    harness.play(lambda shot, number: stamped(shot, lambda stamp: stamp - 2 ** 31 * SECOND), 10)


@fault(GROUP, 'refuses them, or takes them as they are', new_stream=True)
def stamps_with_too_many_nanoseconds(harness: Harness) -> None:
    """Send images whose nanoseconds make seconds."""
    def invalid(shot: Shot, number: int) -> None:
        for messages in shot.values():
            for message in messages:
                message.header.stamp = Time(
                    sec=message.header.stamp.sec, nanosec=4_000_000_000 + number % 1000)

    harness.play(invalid, 10)
