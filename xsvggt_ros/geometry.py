"""
Rotations, rigid transforms and pinhole cameras, on torch tensors with any batch dimensions.

Transforms are named ``target_from_source`` and map points of the source frame into the target
frame. Optical frames have x right, y down, z forward (REP-103 `_optical`); FLU frames have x
forward, y left, z up. Pixel coordinates are the integers 0..width-1 and 0..height-1.
"""

import torch
from torch import Tensor

# Rows: where the forward, left and up axes lie in an optical frame.
_FLU_FROM_OPTICAL = ((0.0, 0.0, 1.0), (-1.0, 0.0, 0.0), (0.0, -1.0, 0.0))
MIN_FIELD_OF_VIEW = 1e-3  # rad; the network may predict 0, which would be an infinite focal length


def flu_from_optical(dtype: torch.dtype = torch.float64) -> Tensor:
    """Return the rotation from an optical frame's axes to forward-left-up axes, [3, 3]."""
    return torch.tensor(_FLU_FROM_OPTICAL, dtype=dtype)


def quaternion_to_matrix(quaternion: Tensor) -> Tensor:
    """
    Return rotation matrices [..., 3, 3] of quaternions [..., 4] (x, y, z, w).

    The quaternion need not have unit length; a zero quaternion gives the identity.
    """
    x, y, z, w = quaternion.unbind(-1)
    norm = (quaternion * quaternion).sum(-1)
    s = torch.where(norm > 0, 2.0 / norm.clamp_min(torch.finfo(norm.dtype).tiny), 0.0)
    rows = (
        1 - s * (y * y + z * z), s * (x * y - z * w), s * (x * z + y * w),
        s * (x * y + z * w), 1 - s * (x * x + z * z), s * (y * z - x * w),
        s * (x * z - y * w), s * (y * z + x * w), 1 - s * (x * x + y * y),
    )
    return torch.stack(rows, dim=-1).unflatten(-1, (3, 3))


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


def make_transform(rotation: Tensor, translation: Tensor) -> Tensor:
    """Return the transforms [..., 4, 4] of rotations [..., 3, 3] and translations [..., 3]."""
    top = torch.cat([rotation, translation[..., None]], dim=-1)
    bottom = torch.zeros_like(top[..., :1, :])
    bottom[..., 3] = 1
    return torch.cat([top, bottom], dim=-2)


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
    size = fov.new_tensor((height, width))
    fy, fx = ((size / 2) / torch.tan(fov / 2)).unbind(-1)
    intrinsics = fov.new_zeros((*fov.shape[:-1], 3, 3))
    intrinsics[..., 0, 0] = fx
    intrinsics[..., 1, 1] = fy
    intrinsics[..., 0, 2] = width / 2
    intrinsics[..., 1, 2] = height / 2
    intrinsics[..., 2, 2] = 1
    return camera_from_world, intrinsics


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
