"""Rotations against MuJoCo's own, and the laws that rotations and poses obey."""

import json
import math

import mujoco
import numpy as np
import pytest
import torch

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
