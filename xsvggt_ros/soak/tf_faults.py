"""Faults of the transforms that say where the camera is on the robot."""

import time

from geometry_msgs.msg import TransformStamped
from tf2_msgs.msg import TFMessage

from xsvggt_ros.soak.camera import edge, MAST, MOUNTED, ROBOT, Shot
from xsvggt_ros.soak.harness import Harness
from xsvggt_ros.soak.image_faults import each
from xsvggt_ros.soak.kinds import Failure, fault

GROUP = 'TF'
SAYS = 'says what is missing; poses go on when it is there'
NAN = float('nan')
MANY = 400           # frames in a message
SHOTS = 12           # messages in a round
ROUNDS = 6
MOST_BYTES = 2.5e6   # that 4,800 frames which nobody needs may take: they took 5 MB once


@fault(GROUP, SAYS, setup='robot')
def no_transforms(harness: Harness) -> None:
    """Send no TF of the mast until diagnostics say so."""
    with harness.camera.playing(lambda shot, number: shot.pop('tf', None)):
        harness.await_complaint('Tracking')


@fault(GROUP, SAYS, setup='robot')
def late_transforms(harness: Harness) -> None:
    """Send TF whose stamps are 2 s behind those of the images."""
    def delay(message: TFMessage) -> None:
        for transform in message.transforms:
            transform.header.stamp.sec -= 2

    with harness.camera.playing(each(delay, 'tf')):
        harness.await_complaint('Tracking')


@fault(GROUP, 'refuses them and says so', setup='robot')
def transforms_that_turn_nowhere(harness: Harness) -> None:
    """Send the mast with a quaternion of zero."""
    def spoil(message: TFMessage) -> None:
        for transform in message.transforms:
            _turn(transform, 0.0)

    with harness.camera.playing(each(spoil, 'tf')):
        harness.await_complaint('Tracking')


@fault(GROUP, 'refuses them; goes on with those that it has', setup='robot')
def static_transforms_that_turn_nowhere(harness: Harness) -> None:
    """Send the camera's place on the mast with a quaternion of zero, or NaN, once a second."""
    value = harness.rng.choice((0.0, NAN))

    def spoil(message: TFMessage) -> None:
        for transform in message.transforms:
            _turn(transform, value)

    harness.play(lambda shot, number: each(spoil, 'static')(shot, number) if 'static' in shot
                 else None, 30)


@fault(GROUP, 'refuses them and says what is missing', setup='robot')
def transforms_that_are_not_finite(harness: Harness) -> None:
    """Send the mast at NaN."""
    def spoil(message: TFMessage) -> None:
        for transform in message.transforms:
            transform.transform.translation.x = NAN

    with harness.camera.playing(each(spoil, 'tf')):
        harness.await_complaint('Tracking')


@fault(GROUP, 'goes on', setup='robot')
def transforms_that_contradict(harness: Harness) -> None:
    """Send the mast on the robot in two places, and under two parents, by turns."""
    def contradict(shot: Shot, number: int) -> None:
        stamp = time.time_ns()
        shot['tf'].append(TFMessage(transforms=[
            edge(stamp, ROBOT, MAST, (9.0, 9.0, 9.0), (0.0, 0.0, 1.0, 0.0)),
            edge(stamp, 'another_robot', MAST, (0.0, 0.0, 0.0), (0.0, 0.0, 0.0, 1.0))]))

    harness.play(contradict, 30)


@fault(GROUP, 'goes on', setup='robot')
def transforms_in_a_circle(harness: Harness) -> None:
    """Send a robot that stands on its own camera."""
    def close(shot: Shot, number: int) -> None:
        shot['tf'].append(TFMessage(transforms=[
            edge(time.time_ns(), MOUNTED, ROBOT, (0.0, 0.0, 0.0), (0.0, 0.0, 0.0, 1.0))]))

    with harness.camera.playing(close):
        harness.await_shots(20)
    # The circle is mended by giving the robot another parent.
    harness.camera.send({'tf': [TFMessage(transforms=[
        edge(time.time_ns(), 'soak_ground', ROBOT, (0.0, 0.0, 0.0), (0.0, 0.0, 0.0, 1.0))])]})


@fault(GROUP, 'forgets what it does not need', setup='robot')
def thousands_of_frames(harness: Harness) -> None:
    """Send 400 new frames with every image."""
    def flood(shot: Shot, number: int) -> None:
        shot['tf'].append(TFMessage(transforms=[
            edge(time.time_ns(), ROBOT, f'frame_{number}_{one}', (1.0, 0.0, 0.0),
                 (0.0, 0.0, 0.0, 1.0)) for one in range(MANY)]))

    sizes = []
    for _ in range(ROUNDS):
        harness.play(flood, SHOTS)
        harness.tracked()
        harness.node.trim(harness.patience)
        sizes.append(harness.node.usage().resident)
    # What is kept for good is kept in each round; what else comes and goes is not.
    more = min(after - before for before, after in zip(sizes, sizes[1:]))
    if more > MOST_BYTES:
        raise Failure('wrong',
                      f'{SHOTS * MANY} frames that nobody needs took {more / 1e6:.0f} MB')


@fault(GROUP, 'leaves its edge out and says so', setup='robot')
def another_odometry_with_this_child(harness: Harness) -> None:
    """Publish an edge to the robot's frame from an odometry of its own."""
    def claim(shot: Shot, number: int) -> None:
        shot['tf'].append(TFMessage(transforms=[
            edge(time.time_ns(), 'other_odom', ROBOT, (0.0, 0.0, 0.0), (0.0, 0.0, 0.0, 1.0))]))

    with harness.camera.playing(claim):
        harness.await_complaint('Tracking')


def _turn(transform: TransformStamped, value: float) -> None:
    turn = transform.transform.rotation
    turn.x = turn.y = turn.z = turn.w = value
