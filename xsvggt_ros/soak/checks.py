"""
What must hold of every message that the node publishes, whatever was done to it.

Each function returns what is wrong with one message, in words; an empty list if nothing is. Needs
no ROS: a message is whatever has its fields.
"""

from collections.abc import Iterable, Iterator
import math
from typing import Any

import numpy as np

FARTHEST = 1e6    # a position or length beyond is absurd, in metres or the network's unit
UNIT = 1e-3       # by which the square of a quaternion's norm may differ from 1
IN_WORK = 3       # images that wait, are in work or are being published, at most

_STATUS_NUMBERS = ('latency_total', 'latency_decode', 'latency_upload', 'latency_inference',
                   'latency_pack', 'latency_publish', 'latency_p50', 'latency_p95', 'latency_p99',
                   'rate_in', 'rate_out', 'confidence_mean', 'depth_error', 'scale',
                   'scale_uncertainty', 'reprojection_error', 'drift_corrected',
                   'drift_corrected_angle')
_CACHE_NUMBERS = ('occupancy', 'frames_represented', 'attention_kept')


def status_faults(message: Any) -> list[str]:
    """Check the numbers of a StreamStatus; the counters are `uncounted`'s."""
    return _numbers_wrong(message, _STATUS_NUMBERS)


def uncounted(message: Any) -> int:
    """Return how many images of a StreamStatus are in none of its counters."""
    return message.frames_received - (
        message.frames_processed + message.frames_dropped + message.frames_rejected
        + message.frames_skipped + message.frames_collected)


def cache_faults(message: Any) -> list[str]:
    """Check a CacheStatus."""
    faults = _numbers_wrong(message, _CACHE_NUMBERS)
    if message.bytes_used > message.bytes_budget:
        faults.append(f'bytes_used {message.bytes_used} above {message.bytes_budget}')
    return faults


def odometry_faults(message: Any) -> list[str]:
    """Check an Odometry: pose, twist and their covariances."""
    faults = pose_faults(message.pose.pose)
    twist = message.twist.twist
    faults += _vector_wrong('twist', (twist.linear, twist.angular))
    for name, covariance in (('pose', message.pose.covariance),
                             ('twist', message.twist.covariance)):
        matrix = np.asarray(covariance, np.float64).reshape(6, 6)
        if not np.isfinite(matrix).all() or (matrix.diagonal() < 0).any():
            faults.append(f'covariance of the {name} is {matrix.diagonal().tolist()}')
    return faults


def pose_faults(pose: Any) -> list[str]:
    """Check a geometry_msgs/Pose."""
    return _vector_wrong('position', (pose.position,)) + _turn_wrong(pose.orientation)


def transform_faults(edge: Any) -> list[str]:
    """Check a TransformStamped."""
    words = _vector_wrong('translation', (edge.transform.translation,))
    words += _turn_wrong(edge.transform.rotation)
    return [f'{edge.header.frame_id} -> {edge.child_frame_id}: {word}' for word in words]


def cloud_faults(message: Any) -> list[str]:
    """Check a PointCloud2 of x, y, z, rgb, confidence without gaps."""
    count = message.width * message.height
    if len(message.data) != count * message.point_step:
        return [f'{len(message.data)} bytes for {count} points']
    if not count:
        return []
    rows = np.frombuffer(message.data, np.float32).reshape(count, message.point_step // 4)
    faults = []
    if message.is_dense and not _sane(rows[:, :3]).all():
        faults.append(f'{count - int(_sane(rows[:, :3]).all(axis=1).sum())} points of {count}')
    if not np.isfinite(rows[:, 4]).all():
        faults.append('confidence of points')
    return faults


def map_image_faults(message: Any, gaps: bool) -> list[str]:
    """Check a 32FC1 image; gaps: whether NaN may stand where nothing is known (REP-118)."""
    values = np.frombuffer(message.data, np.float32)
    if values.size != message.width * message.height:
        return [f'{values.size} values for {message.width}x{message.height}']
    known = values[~np.isnan(values)] if gaps else values
    if not known.size:
        return ['nothing but NaN']
    wrong = known.size - int(_sane(known).sum())
    return [f'{wrong} values of {values.size}'] if wrong else []


def colour_faults(message: Any) -> list[str]:
    """Check that an image has the data that its size needs."""
    needed = message.step * message.height
    return [] if len(message.data) == needed else [f'{len(message.data)} bytes of {needed}']


def camera_info_faults(message: Any) -> list[str]:
    """Check a CameraInfo."""
    values = np.concatenate([message.k, message.r, message.p, np.asarray(message.d, float)])
    if not _sane(values).all():
        return ['numbers that are not finite']
    return [] if message.k[0] > 0 and message.k[4] > 0 else [f'focal lengths {message.k}']


def trajectory_faults(stamps: Iterable[int], known: Any, earlier: Any = ()) -> list[str]:
    """
    Check the stamps, in ns, of a way that was saved.

    known: the stamps of all images that were sent; earlier: those of earlier streams.
    """
    stamps = list(stamps)
    faults = []
    if any(after < before for before, after in zip(stamps, stamps[1:])):
        faults.append('poses are not in the order of time')
    strange = [stamp for stamp in stamps if stamp not in known]
    if strange:
        faults.append(f'{len(strange)} of {len(stamps)} poses have stamps that no image had')
    old = [stamp for stamp in stamps if stamp in earlier]
    if old:
        faults.append(f'{len(old)} of {len(stamps)} poses are of an earlier stream')
    return faults


def _numbers_wrong(message: Any, names: Iterable[str]) -> list[str]:
    values = {name: getattr(message, name) for name in names}
    return [f'{name} is {value}' for name, value in values.items() if not math.isfinite(value)]


def _vector_wrong(name: str, vectors: Iterable[Any]) -> list[str]:
    numbers = np.array([value for vector in vectors for value in _components(vector)])
    return [] if _sane(numbers).all() else [f'{name} {numbers.tolist()}']


def _components(vector: Any) -> Iterator[float]:
    yield from (vector.x, vector.y, vector.z)


def _turn_wrong(q: Any) -> list[str]:
    square = q.x ** 2 + q.y ** 2 + q.z ** 2 + q.w ** 2
    if math.isfinite(square) and abs(square - 1) < UNIT:
        return []
    return [f'quaternion {[q.x, q.y, q.z, q.w]}']


def _sane(values: np.ndarray) -> np.ndarray:
    return np.abs(values) < FARTHEST  # False for NaN
