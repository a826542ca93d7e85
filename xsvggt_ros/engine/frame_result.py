"""What the network makes of one frame, and whether that can be a reconstruction at all."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
import math

import numpy as np
import torch
from torch import Tensor

from xsvggt_ros.geometry.se3 import pose_encoding_to_camera
from xsvggt_ros.images.rectify import CameraView
from xsvggt_ros.model.error_table import ErrorTable
from xsvggt_ros.model.network import FramePrediction

# Bounds of what is believed. Lengths are in the network's unit, in which a scene is about 1.
MAX_LENGTH = 1e6  # of a position, a depth or a point
MAX_MAGNITUDE = 1e15  # of a key or a value; the squares of larger ones are not finite
MAX_SKEW = 1e-2  # of the rows of a rotation: from unit length, and from the product of the others
MIN_QUATERNION_NORM = 1e-6  # length of a quaternion
# Of `FrameResult.numbers`, in this order; then least and greatest of each map.
POSE, ENCODING, INTRINSICS = 16, 9, 18
MAPS_FROM = POSE + ENCODING + INTRINSICS
# Least and greatest that is believed of the maps.
MAPS = {'the depth': (0, MAX_LENGTH), 'the confidence': (0, MAX_MAGNITUDE),
        'a point': (-MAX_LENGTH, MAX_LENGTH), 'the confidence of a point': (0, MAX_MAGNITUDE)}


class ResultError(ValueError):
    """
    What the network made of a frame is no reconstruction, and must neither be shown nor kept.

    what: is wrong, in words; lost: whether it is the pose.
    """

    def __init__(self, what: str, fault: str = 'is not finite', lost: bool = False) -> None:
        """Take what is wrong, and how."""
        super().__init__(f'{what} {fault}')
        self.what = what
        self.lost = lost


@dataclass(frozen=True)
class FrameResult:
    """
    What is known of one frame; tensors are fp32, on the engine's device, and shared with nobody.

    They are inference tensors: clone one before you change it in place.

    The world is the first camera's optical frame, its scale the network's own. H and W are the
    model image's. What lies outside of a rectified image's source has depth and points NaN and
    confidence 0.
    """

    frame_index: int
    image: Tensor  # uint8 [H, W, 3], RGB, what the network saw, if not smaller (tracking_size)
    pose_encoding: Tensor  # [9]: translation, quaternion (x, y, z, w), fov_h, fov_w in rad
    camera_from_world: Tensor  # [4, 4], optical axes
    intrinsics: Tensor  # [3, 3], pixels of the model image: the calibration's, or predicted
    predicted_intrinsics: Tensor  # [3, 3], the network's own
    depth: Tensor  # [H, W], along the optical axis
    depth_confidence: Tensor  # [H, W], at least 1
    # [H, W, 3], in the world; they do not depend on intrinsics. None if the engine was told not to
    points: Tensor | None
    points_confidence: Tensor | None  # [H, W], at least 1
    upload_seconds: float  # host time spent to bring the frame to the device and to size
    is_masked: bool = False  # whether there are pixels of which nothing is known
    depth_errors: ErrorTable | None = None  # what confidences mean, if that was measured

    @classmethod
    def of(
        cls, index: int, image: Tensor, view: CameraView | None, prediction: FramePrediction,
        upload_seconds: float, depth_errors: ErrorTable | None,
    ) -> 'FrameResult':
        """Return what a network predicts for its image, uint8 [H, W, 3]; view: of the camera."""
        camera_from_world, predicted = pose_encoding_to_camera(
            prediction.pose_encoding, *image.shape[:2])
        result = cls(
            frame_index=index, image=image, pose_encoding=prediction.pose_encoding,
            camera_from_world=camera_from_world,
            intrinsics=predicted if view is None else view.intrinsics.clone(),
            predicted_intrinsics=predicted,
            depth=prediction.depth, depth_confidence=prediction.depth_confidence,
            points=prediction.points, points_confidence=prediction.points_confidence,
            upload_seconds=upload_seconds, depth_errors=depth_errors)
        return result if view is None or view.valid is None else result.masked(view.valid)

    @torch.inference_mode()
    def scaled(self, metres: float) -> 'FrameResult':
        """Return the same with all lengths multiplied by ``metres`` a unit."""
        pose_encoding, camera_from_world = (
            tensor.clone() for tensor in (self.pose_encoding, self.camera_from_world))
        pose_encoding[:3] *= metres
        camera_from_world[:3, 3] *= metres
        points = None if self.points is None else self.points * metres
        return replace(self, pose_encoding=pose_encoding, camera_from_world=camera_from_world,
                       depth=self.depth * metres, points=points)

    @torch.inference_mode()
    def masked(self, valid: Tensor) -> 'FrameResult':
        """Return the same with nothing known where ``valid``, bool [H, W], is false."""
        known = replace(
            self, depth=self.depth.where(valid, torch.nan),
            depth_confidence=self.depth_confidence.where(valid, 0), is_masked=True)
        if self.points is None or self.points_confidence is None:
            return known
        return replace(
            known, points=self.points.where(valid[..., None], torch.nan),
            points_confidence=self.points_confidence.where(valid, 0))

    @torch.inference_mode()
    def mean_confidence(self) -> Tensor:
        """Return the mean of depth_confidence, [], over the pixels of which anything is known."""
        confidence = self.depth_confidence
        return confidence.sum() / (confidence > 0).sum().clamp_min(1)

    @torch.inference_mode()
    def depth_error(self) -> Tensor | None:
        """
        Return the relative error to be expected of the depth, fp32 [H, W]; inf: nothing is known.

        None if the checkpoint does not say what its confidences mean.
        """
        if self.depth_errors is None:
            return None
        return expected_error(self.depth_confidence, self.depth_errors)

    @torch.inference_mode()
    def typical_error(self) -> Tensor:
        """Return the median of `depth_error`, [], over what is known; 0 if that says nothing."""
        if self.depth_errors is None:
            return self.depth.new_zeros(())
        # Errors fall as confidences rise, so the median's error is the error of the median. As
        # unknown pixels come first, it lies so far from the end.
        confidences = self.depth_confidence.flatten().sort(descending=True).values
        middle = (confidences > 0).sum().sub(1).clamp_min(0) // 2
        found = confidences.gather(0, middle[None])[0]
        return self.depth_errors.relative_errors(found).where(found > 0, 0)

    @torch.inference_mode()
    def numbers(self) -> Tensor:
        """Return what `check_results` must know of it, [n] fp32, on the device."""
        depth, points, confidence = self.depth, self.points, self.points_confidence
        if self.is_masked:
            depth = depth.where(self.depth_confidence > 0, 0)
        maps = [depth, self.depth_confidence]
        if points is not None and confidence is not None:
            if self.is_masked:
                points = points.where(confidence[..., None] > 0, 0)
            maps += [points, confidence]
        return torch.cat([
            self.camera_from_world.flatten(), self.pose_encoding, self.intrinsics.flatten(),
            self.predicted_intrinsics.flatten(),
            *(extreme[None] for values in maps for extreme in values.aminmax())])


def check_results(
    results: Sequence[FrameResult], stored: Sequence[Tensor] = (), largest: float = math.inf,
) -> np.ndarray:
    """
    Return camera_from_world of frames, fp64 [K, 4, 4] on the host; waits for the device, once.

    stored: numbers [n] each, fp32, that tell whether the keys and values of these frames can be
    stored: finite, and not above ``largest``. Raises ResultError for what is not finite, or what
    no camera can have seen.
    """
    parts = [result.numbers() for result in results]
    numbers = torch.cat([*parts, *stored]).to('cpu', torch.float64).numpy()
    start = 0
    for part in parts:
        _check(numbers[start:start + len(part)].tolist())
        start += len(part)
    kept = np.abs(numbers[start:])
    # So written, what is no number is refused.
    if len(kept) and not kept.max() <= min(largest, MAX_MAGNITUDE):
        raise ResultError('what it would leave in the KV cache', 'is not finite, or too large')
    size = len(parts[0])
    return numbers[:start].reshape(-1, size)[:, :POSE].reshape(-1, 4, 4).copy()


def _check(numbers: list[float]) -> None:
    """Raise ResultError for the `FrameResult.numbers` of one frame."""
    pose, encoding = numbers[:POSE], numbers[POSE:POSE + ENCODING]
    intrinsics, maps = numbers[POSE + ENCODING:MAPS_FROM], numbers[MAPS_FROM:]
    if not math.isfinite(sum(pose) + sum(encoding)):
        raise ResultError('the pose', lost=True)
    if max(map(abs, pose[3:12:4])) > MAX_LENGTH:
        raise ResultError(
            'the pose', f'is {max(map(abs, pose[3:12:4])):.3g} units from where it began',
            lost=True)
    if not _is_rotation(pose[0:3], pose[4:7], pose[8:11]) or (
            math.hypot(*encoding[3:7]) < MIN_QUATERNION_NORM):
        raise ResultError('the pose', 'has no rotation', lost=True)
    if not math.isfinite(sum(intrinsics)):
        raise ResultError('the focal length')
    for (name, (least, most)), low, high in zip(MAPS.items(), maps[::2], maps[1::2]):
        if not math.isfinite(low + high):
            raise ResultError(name)
        if low < least or high > most:
            raise ResultError(name, f'is {low if low < least else high:.3g}')


def _is_rotation(x: list[float], y: list[float], z: list[float]) -> bool:
    """Return whether the rows of a matrix have unit length, and the third is their product."""
    product = (x[1] * y[2] - x[2] * y[1], x[2] * y[0] - x[0] * y[2], x[0] * y[1] - x[1] * y[0])
    return (abs(math.hypot(*x) - 1) < MAX_SKEW and abs(math.hypot(*y) - 1) < MAX_SKEW
            and math.dist(product, z) < MAX_SKEW)


@torch.inference_mode()
def expected_error(confidence: Tensor, errors: ErrorTable) -> Tensor:
    """Return the relative errors, fp32, to be expected of depths; inf where nothing is known."""
    return errors.relative_errors(confidence).where(confidence > 0, torch.inf)
