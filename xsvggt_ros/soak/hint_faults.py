"""Faults of what others say about metres: odometry and depth images."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from nav_msgs.msg import Odometry
import numpy as np
from sensor_msgs.msg import Image

from xsvggt_ros.msg import StreamStatus
from xsvggt_ros.node.messages import byte_array
from xsvggt_ros.soak.camera import fill, Shot
from xsvggt_ros.soak.harness import Harness
from xsvggt_ros.soak.image_faults import each
from xsvggt_ros.soak.kinds import Failure, fault

GROUP = 'hints'
FACTOR = 2.5   # by which a scale that is said to be metric may change, both ways
KEEPS = 'refuses it and says why; the scale stays, or is not metric'
LONG = 30      # shots: two seconds


@contextmanager
def scale_stays(harness: Harness) -> Iterator[None]:
    """Raise Failure if the scale is another one after the block, and still said to be metric."""
    before = harness.observer.status.scale
    yield
    status = harness.observer.status
    if status.metric and not 1 / FACTOR < status.scale / before < FACTOR:
        raise Failure('wrong', f'the scale was {before:.3g} and is {status.scale:.3g}, metric')


def hint(harness: Harness, change: Callable[[Any], Any], part: str, says: bool = True) -> None:
    """Send changed hints for a while; says: whether diagnostics must complain of them."""
    with scale_stays(harness), harness.camera.playing(each(change, part)):
        harness.await_shots(LONG)
        if says:
            harness.await_complaint('Input')


# Odometry ----------------------------------------------------------------------------------------

@fault(GROUP, KEEPS, setup='odometry')
def odometry_that_says_it_is_lost(harness: Harness) -> None:
    """Send position 0, quaternion 0 and a covariance of 9999, as some do when they are lost."""
    def lose(message: Odometry) -> None:
        fill(message.pose.pose.position, (0, 0, 0))
        fill(message.pose.pose.orientation, (0, 0, 0, 0))
        message.pose.covariance = (9999.0 * np.eye(6)).ravel()

    hint(harness, lose, 'odometry')


@fault(GROUP, KEEPS, setup='odometry')
def odometry_that_is_not_finite(harness: Harness) -> None:
    """Send NaN or infinity as position, orientation or covariance."""
    where, value = harness.rng.choice(('position', 'orientation', 'both')), harness.rng.choice(
        (np.nan, np.inf))

    def spoil(message: Odometry) -> None:
        if where != 'orientation':
            message.pose.pose.position.x = value
        if where != 'position':
            message.pose.pose.orientation.w = value

    hint(harness, spoil, 'odometry')


@fault(GROUP, KEEPS, setup='odometry')
def odometry_that_jumps(harness: Harness) -> None:
    """Have the position jump by metres every second."""
    def jump(shot: Shot, number: int) -> None:
        for message in shot.get('odometry', ()):
            message.pose.pose.position.x += 7.0 * (number // 15 % 2)

    with scale_stays(harness):
        harness.play(jump, LONG)


@fault(GROUP, 'goes on; the scale stays', setup='odometry')
def odometry_that_repeats(harness: Harness) -> None:
    """Send each odometry twice, and some of them late."""
    def twice(shot: Shot, number: int) -> None:
        shot['odometry'] *= 2

    with scale_stays(harness):
        harness.play(twice, LONG)


@fault(GROUP, 'says that none comes; the scale stays', setup='odometry')
def odometry_that_falls_silent(harness: Harness) -> None:
    """Send no odometry until diagnostics say so."""
    with scale_stays(harness), harness.camera.playing(lambda shot, number: shot.pop('odometry')):
        harness.await_complaint('Input')


@fault(GROUP, KEEPS, setup='odometry', new_stream=True)
def a_new_stream_without_odometry(harness: Harness) -> None:
    """Begin a new stream while no odometry comes, and say that there are no metres."""
    with harness.camera.playing(lambda shot, number: shot.pop('odometry')):
        resets = harness.observer.status.reset_count
        harness.trigger('reset')
        harness.until(lambda: harness.observer.status.reset_count > resets
                      and harness.observer.status.state == StreamStatus.TRACKING, 'a new stream')
        harness.await_complaint('Input', 'odom')
        if harness.observer.status.metric:
            raise Failure('wrong', 'the new stream is called metric without odometry')
    harness.settle()


# Depth -------------------------------------------------------------------------------------------

@fault(GROUP, KEEPS, setup='depth')
def depth_that_is_noise(harness: Harness) -> None:
    """Send depth images of noise."""
    rng = np.random.default_rng(harness.rng.randrange(2 ** 32))
    hint(harness, lambda message: setattr(message, 'data', byte_array(
        rng.uniform(0.1, 10.0, (message.height, message.width)).astype(np.float32))), 'depth',
        says=False)


@fault(GROUP, KEEPS, setup='depth')
def depth_beyond_all_bounds(harness: Harness) -> None:
    """Send depth images of 1e38, NaN, infinity, less than nothing, or nothing."""
    value = harness.rng.choice((1e38, np.nan, np.inf, -1.0, 0.0))
    hint(harness, lambda message: setattr(message, 'data', byte_array(
        np.full((message.height, message.width), value, np.float32))), 'depth')


@fault(GROUP, KEEPS, setup='depth')
def depth_that_cannot_be_read(harness: Harness) -> None:
    """Send depth images that are cut off, of another encoding, or empty."""
    what = harness.rng.choice(('cut', 'encoding', 'empty', 'step'))

    def spoil(message: Image) -> None:
        if what == 'cut':
            message.data = message.data[:1000]
        elif what == 'encoding':
            message.encoding = 'rgb8'
        elif what == 'empty':
            message.width = 0
        else:
            message.step = 2 ** 32 - 1

    hint(harness, spoil, 'depth')


@fault(GROUP, 'goes on; the scale stays', setup='depth')
def depth_of_another_size(harness: Harness) -> None:
    """Send depth images of half the size."""
    def halve(message: Image) -> None:
        depth = np.frombuffer(message.data, np.float32).reshape(message.height, message.width)
        message.height, message.width, message.step = 60, 80, 320
        message.data = byte_array(np.ascontiguousarray(depth[::2, ::2]))

    hint(harness, halve, 'depth', says=False)


@fault(GROUP, 'says that none comes; the scale stays', setup='depth')
def depth_that_falls_silent(harness: Harness) -> None:
    """Send no depth images until diagnostics say so."""
    with scale_stays(harness), harness.camera.playing(lambda shot, number: shot.pop('depth')):
        harness.await_complaint('Input')
