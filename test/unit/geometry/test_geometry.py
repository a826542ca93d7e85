"""Axioms of rotations and rigid transforms, and the pose encoding against golden numbers."""

from golden_data import load_tensors
import pytest
import torch

from xsvggt_ros.geometry import se3

UNITS = load_tensors('units.safetensors')


def random_quaternions(count, seed=0):
    generator = torch.Generator().manual_seed(seed)
    q = torch.randn(count, 4, dtype=torch.float64, generator=generator)
    return q / q.norm(dim=-1, keepdim=True)


def random_transforms(count, seed=1):
    rotation = se3.quaternion_to_matrix(random_quaternions(count, seed))
    generator = torch.Generator().manual_seed(seed)
    translation = torch.randn(count, 3, dtype=torch.float64, generator=generator)
    return se3.make_transform(rotation, translation)


def test_rotations_are_orthonormal_and_right_handed():
    r = se3.quaternion_to_matrix(random_quaternions(100))
    eye = torch.eye(3, dtype=torch.float64).expand_as(r)
    torch.testing.assert_close(r @ r.transpose(-1, -2), eye)
    torch.testing.assert_close(torch.linalg.det(r), torch.ones(100, dtype=torch.float64))


def test_quaternion_length_does_not_matter():
    q = random_quaternions(20)
    torch.testing.assert_close(
        se3.quaternion_to_matrix(3.7 * q), se3.quaternion_to_matrix(q))


def test_quaternion_round_trip_with_nonnegative_w():
    q = random_quaternions(500)
    q = torch.cat([q, torch.eye(4, dtype=torch.float64)])  # half turns about each axis too
    back = se3.matrix_to_quaternion(se3.quaternion_to_matrix(q))
    assert (back[:, 3] >= 0).all()
    sign = torch.sign((back * q).sum(-1, keepdim=True))
    torch.testing.assert_close(back, q * sign)


def test_zero_quaternion_is_the_identity():
    torch.testing.assert_close(se3.quaternion_to_matrix(torch.zeros(4)), torch.eye(3))


def test_a_known_quarter_turn():
    half = 0.5 ** 0.5
    r = se3.quaternion_to_matrix(torch.tensor([0.0, 0.0, half, half]))
    torch.testing.assert_close(r @ torch.tensor([1.0, 0.0, 0.0]), torch.tensor([0.0, 1.0, 0.0]),
                               atol=1e-6, rtol=0)


def test_inverse_and_composition():
    a, b = random_transforms(30), random_transforms(30, seed=2)
    eye = torch.eye(4, dtype=torch.float64).expand_as(a)
    torch.testing.assert_close(a @ se3.invert_transform(a), eye)
    torch.testing.assert_close(
        se3.invert_transform(a @ b),
        se3.invert_transform(b) @ se3.invert_transform(a))


def test_transform_points_is_matrix_times_homogeneous_point():
    transform = random_transforms(1)[0]
    points = torch.randn(4, 5, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    homogeneous = torch.cat([points, torch.ones(4, 5, 1, dtype=torch.float64)], -1)
    expected = (transform @ homogeneous[..., None])[..., :3, 0]
    torch.testing.assert_close(se3.transform_points(transform, points), expected)


def test_optical_axes_become_forward_left_up():
    r = se3.flu_from_optical()
    right, down, forward = torch.eye(3, dtype=torch.float64)
    assert (r @ forward).tolist() == [1, 0, 0]
    assert (r @ right).tolist() == [0, -1, 0]
    assert (r @ down).tolist() == [0, 0, -1]
    assert torch.linalg.det(r).item() == pytest.approx(1)


def test_pose_encoding_matches_golden():
    extrinsic, intrinsics = se3.pose_encoding_to_camera(UNITS['pose/enc'], 56, 70)
    torch.testing.assert_close(extrinsic[:, :3], UNITS['pose/extrinsic_56x70'],
                               atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(intrinsics, UNITS['pose/intrinsic_56x70'], atol=1e-4, rtol=1e-5)


def test_unprojection_matches_golden():
    camera_from_world, _ = se3.pose_encoding_to_camera(UNITS['pose/enc'], 8, 10)
    for i in range(6):
        camera = se3.unproject_depth(
            UNITS['pose/depth_8x10'][i], UNITS['pose/intrinsic_8x10'][i])
        world = se3.transform_points(
            se3.invert_transform(camera_from_world[i]), camera)
        torch.testing.assert_close(world, UNITS['pose/world_points_8x10'][i],
                                   atol=1e-4, rtol=1e-4)


def test_a_field_of_view_of_zero_stays_finite():
    encoding = torch.tensor([0, 0, 0, 0, 0, 0, 1, 0, 0], dtype=torch.float32)
    _, intrinsics = se3.pose_encoding_to_camera(encoding, 56, 56)
    assert torch.isfinite(intrinsics).all() and (intrinsics.diagonal() > 0).all()
