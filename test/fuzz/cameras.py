"""Target: calibration messages."""

from array import array

import numpy as np
from sensor_msgs.msg import CameraInfo

from fuzz.source import Source
from fuzz.target import Target
from xsvggt_ros.node.inputs.camera_calibration import CameraCalibration

K = (50.0, 0.0, 31.5, 0.0, 50.0, 23.5, 0.0, 0.0, 1.0)
P = (50.0, 0.0, 31.5, 0.0, 0.0, 50.0, 23.5, 0.0, 0.0, 0.0, 1.0, 0.0)
R = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0)
D = (-0.3, 0.1, 0.001, -0.001, 0.01, 0.0, 0.0, 0.0)
MODELS = ('plumb_bob', 'rational_polynomial', 'equidistant', 'none', 'pinhole', '', 'fisheye')
FRAMES = ('camera', '/camera', '', 'other')
SIZE = (64, 48)


def numbers_of(source: Source, expected: tuple[float, ...]) -> list[float]:
    """Return as many numbers as expected: all zero, just these, or with any of them changed."""
    kind = source.byte() % 4
    if kind == 0:
        return [0.0] * len(expected)
    if kind == 1:
        return list(expected)
    return [source.number((value,)) for value in expected]


def info_of(source: Source) -> CameraInfo:
    """Return a calibration message, mostly nearly right."""
    info = CameraInfo()
    info.header.frame_id = source.one_of(FRAMES)
    info.width, info.height = (
        source.whole(0, 2 ** 32 - 1) if source.flag(8) else length * source.one_of((1, 1, 2, 3))
        for length in SIZE)
    info.distortion_model = (
        source.words(16).replace('\0', '') if source.flag(16) else source.one_of(MODELS))
    count = source.whole(0, 300) if source.flag(16) else source.one_of((0, 4, 5, 8, 12, 14))
    info.d = array('d', numbers_of(source, (D + (0.0,) * count)[:count]))
    info.k, info.r, info.p = (np.array(numbers_of(source, usual)) for usual in (K, R, P))
    if source.flag(4):
        info.binning_x, info.binning_y = (
            source.one_of((0, 1, 2, 4, 64, 2 ** 32 - 1)) for _ in range(2))
    if source.flag(4):
        window = info.roi
        window.x_offset, window.y_offset, window.width, window.height = (
            source.one_of((0, 1, 8, 32, 48, 64, 2 ** 32 - 1)) for _ in range(4))
    return info


def read_infos(data: bytes) -> bool:
    """Send calibrations between images of one camera."""
    source = Source(data)
    calibration = CameraCalibration(
        'camera_info', source.one_of(('image', 'image_rect')), True, not source.flag(4),
        lambda: True)
    used = False
    for _ in range(1 + source.byte() % 3):
        calibration.on_message(info_of(source))
        camera = calibration.camera('camera', *SIZE)
        assert calibration.description
        calibration.restart_reason()
        if camera is None:
            continue
        assert (camera.width, camera.height) == SIZE
        assert np.isfinite(camera.rectified_matrix).all() and min(calibration.focal) > 0
        assert camera.needs_rectification in (True, False)
        assert camera.source_of(np.zeros((1, 2))).shape == (1, 2)
        used = True
    return used


def info_seeds() -> list[bytes]:
    """Return inputs that become calibrations of every lens."""
    seeds = []
    for model in range(len(MODELS)):
        for kinds in ((1, 1, 1, 1), (0, 1, 0, 0), (1, 2, 1, 2), (2, 2, 2, 2)):
            message = bytes([0, 0, 0, 0, 0, 0, model, 0, 1 + model % 3])
            message += b''.join(bytes([kind]) + (bytes(2 * 14) if kind == 2 else b'')
                                for kind in kinds)
            seeds.append(bytes([0, 0, 1]) + message + bytes(20))
    return seeds


TARGETS = (
    Target('camera_info', read_infos, info_seeds),
)
