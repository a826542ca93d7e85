"""Faults of the camera as a whole: silence, rates, bursts, several senders, slow receivers."""

import os
import signal
import subprocess
import sys

from rclpy.publisher import Publisher
from sensor_msgs.msg import Image

from xsvggt_ros.msg import StreamStatus
from xsvggt_ros.soak import names
from xsvggt_ros.soak.camera import quality, Shot
from xsvggt_ros.soak.harness import Harness
from xsvggt_ros.soak.kinds import fault
from xsvggt_ros.soak.world import RATE

GROUP = 'camera'


def silence(shot: Shot, number: int) -> None:
    """Send nothing."""
    shot.clear()


@fault(GROUP, 'says that no image comes; the stream goes on when one does')
def camera_stops_and_returns(harness: Harness) -> None:
    """Send no images until diagnostics say so."""
    with harness.camera.playing(silence):
        harness.await_complaint('Input', 'no image')


@fault(GROUP, 'says that nobody publishes; the stream goes on')
def camera_flickers(harness: Harness) -> None:
    """Send every image, none, every image, by turns of a random length."""
    period = harness.rng.randint(2, 6)
    harness.play(lambda shot, number: silence(shot, number) if number // period % 2 else None, 30)


@fault(GROUP, 'processes every image')
def rate_of_1_Hz(harness: Harness) -> None:
    """Send an image a second."""
    harness.play(None, shots=2, rate=1.0)


@fault(GROUP, 'takes the newest images and counts those it drops')
def rate_of_120_Hz(harness: Harness) -> None:
    """Send 120 images a second."""
    harness.play(None, shots=120, rate=120.0)


@fault(GROUP, 'takes the newest images and counts those it drops')
def bursts(harness: Harness) -> None:
    """Send the images of a second at once, four times."""
    def burst(shot: Shot, number: int) -> None:
        for _ in range(int(RATE)):
            harness.camera.send(harness.camera.shot())

    harness.play(burst, shots=4, rate=4.0)


@fault(GROUP, 'says that clocks disagree, and by whom', new_stream=True)
def two_cameras_on_a_topic(harness: Harness) -> None:
    """Have another node publish the same images on the same topic, its clock 10 s behind."""
    with _second_camera(harness) as second:
        def both(shot: Shot, number: int) -> None:
            late = harness.camera.shot()['image'][0]
            late.header.stamp.sec -= 10
            harness.camera.remember(late)
            second.publish(late)

        with harness.camera.playing(both):
            harness.await_complaint('Input')


@fault(GROUP, 'goes on', new_stream=True)
def two_cameras_with_one_clock(harness: Harness) -> None:
    """Have another node publish other images on the same topic under another frame_id."""
    with _second_camera(harness) as second:
        def both(shot: Shot, number: int) -> None:
            other = harness.camera.shot()['image'][0]
            other.header.frame_id = 'another_optical_frame'
            other.data = other.data[::-1]
            harness.camera.remember(other)
            second.publish(other)

        harness.play(both, 20)


class _second_camera:
    """A node of its own that publishes images, while a block runs."""

    def __init__(self, harness: Harness) -> None:
        import rclpy
        self._node = rclpy.create_node(
            'soak_second_camera', context=harness.context, namespace=names.SPACE)
        self._publisher = self._node.create_publisher(
            Image, names.IMAGE, quality(10, reliable=False))
        harness.until(lambda: self._publisher.get_subscription_count() > 0,
                      'the second camera to be connected')

    def __enter__(self) -> Publisher[Image]:
        return self._publisher

    def __exit__(self, *_: object) -> None:
        self._node.destroy_node()


@fault(GROUP, 'goes on at its pace; who does not read holds nobody up')
def stalled_reliable_subscriber(harness: Harness) -> None:
    """Stop a process that subscribes to clouds reliably, and kill it later."""
    before = harness.observer.counts['points']
    listener = subprocess.Popen(
        [sys.executable, '-m', 'xsvggt_ros.soak.listener', f'{names.NODE}/points'],
        stdout=subprocess.PIPE, start_new_session=True)
    try:
        assert listener.stdout is not None
        listener.stdout.readline()  # it has received a cloud
        os.kill(listener.pid, signal.SIGSTOP)
        harness.await_shots(30)
        harness.tracked()
        harness.until(lambda: harness.observer.counts['points'] > before, 'clouds')
    finally:
        listener.kill()
        listener.wait()
        if listener.stdout is not None:
            listener.stdout.close()


@fault(GROUP, 'is PAUSED while it is switched off; the stream is kept')
def switched_off_and_on(harness: Harness) -> None:
    """Call ~/enable with false, and with true when the node says it is paused."""
    import time
    moment = time.monotonic()
    harness.enable(False)
    harness.until(lambda: harness.observer.state_since(moment, StreamStatus.PAUSED), 'PAUSED')
    harness.enable(True)
