"""What carries the palm: servos in the world, or an arm with inverse kinematics."""

import math

import mujoco
import numpy as np
import pytest
import torch

from dexgrasp import assets
from dexgrasp.perception.transforms import (
    quat_conjugate,
    quat_from_matrix,
    quat_from_rotvec,
    quat_multiply,
    rotvec_from_quat,
)
from dexgrasp.sim.robots.arm import ArmIK, ArmSpec
from dexgrasp.sim.robots.hand import HandSpec
from dexgrasp.sim.robots.mount import attach

MM, HALF_DEGREE = 1e-3, math.radians(0.5)
PALM_DOWN = quat_from_matrix(
    torch.tensor([[0.0, 0, 1], [0, 1, 0], [-1, 0, 0]], dtype=torch.float64)
)  # fingers along +x


def _world(mount: str, hand: HandSpec) -> mujoco.MjModel:
    spec = mujoco.MjSpec()
    spec.option.integrator = mujoco.mjtIntegrator.mjINT_IMPLICITFAST
    spec.worldbody.add_geom(name="table", type=mujoco.mjtGeom.mjGEOM_PLANE, size=[1, 1, 0.05])
    attach(spec, hand, mount)
    return spec.compile()


@pytest.fixture(scope="module")
def hand() -> HandSpec:
    return HandSpec.load("allegro")


@pytest.fixture(scope="module")
def floating(hand) -> mujoco.MjModel:
    return _world("floating", hand)


@pytest.fixture(scope="module")
def arm() -> ArmSpec:
    return ArmSpec.load("ur5e")


@pytest.fixture(scope="module")
def ik(arm, hand) -> ArmIK:
    return ArmIK(arm, hand)


def _angle(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    return rotvec_from_quat(quat_multiply(quat_conjugate(a), b)).norm(dim=-1)


def _palm_poses(n: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Palm facing down, tilted by some 15 deg, turned by up to 90 deg, within 15 cm of the middle, 10 to 35 cm high."""
    rng = torch.Generator().manual_seed(seed)
    pos = torch.rand(n, 3, generator=rng, dtype=torch.float64) * torch.tensor([0.3, 0.3, 0.25])
    yaw = (torch.rand(n, generator=rng, dtype=torch.float64) - 0.5) * math.pi
    turn = quat_from_rotvec(torch.stack([0 * yaw, 0 * yaw, yaw], dim=-1))
    tilt = quat_from_rotvec(0.15 * torch.randn(n, 3, generator=rng, dtype=torch.float64))
    return pos + torch.tensor([-0.15, -0.15, 0.1]), quat_multiply(quat_multiply(turn, tilt), PALM_DOWN)


def test_a_mount_that_is_neither_floating_nor_an_arm_is_refused(hand):
    wanted = (
        r"mount 'floatin' is unknown; expected one of \['floating', 'ur5e'\], a folder with arm.yaml, .* Did you mean"
    )
    with pytest.raises(FileNotFoundError, match=wanted):
        attach(mujoco.MjSpec(), hand, "floatin")


@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.parametrize("mount", ["floating", "ur5e"])
@pytest.mark.parametrize("name", assets.names("hands"))
def test_every_hand_can_be_carried_by_every_mount_and_keeps_its_names(name, mount, side):
    hand = HandSpec.load(name, side)
    model = _world(mount, hand)
    joints = [model.joint(i).name for i in range(model.njnt)]
    carrier = (
        ["palm_x", "palm_y", "palm_z", "palm_ball"] if mount == "floating" else list(ArmSpec.load(mount).joint_names)
    )
    assert joints == [*carrier, *hand.joint_names]
    driven = [*carrier, *hand.motors.names]
    assert [model.actuator(i).name for i in range(len(driven))] == driven
    assert model.nu == 6 + len(hand.motors.names)
    assert {model.body(name).name for name in hand.contact_bodies} == set(hand.contact_bodies)
    assert {model.site(name).name for name in hand.keypoint_names} == set(hand.keypoint_names)
    assert model.nexclude == hand.to_mjspec().compile().nexclude


def test_floating_qpos_is_the_pose_of_the_hand_base_in_the_world(floating):
    data = mujoco.MjData(floating)
    data.qpos[:7] = [0.1, -0.2, 0.3, 0.5, 0.5, -0.5, 0.5]
    mujoco.mj_kinematics(floating, data)
    np.testing.assert_allclose(data.body("palm").xpos, [0.1, -0.2, 0.3], atol=1e-12)
    np.testing.assert_allclose(data.body("palm").xquat, [0.5, 0.5, -0.5, 0.5], atol=1e-12)


def test_floating_controls_are_position_rotation_vector_and_finger_targets(floating, hand):
    data = mujoco.MjData(floating)
    data.ctrl[:3], data.ctrl[3:6], data.ctrl[6:] = [0.1, -0.2, 0.4], [0.5, 1.5, -2.0], hand.open_pose
    mujoco.mj_step(floating, data, nstep=1000)
    np.testing.assert_allclose(data.qpos[:3], [0.1, -0.2, 0.4], atol=1e-6)  # no sag: gravity is compensated
    np.testing.assert_allclose(rotvec_from_quat(torch.tensor(data.qpos[3:7])), [0.5, 1.5, -2.0], atol=1e-6)
    np.testing.assert_allclose(data.qpos[7:], hand.open_pose, atol=1e-6)


def test_floating_servos_push_no_harder_than_their_limits(floating):
    data = mujoco.MjData(floating)
    data.ctrl[:6] = [5, -5, 5, 2, 2, 0]
    mujoco.mj_forward(floating, data)
    np.testing.assert_allclose(data.qfrc_actuator[:3], [100, -100, 100])  # kp 2000 * 5 m is far above 100 N
    assert np.linalg.norm(data.qfrc_actuator[3:6]) == pytest.approx(20)  # kp 50 * 2.8 rad is above 20 N m


def _denavit_hartenberg(q: np.ndarray) -> np.ndarray:
    """Pose (4, 4) of the UR5e flange in its base: the maker's table, d, a, alpha per joint."""
    pose = np.eye(4)
    table = [(0.1625, 0, 1), (0, -0.425, 0), (0, -0.3922, 0), (0.1333, 0, 1), (0.0997, 0, -1), (0.0996, 0, 0)]
    for theta, (d, a, quarter_turns) in zip(q, table, strict=True):
        c, s, ca, sa = np.cos(theta), np.sin(theta), 1 - abs(quarter_turns), quarter_turns
        pose = pose @ [[c, -s * ca, s * sa, a * c], [s, c * ca, -c * sa, a * s], [0, sa, ca, d], [0, 0, 0, 1]]
    return pose


def test_ur5e_forward_kinematics_is_that_of_the_makers_table(arm):
    model = arm.to_mjspec().compile()
    data = mujoco.MjData(model)
    base = np.array([[-1, 0, 0, arm.base_pos_w[0]], [0, -1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]])  # yaw of half a turn
    for seed in range(5):
        q = np.random.default_rng(seed).uniform(-np.pi, np.pi, 6) * (seed > 0)
        data.qpos = q
        mujoco.mj_kinematics(model, data)
        want = base @ _denavit_hartenberg(q)
        np.testing.assert_allclose(data.site("tool0").xpos, want[:3, 3], atol=1e-9)
        np.testing.assert_allclose(data.site("tool0").xmat.reshape(3, 3), want[:3, :3], atol=1e-9)
    np.testing.assert_allclose(_denavit_hartenberg(np.zeros(6))[:3, 3], [-0.8172, -0.2329, 0.0628], atol=1e-9)


def test_ur5e_effort_speed_and_mass_are_those_of_the_data_sheet(arm):
    model = arm.to_mjspec().compile()
    np.testing.assert_allclose(model.actuator_forcerange[:, 1], [150, 150, 150, 28, 28, 28])
    np.testing.assert_allclose(arm.speed_limit, math.pi, atol=1e-4)
    np.testing.assert_allclose(
        model.jnt_range[:, 1], [2 * math.pi, 2 * math.pi, math.pi] + [2 * math.pi] * 3, atol=1e-4
    )
    assert model.body_mass[1:].sum() == pytest.approx(4 + 3.761 + 8.058 + 2.846 + 1.37 + 1.3 + 0.365)


def test_the_hand_base_is_the_flange_of_the_arm(arm, hand):
    model = _world("ur5e", hand)
    data = mujoco.MjData(model)
    data.qpos[:6], data.qpos[6:] = arm.home, hand.open_pose
    mujoco.mj_forward(model, data)
    np.testing.assert_allclose(data.body("palm").xpos, data.site("tool0").xpos, atol=1e-12)
    np.testing.assert_allclose(data.body("palm").xmat, data.site("tool0").xmat, atol=1e-12)
    assert data.ncon == 0
    for pose_of, frame in ((ArmIK(arm), None), (ArmIK(arm, hand), hand.palm_pos_b)):
        pos, _ = pose_of.forward(torch.tensor(arm.home)[None])
        want = data.body("palm").xpos + (0 if frame is None else data.body("palm").xmat.reshape(3, 3) @ frame)
        np.testing.assert_allclose(pos[0], want, atol=1e-6)  # float32 lengths in the tree


def test_home_holds_the_palm_over_the_middle_of_the_workspace_facing_down(arm, ik):
    pos, quat = ik.forward(torch.tensor(arm.home)[None])
    np.testing.assert_allclose(pos[0], [0, 0, 0.3], atol=0.01)
    assert _angle(quat[0], PALM_DOWN) < math.radians(2)


def test_repeated_steps_of_inverse_kinematics_reach_the_palm_pose_at_limited_speed(arm, ik):
    pos_w, quat_w = _palm_poses(12, seed=0)
    q = torch.tensor(arm.home).repeat(len(pos_w), 1)
    for _ in range(60):  # 3 s of control at 20 Hz
        stepped = ik.solve(q, pos_w, quat_w)
        assert (stepped - q).abs().max() <= arm.speed_limit.max() * 0.05 + 1e-9
        q = stepped
    pos, quat = ik.forward(q)
    assert (pos - pos_w).norm(dim=-1).max() < MM
    assert _angle(quat, quat_w).max() < HALF_DEGREE


def test_reach_finds_poses_from_anywhere_and_says_which_it_cannot(ik):
    pos_w, quat_w = _palm_poses(8, seed=1)
    pos_w[0, 0] = 5.0
    q, reached = ik.reach(pos_w, quat_w)
    assert reached.tolist() == [False] + [True] * 7
    pos, quat = ik.forward(q[1:])
    assert (pos - pos_w[1:]).norm(dim=-1).max() < MM
    assert _angle(quat, quat_w[1:]).max() < HALF_DEGREE


def test_reach_keeps_the_elbow_above_the_table(arm, ik):
    q, reached = ik.reach(*_palm_poses(12, seed=2))
    model = arm.to_mjspec().compile()
    data = mujoco.MjData(model)
    for row in q[reached]:
        data.qpos[:] = row.numpy()
        mujoco.mj_kinematics(model, data)
        assert min(data.body(model.joint(name).bodyid[0]).xpos[2] for name in arm.joint_names[1:]) > 0.05


def test_targets_out_of_reach_leave_the_arm_within_its_limits_and_finite(arm, ik):
    far = torch.tensor([[3.0, 0, 0.2], [-0.45, 0, 0.1], [0, 0, -2.0], [0, 4.0, 4.0]], dtype=torch.float64)
    q = torch.tensor(arm.home).repeat(len(far), 1)
    q[1, 2] = 9.0  # and a state beyond the limits
    for _ in range(40):
        q = ik.solve(q, far, PALM_DOWN.expand(len(far), 4))
    assert torch.isfinite(q).all()
    assert (q >= torch.tensor(arm.joint_lower)).all()
    assert (q <= torch.tensor(arm.joint_upper)).all()


def test_the_simulated_arm_lifts_the_palm_within_a_millimetre(arm, hand, ik):
    """Down to up by 10 cm in 0.5 s under inverse kinematics at 20 Hz, then still: the servos' lag has died out."""
    model = _world("ur5e", hand)
    data = mujoco.MjData(model)
    pos_w, quat_w = torch.tensor([[0, 0, 0.2]], dtype=torch.float64), PALM_DOWN[None]
    q, _ = ik.reach(pos_w, quat_w)
    data.qpos[:6], data.qpos[6:] = q[0], hand.open_pose
    data.ctrl[:] = data.qpos
    for step in range(20):
        pos_w[0, 2] = 0.2 + min(0.01 * (step + 1), 0.1)
        q = ik.solve(q, pos_w, quat_w)
        data.ctrl[:6] = q[0]
        mujoco.mj_step(model, data, nstep=25)
        assert np.abs(data.actuator_force[:6]).max() < arm.effort_limit.max()
    pos, quat = ik.forward(torch.tensor(data.qpos[None, :6]))
    assert (pos - pos_w).norm() < MM
    assert _angle(quat, quat_w) < HALF_DEGREE
