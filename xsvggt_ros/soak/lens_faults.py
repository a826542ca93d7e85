"""Faults of the calibration on `camera_info`."""

from collections.abc import Callable

import numpy as np
from sensor_msgs.msg import CameraInfo

from xsvggt_ros.soak.camera import Shot
from xsvggt_ros.soak.harness import Harness
from xsvggt_ros.soak.image_faults import each
from xsvggt_ros.soak.kinds import fault

GROUP = 'calibration'
GOES_ON = 'says so; goes on with the calibration it has'


def unusable(harness: Harness, change: Callable[[CameraInfo], None], *words: str) -> None:
    """Send a calibration that cannot be used until diagnostics say so."""
    with harness.camera.playing(each(change, 'info')):
        harness.await_complaint('Input', *words)


@fault(GROUP, 'goes on with the calibration it has')
def no_camera_info(harness: Harness) -> None:
    """Send images without their calibration."""
    harness.play(lambda shot, number: shot.pop('info'), 15)


@fault(GROUP, GOES_ON)
def a_singular_matrix(harness: Harness) -> None:
    """Send a K or P that has no inverse."""
    name = harness.rng.choice(('k', 'p'))

    def change(message: CameraInfo) -> None:
        setattr(message, name, np.ones(12 if name == 'p' else 9))

    unusable(harness, change)


@fault(GROUP, 'takes it as not calibrated, or goes on', new_stream=True)
def placeholders(harness: Harness) -> None:
    """Send the calibration of a driver that has none: K the identity, or zero."""
    value = harness.rng.choice((0.0, 1.0))

    def change(message: CameraInfo) -> None:
        message.k = (value * np.eye(3)).ravel()
        message.p = (value * np.eye(3, 4)).ravel()

    harness.play(each(change, 'info'), 15)


@fault(GROUP, GOES_ON)
def a_calibration_that_is_not_finite(harness: Harness) -> None:
    """Send a NaN or an infinity in K, D, R or P."""
    name, value = harness.rng.choice('kdrp'), harness.rng.choice((np.nan, np.inf, 1e300))

    def change(message: CameraInfo) -> None:
        numbers = np.array(getattr(message, name), float)
        numbers[0] = value
        setattr(message, name, numbers.tolist() if name == 'd' else numbers)

    unusable(harness, change)


@fault(GROUP, 'goes on as before')
def a_focal_length_that_breathes(harness: Harness) -> None:
    """Change fx by 0.05 pixels with every image, as autofocus does, through a lens."""
    def breathe(shot: Shot, number: int) -> None:
        for message in shot['info']:
            for place in (0, 4):
                message.k[place] += 0.05 * (number % 2)
            for place in (0, 5):
                message.p[place] += 0.05 * (number % 2)

    harness.play(breathe, 30)


@fault(GROUP, 'scales it to the images')
def a_calibration_of_another_size(harness: Harness) -> None:
    """Send the calibration of twice the size."""
    def change(message: CameraInfo) -> None:
        message.width, message.height = 2 * message.width, 2 * message.height
        for places, values in (((0, 2, 4, 5), message.k), ((0, 2, 5, 6), message.p)):
            for place in places:
                values[place] *= 2

    harness.play(each(change, 'info'), 15)


@fault(GROUP, 'begins a new stream with each', new_stream=True)
def another_lens(harness: Harness) -> None:
    """Send the calibration of a lens with distortion, and of another focal length."""
    def change(message: CameraInfo) -> None:
        message.k = message.k * np.array([1.3, 1, 1, 1, 1.3, 1, 1, 1, 1])
        message.d = [-0.3, 0.1, 0.0, 0.0, 0.0]

    harness.play(each(change, 'info'), 15)


@fault(GROUP, GOES_ON)
def absurd_binning(harness: Harness) -> None:
    """Send a binning above the image's size."""
    unusable(harness, lambda message: setattr(message, 'binning_x', 10 ** 6))


@fault(GROUP, GOES_ON)
def an_unknown_lens_model(harness: Harness) -> None:
    """Send a distortion model that nobody knows."""
    def change(message: CameraInfo) -> None:
        message.distortion_model, message.d = 'kaleidoscope', [0.1] * 7

    unusable(harness, change)


@fault(GROUP, GOES_ON)
def the_calibration_of_another_camera(harness: Harness) -> None:
    """Send a calibration with another camera's frame_id."""
    unusable(harness, lambda message: setattr(message.header, 'frame_id', 'another_camera'))
