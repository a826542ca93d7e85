"""
Rotations, rigid transforms and pinhole cameras, on torch tensors with any batch dimensions.

Transforms are named ``target_from_source`` and map points of the source frame into the target
frame. Optical frames have x right, y down, z forward (REP-103 `_optical`); FLU frames have x
forward, y left, z up. Pixel coordinates are the integers 0..width-1 and 0..height-1.
"""

from functools import cache, lru_cache

import torch
from torch import Tensor

# Rows: where the forward, left and up axes lie in an optical frame.
_FLU_FROM_OPTICAL = ((0.0, 0.0, 1.0), (-1.0, 0.0, 0.0), (0.0, -1.0, 0.0))
MIN_FIELD_OF_VIEW = 1e-3  # rad; the network may predict 0, which would be an infinite focal length


def flu_from_optical() -> Tensor:
    """Return the rotation from an optical frame's axes to forward-left-up axes, [3, 3]."""
    return torch.tensor(_FLU_FROM_OPTICAL, dtype=torch.float64)


def quaternion_to_matrix(quaternion: Tensor) -> Tensor:
    """
    Return rotation matrices [..., 3, 3] of quaternions [..., 4] (x, y, z, w).

    The quaternion need not have unit length; a zero quaternion gives the identity.
    """
    pairs, signs, identity = _rotation_terms(quaternion.device, quaternion.dtype)
    products = quaternion[..., :, None] * quaternion[..., None, :]
    norm = products.diagonal(dim1=-2, dim2=-1).sum(-1, keepdim=True)
    s = norm.clamp_min(torch.finfo(norm.dtype).tiny).reciprocal()  # finite: products may be 0
    terms = products.flatten(-2)[..., pairs] * signs  # [..., 2, 9]
    return (identity + s * terms.sum(-2)).unflatten(-1, (3, 3))


@cache
def _rotation_terms(device: torch.device, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
    """
    Return what makes a rotation of the 16 products of a quaternion's components (x, y, z, w).

    Of each of the nine elements: the two products [2, 9] that are added, twice their signs [2, 9],
    and the identity [9].
    """
    x, y, z, w = range(4)
    terms = (((y, y, -1), (z, z, -1)), ((x, y, 1), (z, w, -1)), ((x, z, 1), (y, w, 1)),
             ((x, y, 1), (z, w, 1)), ((x, x, -1), (z, z, -1)), ((y, z, 1), (x, w, -1)),
             ((x, z, 1), (y, w, -1)), ((y, z, 1), (x, w, 1)), ((x, x, -1), (y, y, -1)))
    with torch.inference_mode(False):
        pairs = torch.tensor([[4 * one + other for one, other, _ in two] for two in terms])
        signs = torch.tensor([[2 * sign for *_, sign in two] for two in terms], dtype=dtype)
        identity = torch.eye(3, dtype=dtype).flatten()
        return pairs.T.to(device), signs.T.to(device), identity.to(device)


def matrix_to_quaternion(rotation: Tensor) -> Tensor:
    """Return unit quaternions [..., 4] (x, y, z, w), w >= 0, of rotations [..., 3, 3]."""
    m = rotation.flatten(-2).unbind(-1)
    m00, m01, m02, m10, m11, m12, m20, m21, m22 = m
    # Four times the outer product of the quaternion with itself: each row is the quaternion times
    # one of its components; the row of the largest component is the well-conditioned one.
    rows = torch.stack((
        torch.stack((1 + m00 - m11 - m22, m01 + m10, m02 + m20, m21 - m12), -1),
        torch.stack((m01 + m10, 1 - m00 + m11 - m22, m12 + m21, m02 - m20), -1),
        torch.stack((m02 + m20, m12 + m21, 1 - m00 - m11 + m22, m10 - m01), -1),
        torch.stack((m21 - m12, m02 - m20, m10 - m01, 1 + m00 + m11 + m22), -1),
    ), -2)
    largest = rows.diagonal(dim1=-2, dim2=-1).argmax(-1)
    index = largest[..., None, None].expand(*largest.shape, 1, 4)
    quaternion = rows.gather(-2, index).squeeze(-2)
    quaternion = quaternion / quaternion.norm(dim=-1, keepdim=True)
    return torch.where(quaternion[..., 3:] < 0, -quaternion, quaternion)


def quaternion_between(first: Tensor, second: Tensor, part: float) -> Tensor:
    """
    Return the unit quaternion [..., 4] a part (0 to 1) of the shorter arc between two others.

    first, second: [..., 4] (x, y, z, w), of unit length.
    """
    cosine = (first * second).sum(-1, keepdim=True)
    second = torch.where(cosine < 0, -second, second)
    angle = cosine.abs().clamp_max(1).acos()
    # Of turns that are nearly the same the weights would be 0 / 0.
    weights = [torch.where(angle < 1e-6, share, (share * angle).sin() / angle.sin())
               for share in (1 - part, part)]
    turn = weights[0] * first + weights[1] * second
    return turn / turn.norm(dim=-1, keepdim=True)


def make_transform(rotation: Tensor, translation: Tensor) -> Tensor:
    """Return the transforms [..., 4, 4] of rotations [..., 3, 3] and translations [..., 3]."""
    top = torch.cat([rotation, translation[..., None]], dim=-1)
    bottom = _bottom_row(top.device, top.dtype).expand(*top.shape[:-2], 1, 4)
    return torch.cat([top, bottom], dim=-2)


@cache
def _bottom_row(device: torch.device, dtype: torch.dtype) -> Tensor:
    with torch.inference_mode(False):
        return torch.tensor(((0, 0, 0, 1),), dtype=dtype).to(device)


def invert_transform(transform: Tensor) -> Tensor:
    """Return ``source_from_target`` of rigid ``target_from_source``, [..., 4, 4]."""
    rotation = transform[..., :3, :3].transpose(-1, -2)
    translation = -(rotation @ transform[..., :3, 3:])[..., 0]
    return make_transform(rotation, translation)


def transform_points(transform: Tensor, points: Tensor) -> Tensor:
    """Return points [..., 3] in the target frame of one ``target_from_source`` [4, 4]."""
    return points @ transform[:3, :3].T + transform[:3, 3]


def pose_encoding_to_camera(
    pose_encoding: Tensor, height: int, width: int,
) -> tuple[Tensor, Tensor]:
    """
    Decode VGGT's absolute pose encoding.

    pose_encoding: [..., 9] = translation, quaternion (x, y, z, w), vertical and horizontal field
    of view in rad. Returns camera_from_world [..., 4, 4] with optical axes and intrinsics
    [..., 3, 3] in pixels of a height x width image, principal point in its middle.
    """
    rotation = quaternion_to_matrix(pose_encoding[..., 3:7])
    camera_from_world = make_transform(rotation, pose_encoding[..., :3])
    fov = pose_encoding[..., 7:9].clamp_min(MIN_FIELD_OF_VIEW)
    middle, rest = _image_terms(height, width, fov.device, fov.dtype)
    fy, fx = (middle / torch.tan(fov / 2)).unbind(-1)
    intrinsics = rest.expand(*fov.shape[:-1], 3, 3).clone()
    intrinsics[..., 0, 0] = fx
    intrinsics[..., 1, 1] = fy
    return camera_from_world, intrinsics


@lru_cache(maxsize=8)
def _image_terms(
    height: int, width: int, device: torch.device, dtype: torch.dtype,
) -> tuple[Tensor, Tensor]:
    """Return the middle (y, x) of an image, [2], and intrinsics [3, 3] of focal length 0."""
    with torch.inference_mode(False):
        rest = torch.tensor(((0, 0, width / 2), (0, 0, height / 2), (0, 0, 1)), dtype=dtype)
        return rest[:2, 2].flip(0).to(device), rest.to(device)


def unproject_depth(depth: Tensor, intrinsics: Tensor) -> Tensor:
    """
    Return the points [H, W, 3] in the camera's optical frame of a depth map [H, W].

    depth is along the optical axis; intrinsics [3, 3] are in pixels of the depth map.
    """
    height, width = depth.shape
    u = torch.arange(width, device=depth.device, dtype=depth.dtype)
    v = torch.arange(height, device=depth.device, dtype=depth.dtype)[:, None]
    x = (u - intrinsics[0, 2]) / intrinsics[0, 0] * depth
    y = (v - intrinsics[1, 2]) / intrinsics[1, 1] * depth
    return torch.stack([x, y, depth], dim=-1)
