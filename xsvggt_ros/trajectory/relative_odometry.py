"""
The camera's motion between two times by an odometry from elsewhere: wheels, or visual-inertial.

An odometry drifts, so only its motions over short times are used, each with its own covariance.
"""

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from xsvggt_ros.geometry.pose_with_covariance import PoseWithCovariance
from xsvggt_ros.geometry.quaternions import (
    pose_matrix,
    quaternion_between,
    quaternion_from_matrix,
)
from xsvggt_ros.trajectory.projection import inverse, rotation_vector, skew
from xsvggt_ros.trajectory.uncertainty import adjoint

MAX_AHEAD = 0.2          # seconds for which the newest motion is extrapolated, if asked
# Variances (rotation rad^2, position m^2) of a sender who tells none, or a constant one: a random
# walk, so that a path made of many motions is as sure as the same path in one.
_BY_DISTANCE = np.array([0.03, 0.05]) ** 2     # for each metre
_BY_TURN = np.array([0.05, 0.0]) ** 2     # for each radian
_BY_TIME = np.array([0.002, 0.002]) ** 2  # for each second
_TOLD = 0.04             # of these, at least, where the sender's covariance grows
_UNKNOWN = 100.0         # times these where the sender says that he does not know
_LOST = np.array([1e3, 10.0])   # m^2, rad^2: variances from which that is what he says
_AHEAD = 0.5             # share of an extrapolated motion by which it may be wrong


class PoseSource(Protocol):
    """Poses of a body over time, as they come (`mapping.odometry_hint.OdometryHint`)."""

    def newest(self) -> int | None:
        """Return the stamp up to which poses are known; None if there is none."""

    def around(self, stamp_ns: int,
               ) -> tuple[PoseWithCovariance, PoseWithCovariance, tuple[int, int]] | None:
        """Return the poses before and after a time, and their segment; None if not known."""


@dataclass(frozen=True)
class View:
    """
    An image for the odometry.

    stamp_ns: of the image; base_from_camera: [4, 4], the camera's optical frame on the body whose
    poses the odometry tells, in metres, at that time.
    """

    stamp_ns: int
    base_from_camera: np.ndarray


@dataclass(frozen=True)
class RelativeMotion:
    """
    A camera's motion from one image to another.

    before_from_after: [4, 4], metres. covariance: [6, 6] of a small motion (rotation, translation)
    in the later camera's axes, positive definite. is_exact: whether poses of the odometry lie
    around both images; otherwise its newest motion was extrapolated.
    """

    before_from_after: np.ndarray
    covariance: np.ndarray
    is_exact: bool


@dataclass(frozen=True)
class _Known:
    pose: np.ndarray         # parent_from_body
    covariance: np.ndarray   # [6, 6], the sender's
    segment: tuple[int, int]


class RelativeOdometry:
    """Motions between images, from the poses of a source."""

    def __init__(self, source: PoseSource) -> None:
        """Ask `source`, which another thread may fill meanwhile."""
        self._source = source

    def between(self, before: View, after: View, ahead: bool = False) -> RelativeMotion | None:
        """
        Return the camera's motion; None where the odometry does not tell it.

        That is before its first pose and after its newest one, across jumps, where it was lost,
        and across gaps. ahead: up to MAX_AHEAD after its newest pose, take its newest motion.
        """
        newest = self._source.newest()
        if newest is None or after.stamp_ns <= before.stamp_ns:
            return None
        late = after.stamp_ns - newest
        if late > (MAX_AHEAD * 1e9 if ahead else 0):
            return None
        start, end = self._at(before.stamp_ns, newest), self._at(after.stamp_ns, newest)
        if start is None or end is None or start.segment != end.segment:
            return None
        moved = inverse(start.pose) @ end.pose
        covariance = self._covariance(start, end, moved,
                                      (after.stamp_ns - before.stamp_ns) * 1e-9)
        if late > 0:
            covariance[3:, 3:] += np.eye(3) * (_AHEAD * self._extrapolated(newest, late)) ** 2
        camera_from_base = inverse(after.base_from_camera)
        bring = adjoint(camera_from_base)
        covariance = bring @ covariance @ bring.T
        return RelativeMotion(camera_pose(moved, before.base_from_camera, after.base_from_camera),
                              0.5 * (covariance + covariance.T), late <= 0)

    def _at(self, stamp_ns: int, newest: int) -> _Known | None:
        """Return the body's pose at a time, interpolated, or extrapolated after the newest."""
        if stamp_ns > newest:
            last, before = self._at(newest, newest), self._at(2 * newest - stamp_ns, newest)
            if last is None or before is None or last.segment != before.segment:
                return None
            return _Known(last.pose @ inverse(before.pose) @ last.pose, last.covariance,
                          last.segment)
        found = self._source.around(stamp_ns)
        if found is None:
            return None
        first, second, segment = found
        if first.stamp_ns == second.stamp_ns:
            return _Known(first.parent_from_body, first.covariance, segment)
        part = (stamp_ns - first.stamp_ns) / (second.stamp_ns - first.stamp_ns)
        return _Known(between_poses(first.parent_from_body, second.parent_from_body, part),
                      (1 - part) * first.covariance + part * second.covariance, segment)

    def _extrapolated(self, newest: int, late: int) -> float:
        """Return how far the body went in the newest `late` nanoseconds, in metres."""
        last, before = self._at(newest, newest), self._at(newest - late, newest)
        assert last is not None and before is not None   # the motion is made of them
        return float(np.linalg.norm(last.pose[:3, 3] - before.pose[:3, 3]))

    @staticmethod
    def _covariance(start: _Known, end: _Known, moved: np.ndarray, seconds: float) -> np.ndarray:
        """Return the covariance [6, 6] of the body's motion (rotation, translation), its axes."""
        distance = float(np.linalg.norm(moved[:3, 3]))
        turn = float(np.linalg.norm(rotation_vector(moved[:3, :3])))
        least = np.repeat(distance * _BY_DISTANCE + turn * _BY_TURN + seconds * _BY_TIME, 3)
        unknown = _unknown(start.covariance) | _unknown(end.covariance)
        growth = _growth(start, end, unknown)
        # What the sender tells counts for position and rotation each, where it grows at all.
        told = np.repeat([np.trace(growth[:3, :3]), np.trace(growth[3:, 3:])], 3) > 1e-12
        floor = least * np.where(told[_ORDER], _TOLD, 1.0)
        floor = np.where(unknown[_ORDER], _UNKNOWN * least, floor)
        turned = np.kron(np.eye(2), end.pose[:3, :3])   # parent's axes from the body's
        # What is unknown is so about the parent's axes, as the sender has it.
        inside = growth[np.ix_(_ORDER, _ORDER)] + np.diag(floor)
        return turned.T @ inside @ turned


_ORDER = np.array([3, 4, 5, 0, 1, 2])   # position and rotation, as ROS has it, the other way round


def camera_pose(moved: np.ndarray, base_from_camera: np.ndarray,
                later_base_from_camera: np.ndarray) -> np.ndarray:
    """Return the camera's motion [4, 4] when its body has moved so."""
    return inverse(base_from_camera) @ moved @ later_base_from_camera


def between_poses(first: np.ndarray, second: np.ndarray, part: float) -> np.ndarray:
    """Return the pose [4, 4] at a part (0 to 1) between two: along a line, about one axis."""
    start, end = (quaternion_from_matrix(pose[:3, :3]) for pose in (first, second))
    return pose_matrix((1 - part) * first[:3, 3] + part * second[:3, 3],
                       quaternion_between(start, end, part))


def _unknown(covariance: np.ndarray) -> np.ndarray:
    """Return which of position and rotation [6] the sender says that he does not know."""
    variances = np.diag(covariance)
    with np.errstate(invalid='ignore'):   # NaN says nothing
        return (variances < 0) | (variances >= np.repeat(_LOST, 3))


def _growth(start: _Known, end: _Known, unknown: np.ndarray) -> np.ndarray:
    """
    Return by how much the sender's covariance [6, 6] grows from one pose to the other.

    What was wrong at the start is carried along as with a rigid body; what is more than that at
    the end came in between. Where it shrinks, as by a loop, it tells nothing: zero. Position and
    rotation are taken each for itself.
    """
    first, second = (_cleaned(known.covariance, unknown) for known in (start, end))
    carry = np.eye(6)
    carry[:3, 3:] = -skew(end.pose[:3, 3] - start.pose[:3, 3])
    change, growth = second - carry @ first @ carry.T, np.zeros((6, 6))
    for part in (slice(0, 3), slice(3, 6)):
        values, vectors = np.linalg.eigh(change[part, part])
        # Beside the covariance itself what is left of rounding is nothing.
        values = np.where(values > 1e-9 * np.abs(second[part, part]).max(), values, 0.0)
        growth[part, part] = (vectors * values) @ vectors.T
    return growth


def _cleaned(covariance: np.ndarray, unknown: np.ndarray) -> np.ndarray:
    covariance = np.where(np.isfinite(covariance), covariance, 0.0)
    covariance[unknown] = 0.0
    covariance[:, unknown] = 0.0
    return 0.5 * (covariance + covariance.T)
