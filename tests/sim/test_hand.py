"""Hands: geometry against published numbers, forward kinematics against MuJoCo, names against files."""

import mujoco
import numpy as np
import pytest
import torch

from dexgrasp import assets
from dexgrasp.sim.robots.hand import HandSpec

HANDS = assets.names("hands")
SIDES = ("right", "left")
TENTH_MM = 1e-4
INITIAL = [0.2, 0.6, 0.2, 0.5] * 3 + [1.3, 0.0, -0.1, 0.2]


def _posed(hand: HandSpec, q: np.ndarray) -> mujoco.MjData:
    model = hand.to_mjspec().compile()
    data = mujoco.MjData(model)
    data.qpos = q
    mujoco.mj_kinematics(model, data)
    return data


def _random_q(hand: HandSpec, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).uniform(hand.joint_lower, hand.joint_upper)


@pytest.mark.parametrize(
    ("q", "golden"),
    [
        (
            np.zeros(16),
            {
                "index_joint1": (0.0091, 0.0449, 0.1198),
                "index_tip": (0.0091, 0.0553, 0.2384),
                "middle_tip": (0.0091, 0, 0.2412),
                "ring_tip": (0.0091, -0.0553, 0.2384),
                "thumb_joint1": (-0.0041, 0.0567, 0.0286),
                "thumb_tip": (-0.0041, 0.1677, 0.0189),
            },
        ),
        (
            INITIAL,
            {
                "index_joint1": (0.0091, 0.0449, 0.1198),
                "index_tip": (0.0912, 0.0683, 0.1965),
                "middle_tip": (0.0912, 0.0166, 0.2006),
                "ring_tip": (0.0912, -0.0352, 0.1994),
                "thumb_joint1": (0.0307, 0.0228, 0.0316),
                "thumb_tip": (0.1376, 0.0523, 0.0281),
            },
        ),
    ],
    ids=["zero", "initial"],
)
def test_allegro_keypoints_lie_where_the_published_urdf_puts_them(q, golden):
    data = _posed(HandSpec.load("allegro"), q)
    for site, want in golden.items():
        np.testing.assert_allclose(data.site(site).xpos, want, atol=TENTH_MM, err_msg=site)


@pytest.mark.parametrize(
    ("name", "to_maker", "golden"),
    [
        (
            "allegro",  # the maker's palm stands at (0.0091, 0, 0.105) in ours and is turned by 90 deg about y
            lambda p: (p[2] - 0.105, p[1], -(p[0] - 0.0091)),
            {
                "ff_distal": (0.1068, 0.05298, 0),
                "mf_distal": (0.1095, 0, 0),
                "rf_distal": (0.1068, -0.05298, 0),
                "th_distal": (-0.08238, 0.1256, 0.0132),
            },
        ),
        (
            "leap",  # the maker's world: palm 0.1 m up, upside down; its origin in ours at (-0.0117, 0.0373, 0.1)
            lambda p: (p[2] - 0.1, -(p[1] - 0.0373), 0.1 + p[0] + 0.0117),
            {
                "if_ds": (0.0822, -0.0226, 0.1195),
                "mf_ds": (0.0821, 0.0228, 0.1195),
                "rf_ds": (0.0821, 0.0682, 0.1195),
                "th_ds": (-0.0823, -0.0767, 0.1069),
            },
        ),
        (
            "shadow",  # the maker's palm: fingers flex towards -y, the thumb is at +x
            lambda p: (p[1], -p[0], p[2]),
            {
                "ff_distal": (0.033, 0, 0.165),
                "mf_distal": (0.011, 0, 0.169),
                "lf_distal": (-0.033, 0, 0.1565),
                "th_distal": (0.0835, -0.00858, 0.0785),
            },
        ),
        (
            "ability",  # the maker's base: fingers flex towards +y, the thumb is at -x
            lambda p: (-p[1], p[0], p[2]),
            {
                "index_2": (-0.02966, -0.01557, 0.13392),
                "middle_2": (-0.00815, -0.01782, 0.13715),
                "little_2": (0.03306, -0.01345, 0.12877),
                "thumb_2": (-0.04996, -0.00148, 0.04944),
            },
        ),
        (
            "orca",  # the maker's palm stands at (0.0014, 0.002, 0.0387) in ours
            lambda p: (0.002 - p[1], p[0] - 0.00144, p[2] - 0.03872),
            {
                "index_distal": (-0.02623, 0.0007, 0.08312),
                "middle_distal": (0, -0.0005, 0.096),
                "little_distal": (0.05172, 0.0089, 0.05931),
                "thumb_distal": (-0.04789, 0.05498, 0.03021),
            },
        ),
    ],
)
def test_last_links_lie_where_the_makers_model_puts_them(name, to_maker, golden):
    hand = HandSpec.load(name)
    data = _posed(hand, np.zeros(len(hand.joint_names)))
    for body, want in golden.items():
        np.testing.assert_allclose(to_maker(data.body(body).xpos), want, atol=TENTH_MM, err_msg=body)


def test_fingertips_of_a_shadow_hand_follow_its_published_phalanges():
    """Index: knuckle at (0, 0.033, 0.095), phalanges of 45, 25, 26 mm. Thumb: 38, 32 and 27.5 mm at 45 degrees."""
    hand = HandSpec.load("shadow")
    joints = np.zeros(22)
    flexed = {name: i for i, name in enumerate(hand.joint_names)}
    tips = {"index_tip": (0, 0.033, 0.191), "thumb_tip": (0.00858, 0.10294, 0.09794)}
    for site, want in tips.items():
        np.testing.assert_allclose(_posed(hand, joints).site(site).xpos, want, atol=TENTH_MM)
    joints[flexed["ffj3"]] = np.pi / 2  # the whole finger along the palm normal
    np.testing.assert_allclose(_posed(hand, joints).site("index_tip").xpos, (0.096, 0.033, 0.095), atol=TENTH_MM)
    joints[flexed["ffj3"]] = 0.0
    motors = hand.motors.positions(joints)
    motors[hand.motors.names.index("ffj2")] = np.pi / 4
    joints = hand.motors.joint_positions(motors)
    assert joints[flexed["ffj1"]] == pytest.approx(np.pi / 4)  # one motor flexes both
    want = (0.025 * np.sqrt(0.5) + 0.026, 0.033, 0.14 + 0.025 * np.sqrt(0.5))
    np.testing.assert_allclose(_posed(hand, joints).site("index_tip").xpos, want, atol=TENTH_MM)


def test_fingertips_of_an_orca_hand_follow_its_phalanges():
    """Middle finger: base joint 50 mm from the maker's palm, next joint after 46 mm, tip 36 mm on and 4 mm in front."""
    hand = HandSpec.load("orca")
    joints = np.zeros(16)
    x, y, z = 0.00144, 0.002, 0.05 + 0.03872
    want = (x - 0.0005 + 0.004, y, z + 0.046 + 0.036)
    np.testing.assert_allclose(_posed(hand, joints).site("middle_tip").xpos, want, atol=TENTH_MM)
    joints[hand.joint_names.index("middle_mcp")] = np.pi / 2
    want = (x + 0.046 + 0.036, y, z + 0.0005 - 0.004)
    np.testing.assert_allclose(_posed(hand, joints).site("middle_tip").xpos, want, atol=TENTH_MM)


def test_second_joints_of_an_ability_hand_follow_the_first():
    """Link lengths 38.61 and 39.36 mm; the second joint stands at 0.7235 + 1.05851 times the first."""
    hand = HandSpec.load("ability")
    assert hand.motors.names == ("index_q1", "middle_q1", "ring_q1", "little_q1", "thumb_q1", "thumb_q2")
    joints = hand.motors.joint_positions(np.array([0.5, 0, 0, 0, 0, 0]))
    second = [hand.joint_names.index(f"{finger}_q2") for finger in ("index", "little")]
    np.testing.assert_allclose(joints[second], [0.7235 + 0.5 * 1.05851, 0.7235], atol=1e-6)
    data = _posed(hand, joints)
    for finger in ("index", "middle", "ring", "little"):
        first, second, tip = (data.site(f"{finger}_{part}").xpos for part in ("joint1", "joint2", "tip"))
        assert np.linalg.norm(second - first) == pytest.approx(0.03861, abs=TENTH_MM)
        assert np.linalg.norm(tip - second) == pytest.approx(0.03936, abs=TENTH_MM)


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("name", HANDS)
def test_torch_kinematics_agrees_with_mujoco(name, side):
    hand = HandSpec.load(name, side)
    tree = hand.kinematics()
    for seed in range(10):
        q = _random_q(hand, seed)
        data = _posed(hand, q)
        root = torch.zeros(1, 3), torch.tensor([[1.0, 0, 0, 0]])
        joint_pos = torch.tensor(q, dtype=torch.float32)[None]
        pos, quat = tree.forward(*root, joint_pos)
        np.testing.assert_allclose(pos[0], data.xpos[1:], atol=1e-6)
        same = np.abs((quat[0].numpy() * data.xquat[1:]).sum(axis=1))
        np.testing.assert_allclose(same, 1.0, atol=1e-6)
        want = [data.site(site).xpos for site in hand.keypoint_names]
        np.testing.assert_allclose(tree.keypoints(*root, joint_pos)[0], want, atol=1e-6)


@pytest.mark.parametrize("name", HANDS)
def test_the_left_hand_is_the_mirror_image_at_the_same_joint_values(name):
    right, left = HandSpec.load(name), HandSpec.load(name, "left")
    mirror = np.array([1.0, -1.0, 1.0])
    np.testing.assert_allclose(left.palm_pos_b, right.palm_pos_b * mirror)
    for seed in range(5):
        q = _random_q(right, seed)
        r, w = _posed(right, q), _posed(left, q)
        np.testing.assert_allclose(w.xpos, r.xpos * mirror, atol=1e-12)
        np.testing.assert_allclose(w.xipos, r.xipos * mirror, atol=1e-12)
        np.testing.assert_allclose(w.geom_xpos, r.geom_xpos * mirror, atol=1e-12)
        for site in right.keypoint_names:
            np.testing.assert_allclose(w.site(site).xpos, r.site(site).xpos * mirror, atol=1e-12)


@pytest.mark.parametrize("name", HANDS)
def test_a_mirrored_mass_matrix_is_that_of_the_right_hand(name):
    """Equal joint-space mass matrices at equal joint values prove the mirrored inertias."""
    matrices = []
    for side in SIDES:
        hand = HandSpec.load(name, side)
        model = hand.to_mjspec().compile()
        data = mujoco.MjData(model)
        data.qpos = _random_q(hand, 3)
        mujoco.mj_forward(model, data)
        full = np.zeros((model.nv, model.nv))
        mujoco.mj_fullM(model, data, full)
        matrices.append(full)
    np.testing.assert_allclose(matrices[1], matrices[0], atol=1e-12)


@pytest.mark.parametrize(
    ("name", "mass_kg", "effort_nm"), [("allegro", 0.644, 0.7), ("leap", 0.746, 0.95), ("orca", 0.217, 1.0)]
)
def test_mass_limits_and_effort_reach_the_compiled_model(name, mass_kg, effort_nm):
    hand = HandSpec.load(name)
    model = hand.to_mjspec().compile()
    assert hand.mass == pytest.approx(mass_kg, abs=1e-3)
    assert (model.nq, model.nu) == (16, 16)
    assert [model.joint(i).name for i in range(16)] == list(hand.joint_names)
    np.testing.assert_array_equal(model.actuator_trnid[:, 0], range(16))
    np.testing.assert_allclose(model.actuator_forcerange, np.tile([-effort_nm, effort_nm], (16, 1)))
    np.testing.assert_allclose(model.jnt_range, np.stack([hand.joint_lower, hand.joint_upper], axis=1))
    assert model.jnt_limited.all()
    np.testing.assert_allclose(model.actuator_gainprm[:, 0], hand.kp)
    np.testing.assert_allclose(model.actuator_biasprm[:, 2], -hand.kd)
    np.testing.assert_allclose(model.dof_damping, hand.damping)
    np.testing.assert_allclose(model.dof_armature, hand.armature)
    np.testing.assert_allclose(model.body_gravcomp[1:], 1.0)


def test_allegro_joint_limits_are_those_of_the_maker():
    hand = HandSpec.load("allegro")
    np.testing.assert_allclose(hand.joint_lower, [-0.47, -0.196, -0.174, -0.227] * 3 + [0.263, -0.105, -0.189, -0.162])
    np.testing.assert_allclose(hand.joint_upper, [0.47, 1.61, 1.709, 1.618] * 3 + [1.396, 1.163, 1.644, 1.719])
    np.testing.assert_allclose(hand.speed_limit, 7.0)


@pytest.mark.parametrize(("name", "excludes"), [("allegro", 5), ("leap", 18)])
def test_the_makers_self_collision_exclusions_are_kept_and_nothing_touches_when_open(name, excludes):
    hand = HandSpec.load(name)
    model = hand.to_mjspec().compile()
    assert model.nexclude == excludes
    data = mujoco.MjData(model)
    data.qpos = hand.open_pose
    mujoco.mj_forward(model, data)
    assert data.ncon == 0
    assert model.ngeom <= 20
    assert all(model.geom(i).name for i in range(model.ngeom))


@pytest.mark.parametrize("name", ["allegro", "leap"])
def test_weights_and_names_have_the_shape_every_policy_expects(name):
    hand = HandSpec.load(name)
    assert (len(hand.joint_names), len(hand.keypoint_names), len(hand.contact_bodies)) == (16, 17, 13)
    assert hand.keypoint_weights[0] == hand.contact_weights[0] == 0
    assert hand.keypoint_weights.sum() == pytest.approx(16)
    assert hand.keypoint_weights[-1] == pytest.approx(4.0)  # thumb tip: 8 of 32, times 16
    assert hand.contact_weights.sum() == pytest.approx(13)
    assert hand.contact_weights[-1] == pytest.approx(12 / 31 * 13)
    assert set(hand.thumb_bodies) == set(hand.contact_bodies[10:])


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("name", HANDS)
def test_closing_moves_the_tips_towards_the_palm_normal_and_the_thumb_meets_the_fingers(name, side):
    hand = HandSpec.load(name, side)
    tips = [f"{finger}_tip" for finger in ("index", "middle", "ring", "thumb")]
    start, direction = hand.motors.positions(hand.open_pose), hand.power.closing.numpy()
    opened, started, closing = (
        np.stack([data.site(tip).xpos for tip in tips])
        for part in (0.0, 0.1, 0.5)
        for data in [_posed(hand, hand.motors.joint_positions(start + part * direction))]
    )
    assert (started[:3, 0] > opened[:3, 0]).all()  # fingers first swing out along +x, the palm normal
    assert (opened[:, 0] > hand.palm_pos_b[0] + 0.015).all()  # all tips are in front of the palm
    gap_opened = np.linalg.norm(opened[:3] - opened[3], axis=1)
    gap_closing = np.linalg.norm(closing[:3] - closing[3], axis=1)
    assert (gap_closing < 0.7 * gap_opened).all()
    assert opened[3, 2] + 0.04 < opened[:3, 2].min()  # thumb and fingers on opposite sides


def test_arrays_of_a_hand_cannot_be_written():
    with pytest.raises(ValueError, match="read-only"):
        HandSpec.load("allegro").kp[0] = 1.0
