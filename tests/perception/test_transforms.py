"""Rotations against MuJoCo's own, and the laws that rotations and poses obey."""

import json
import math

import mujoco
import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation, Slerp

from dexgrasp.perception import transforms as g
from dexgrasp.perception.kinematics import Kinematics

ATOL = 1e-12  # double precision throughout, a few operations


def _rotvecs(n: int = 200, seed: int = 0) -> torch.Tensor:
    """Random axes; angles over (0, pi), some tiny, one zero."""
    rng = torch.Generator().manual_seed(seed)
    axis = torch.randn(n, 3, generator=rng, dtype=torch.float64)
    angle = torch.rand(n, 1, generator=rng, dtype=torch.float64) * (math.pi - 1e-3)
    angle[: n // 4] *= 1e-5
    v = axis / axis.norm(dim=-1, keepdim=True) * angle
    v[0] = 0
    return v


def _quats(n: int = 200, seed: int = 0) -> torch.Tensor:
    q = torch.randn(n, 4, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return q / q.norm(dim=-1, keepdim=True)


def _rows(function, shape: tuple[int, ...], *columns: torch.Tensor) -> np.ndarray:
    """A mju_ function, which writes into its first argument, applied row by row."""
    out = np.zeros((len(columns[0]), *shape))
    for i, row in enumerate(zip(*columns, strict=True)):
        function(out[i], *(np.ascontiguousarray(c.numpy()) for c in row))
    return out


def test_products_and_rotations_agree_with_mujoco():
    a, b, v = _quats(seed=1), _quats(seed=2), _rotvecs(seed=3)
    np.testing.assert_allclose(g.quat_multiply(a, b), _rows(mujoco.mju_mulQuat, (4,), a, b), atol=ATOL)
    np.testing.assert_allclose(g.quat_conjugate(a), _rows(mujoco.mju_negQuat, (4,), a), atol=ATOL)
    np.testing.assert_allclose(g.quat_rotate(a, v), _rows(mujoco.mju_rotVecQuat, (3,), v, a), atol=ATOL)


def test_matrices_agree_with_mujoco_both_ways():
    q = _quats()
    matrix = g.matrix_from_quat(q)
    np.testing.assert_allclose(matrix.flatten(1), _rows(mujoco.mju_quat2Mat, (9,), q), atol=ATOL)
    back = g.quat_from_matrix(matrix)
    np.testing.assert_allclose(back, torch.where(q[:, :1] < 0, -q, q), atol=ATOL)


def test_quat_from_matrix_is_exact_at_half_turns_where_w_is_zero():
    q = torch.tensor([[0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1], [0, 0.6, 0.8, 0]], dtype=torch.float64)
    np.testing.assert_allclose(g.quat_from_matrix(g.matrix_from_quat(q)), q, atol=ATOL)


def test_the_exponential_map_agrees_with_mujoco_and_its_logarithm_undoes_it():
    v = _rotvecs()
    angle = v.norm(dim=-1, keepdim=True)
    axis = torch.where(angle > 0, v / angle.clamp(min=1e-300), torch.tensor([1.0, 0, 0], dtype=torch.float64))
    want = np.zeros((len(v), 4))
    for i in range(len(v)):
        mujoco.mju_axisAngle2Quat(want[i], axis[i].numpy(), float(angle[i]))
    np.testing.assert_allclose(g.quat_from_rotvec(v), want, atol=ATOL)
    np.testing.assert_allclose(g.rotvec_from_quat(g.quat_from_rotvec(v)), v, atol=ATOL)
    np.testing.assert_allclose(g.rotvec_from_quat(-g.quat_from_rotvec(v)), v, atol=ATOL)


def test_gradients_at_the_identity_are_finite():
    v = torch.zeros(2, 3, requires_grad=True)
    g.rotvec_from_quat(g.quat_from_rotvec(v)).sum().backward()
    np.testing.assert_allclose(v.grad, np.ones((2, 3)), atol=1e-6)


def test_quaternions_obey_the_laws_of_a_group():
    a, b, c = _quats(seed=1), _quats(seed=2), _quats(seed=3)
    left, right = g.quat_multiply(g.quat_multiply(a, b), c), g.quat_multiply(a, g.quat_multiply(b, c))
    np.testing.assert_allclose(left, right, atol=ATOL)
    identity = g.quat_multiply(a, g.quat_conjugate(a))
    np.testing.assert_allclose(identity, np.tile([1.0, 0, 0, 0], (len(a), 1)), atol=ATOL)
    v = _rotvecs(seed=4)
    np.testing.assert_allclose(
        g.quat_rotate(g.quat_multiply(a, b), v), g.quat_rotate(a, g.quat_rotate(b, v)), atol=ATOL
    )
    np.testing.assert_allclose(g.quat_rotate_inverse(a, g.quat_rotate(a, v)), v, atol=ATOL)


def test_a_pose_composed_with_its_inverse_is_the_identity():
    pos, quat = _rotvecs(seed=5), _quats(seed=6)
    there, turn = g.compose(pos, quat, *g.invert(pos, quat))
    np.testing.assert_allclose(there, np.zeros_like(pos), atol=ATOL)
    np.testing.assert_allclose(turn.abs(), np.tile([1.0, 0, 0, 0], (len(pos), 1)), atol=ATOL)


def test_a_quarter_turn_about_z_takes_x_to_y():
    q = g.quat_from_rotvec(torch.tensor([0, 0, math.pi / 2]))
    np.testing.assert_allclose(g.quat_rotate(q, torch.tensor([1.0, 0, 0])), [0, 1, 0], atol=1e-7)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_leading_dimensions_broadcast_and_the_float_type_is_kept(dtype):
    q = _quats(3).to(dtype)[:, None]  # (3, 1, 4)
    v = _rotvecs(5).to(dtype)  # (5, 3)
    turned = g.quat_rotate(q, v)
    assert turned.shape == (3, 5, 3)
    assert turned.dtype == dtype
    np.testing.assert_allclose(turned[2, 4], g.quat_rotate(q[2, 0], v[4]), atol=1e-6)


def _as_scipy(quat: torch.Tensor) -> Rotation:
    return Rotation.from_quat(quat.reshape(-1, 4).numpy(), scalar_first=True)


def _same(quat: torch.Tensor, rotation: Rotation) -> None:
    """Each quaternion is the rotation, of unit length, with w >= 0."""
    np.testing.assert_allclose(
        quat.reshape(-1, 4), rotation.as_quat(canonical=True, scalar_first=True), rtol=0, atol=ATOL
    )


def test_grids_of_rotations_agree_with_scipy():
    """Two leading dimensions: none of the functions confuses them with the last one."""
    q, p, v = _quats(12, 7).view(2, 6, 4), _quats(12, 8).view(2, 6, 4), _rotvecs(12, 9).view(2, 6, 3)
    flat = v.reshape(-1, 3).numpy()
    matrix = g.matrix_from_quat(q)
    np.testing.assert_allclose(matrix.reshape(-1, 3, 3), _as_scipy(q).as_matrix(), rtol=0, atol=ATOL)
    _same(g.quat_from_matrix(matrix), _as_scipy(q))
    np.testing.assert_allclose(g.quat_rotate(q, v).reshape(-1, 3), _as_scipy(q).apply(flat), rtol=0, atol=ATOL)
    np.testing.assert_allclose(
        g.quat_rotate_inverse(q, v).reshape(-1, 3), _as_scipy(q).inv().apply(flat), rtol=0, atol=ATOL
    )
    np.testing.assert_allclose(g.rotvec_from_quat(q).reshape(-1, 3), _as_scipy(q).as_rotvec(), rtol=0, atol=ATOL)
    _same(g.quat_from_rotvec(v), Rotation.from_rotvec(flat))
    pos, turn = g.compose(v, q, 2 * v, p)
    np.testing.assert_allclose(pos.reshape(-1, 3), flat + _as_scipy(q).apply(2 * flat), rtol=0, atol=ATOL)
    np.testing.assert_allclose(
        g.matrix_from_quat(turn).reshape(-1, 3, 3), (_as_scipy(q) * _as_scipy(p)).as_matrix(), rtol=0, atol=ATOL
    )
    back, inverse = g.invert(v, q)
    np.testing.assert_allclose(back.reshape(-1, 3), -_as_scipy(q).inv().apply(flat), rtol=0, atol=ATOL)
    np.testing.assert_allclose(g.quat_multiply(inverse, q).abs()[..., 0], np.ones((2, 6)), rtol=0, atol=ATOL)


@pytest.mark.parametrize("angle", [0.0, 1e-9, 1e-5, 1.9e-4, 2.1e-4, 1e-3, 0.1, math.pi - 1e-6])
def test_turns_of_every_size_keep_their_relative_precision(angle):
    v = angle * torch.tensor([[2.0, -3.0, 6.0]], dtype=torch.float64) / 7
    q = g.quat_from_rotvec(v)
    np.testing.assert_allclose(q[0, 1:], math.sin(angle / 2) * np.array([2, -3, 6]) / 7, rtol=1e-13, atol=0)
    np.testing.assert_allclose(g.rotvec_from_quat(q), v, rtol=1e-9 if angle > 3 else 1e-13, atol=0)


def test_interpolation_takes_the_shorter_arc_at_nearly_constant_speed():
    """Against scipy's slerp: exact at the ends and in the middle, within a hundredth of a radian for arcs of 1 rad."""
    a, turn = _quats(30, 1).view(5, 6, 4), _rotvecs(30, 2).view(5, 6, 3)
    turn = turn / turn.norm(dim=-1, keepdim=True).clamp(min=1e-9)
    b = g.quat_multiply(g.quat_from_rotvec(turn), a)
    arcs = [Slerp([0, 1], Rotation.concatenate(pair)) for pair in zip(_as_scipy(a), _as_scipy(b), strict=True)]
    for part, exact in ((0.0, 1e-7), (0.5, 1e-7), (1.0, 1e-7), (0.2, 0.01), (0.9, 0.01)):
        for end in (b, -b, b * torch.tensor([1.0, -1.0]).repeat(15).view(5, 6, 1)):  # both signs name one rotation
            found = _as_scipy(g.quat_nlerp(a, end, part))
            for turned, arc in zip(found, arcs, strict=True):
                assert (turned.inv() * arc(part)).magnitude() <= exact
        np.testing.assert_allclose(g.quat_nlerp(a, b, part).norm(dim=-1), np.ones((5, 6)), atol=ATOL)


def test_the_plane_across_a_direction_is_spanned_right_handed():
    axes = torch.cat([torch.eye(3), -torch.eye(3), torch.tensor([[0.95, 0.3, 0.0], [-0.95, 0.0, 0.3]])]).double()
    random = torch.randn(16, 3, generator=torch.manual_seed(0), dtype=torch.float64)
    normal = torch.cat([axes, random]).view(4, 6, 3)
    normal = normal / normal.norm(dim=-1, keepdim=True)
    frame = torch.stack([normal, *g.plane_basis(normal)], dim=-1)
    np.testing.assert_allclose(frame.mT @ frame, torch.eye(3).expand(4, 6, 3, 3), rtol=0, atol=ATOL)
    np.testing.assert_allclose(torch.linalg.det(frame), np.ones((4, 6)), rtol=0, atol=ATOL)
    # the first vector lies across x, unless the direction is within 26 degrees of it: then across y
    side = frame[..., 1]
    np.testing.assert_allclose(torch.where(normal[..., 0].abs() > 0.9, side[..., 1], side[..., 0]), 0, atol=ATOL)


def test_a_single_vector_may_be_turned_by_a_double_quaternion():
    """As where a GPU simulates in single precision and targets are double."""
    q, v = _quats(4), _rotvecs(4)
    turned = g.quat_rotate(q, v.float())
    assert turned.dtype == torch.float64
    np.testing.assert_allclose(turned, g.quat_rotate(q, v), rtol=0, atol=1e-6)


def _tree() -> Kinematics:
    """root - hinge about z - fixed link 1 m along x; and beside it a hinge about y, declared later but less deep."""
    return Kinematics(
        body_names=("root", "a", "a_fixed", "b"),
        parent=(-1, 0, 1, 0),
        pos=torch.tensor([[0, 0, 0], [1, 0, 0], [1, 0, 0], [0, 1, 0]], dtype=torch.float64),
        quat=torch.tensor([[1, 0, 0, 0]] * 4, dtype=torch.float64),
        joint_of_body=(-1, 1, -1, 0),
        axis=torch.tensor([[0, 0, 0], [0, 0, 1], [0, 0, 0], [0, 1, 0]], dtype=torch.float64),
        keypoint_names=("tip_a", "tip_b"),
        keypoint_body=(2, 3),
        keypoint_pos=torch.tensor([[1, 0, 0], [1, 0, 0]], dtype=torch.float64),
    )


def test_forward_kinematics_of_a_tree_worked_out_by_hand():
    tree = _tree()
    joint_pos = torch.tensor(
        [[math.pi / 2, 0.0], [0.0, math.pi / 2]], dtype=torch.float64
    )  # joint 0 turns b, 1 turns a
    root = torch.tensor([[0, 0, 5]] * 2, dtype=torch.float64), torch.tensor([[1, 0, 0, 0]] * 2, dtype=torch.float64)
    points = tree.keypoints(*root, joint_pos)
    # b turned about y by 90 deg: its x points down. a turned about z by 90 deg: its x points along y, two links long.
    np.testing.assert_allclose(points[0], [[3, 0, 5], [0, 1, 4]], atol=ATOL)
    np.testing.assert_allclose(points[1], [[1, 2, 5], [1, 1, 5]], atol=ATOL)


def test_a_tree_survives_the_way_through_json():
    tree = _tree()
    back = Kinematics.from_dict(json.loads(json.dumps(tree.to_dict())), dtype=torch.float64)
    root = torch.zeros(1, 3, dtype=torch.float64), torch.tensor([[1.0, 0, 0, 0]], dtype=torch.float64)
    joint_pos = torch.tensor([[0.3, -0.7]], dtype=torch.float64)
    assert back.body_names == tree.body_names
    assert torch.equal(back.keypoints(*root, joint_pos), tree.keypoints(*root, joint_pos))


def test_a_tree_whose_children_come_first_is_refused():
    values = _tree().to_dict() | {"parent": [-1, 2, 0, 0]}
    with pytest.raises(ValueError, match="an earlier body each, got"):
        Kinematics.from_dict(values)
