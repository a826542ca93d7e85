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
from xsvggt_ros.soak.image_faults import each
from xsvggt_ros.soak.kinds import Failure, fault
from xsvggt_ros.soak.stage import Stage

GROUP = 'hints'
FACTOR = 2.5   # by which a scale that is said to be metric may change, both ways
KEEPS = 'refuses it and says why; the scale stays, or is not metric'
LONG = 30      # shots: two seconds


@contextmanager
def scale_stays(stage: Stage) -> Iterator[None]:
    """Raise Failure if the scale is another one after the block, and still said to be metric."""
    before = stage.observer.status.scale
    yield
    status = stage.observer.status
    if status.metric and not 1 / FACTOR < status.scale / before < FACTOR:
        raise Failure('wrong', f'the scale was {before:.3g} and is {status.scale:.3g}, metric')


def hint(stage: Stage, change: Callable[[Any], Any], part: str, says: bool = True) -> None:
    """Send changed hints for a while; says: whether diagnostics must complain of them."""
    with scale_stays(stage), stage.camera.playing(each(change, part)):
        stage.shots(LONG)
        if says:
            stage.says('Input')


# Odometry ----------------------------------------------------------------------------------------

@fault(GROUP, KEEPS, setup='odometry')
def odometry_that_says_it_is_lost(stage: Stage) -> None:
    """Send position 0, quaternion 0 and a covariance of 9999, as some do when they are lost."""
    def lose(message: Odometry) -> None:
        fill(message.pose.pose.position, (0, 0, 0))
        fill(message.pose.pose.orientation, (0, 0, 0, 0))
        message.pose.covariance = (9999.0 * np.eye(6)).ravel()

    hint(stage, lose, 'odometry')


@fault(GROUP, KEEPS, setup='odometry')
def odometry_that_is_not_finite(stage: Stage) -> None:
    """Send NaN or infinity as position, orientation or covariance."""
    where, value = stage.rng.choice(('position', 'orientation', 'both')), stage.rng.choice(
        (np.nan, np.inf))

    def spoil(message: Odometry) -> None:
        if where != 'orientation':
            message.pose.pose.position.x = value
        if where != 'position':
            message.pose.pose.orientation.w = value

    hint(stage, spoil, 'odometry')


@fault(GROUP, KEEPS, setup='odometry')
def odometry_that_jumps(stage: Stage) -> None:
    """Have the position jump by metres every second."""
    def jump(shot: Shot, number: int) -> None:
        for message in shot.get('odometry', ()):
            message.pose.pose.position.x += 7.0 * (number // 15 % 2)

    with scale_stays(stage):
        stage.play(jump, LONG)


@fault(GROUP, 'goes on; the scale stays', setup='odometry')
def odometry_that_repeats(stage: Stage) -> None:
    """Send each odometry twice, and some of them late."""
    def twice(shot: Shot, number: int) -> None:
        shot['odometry'] *= 2

    with scale_stays(stage):
        stage.play(twice, LONG)


@fault(GROUP, 'says that none comes; the scale stays', setup='odometry')
def odometry_that_falls_silent(stage: Stage) -> None:
    """Send no odometry until diagnostics say so."""
    with scale_stays(stage), stage.camera.playing(lambda shot, number: shot.pop('odometry')):
        stage.says('Input')


@fault(GROUP, KEEPS, setup='odometry', new_stream=True)
def a_new_stream_without_odometry(stage: Stage) -> None:
    """Begin a new stream while no odometry comes, and say that there are no metres."""
    with stage.camera.playing(lambda shot, number: shot.pop('odometry')):
        resets = stage.observer.status.reset_count
        stage.trigger('reset')
        stage.until(lambda: stage.observer.status.reset_count > resets
                    and stage.observer.status.state == StreamStatus.TRACKING, 'a new stream')
        stage.says('Input', 'odom')
        if stage.observer.status.metric:
            raise Failure('wrong', 'the new stream is called metric without odometry')
    stage.settle()


# Depth -------------------------------------------------------------------------------------------

@fault(GROUP, KEEPS, setup='depth')
def depth_that_is_noise(stage: Stage) -> None:
    """Send depth images of noise."""
    rng = np.random.default_rng(stage.rng.randrange(2 ** 32))
    hint(stage, lambda message: setattr(message, 'data', byte_array(
        rng.uniform(0.1, 10.0, (message.height, message.width)).astype(np.float32))), 'depth',
        says=False)


@fault(GROUP, KEEPS, setup='depth')
def depth_beyond_all_bounds(stage: Stage) -> None:
    """Send depth images of 1e38, NaN, infinity, less than nothing, or nothing."""
    value = stage.rng.choice((1e38, np.nan, np.inf, -1.0, 0.0))
    hint(stage, lambda message: setattr(message, 'data', byte_array(
        np.full((message.height, message.width), value, np.float32))), 'depth')


@fault(GROUP, KEEPS, setup='depth')
def depth_that_cannot_be_read(stage: Stage) -> None:
    """Send depth images that are cut off, of another encoding, or empty."""
    what = stage.rng.choice(('cut', 'encoding', 'empty', 'step'))

    def spoil(message: Image) -> None:
        if what == 'cut':
            message.data = message.data[:1000]
        elif what == 'encoding':
            message.encoding = 'rgb8'
        elif what == 'empty':
            message.width = 0
        else:
            message.step = 2 ** 32 - 1

    hint(stage, spoil, 'depth')


@fault(GROUP, 'goes on; the scale stays', setup='depth')
def depth_of_another_size(stage: Stage) -> None:
    """Send depth images of half the size."""
    def halve(message: Image) -> None:
        depth = np.frombuffer(message.data, np.float32).reshape(message.height, message.width)
        message.height, message.width, message.step = 60, 80, 320
        message.data = byte_array(np.ascontiguousarray(depth[::2, ::2]))

    hint(stage, halve, 'depth', says=False)


@fault(GROUP, 'says that none comes; the scale stays', setup='depth')
def depth_that_falls_silent(stage: Stage) -> None:
    """Send no depth images until diagnostics say so."""
    with scale_stays(stage), stage.camera.playing(lambda shot, number: shot.pop('depth')):
        stage.says('Input')
