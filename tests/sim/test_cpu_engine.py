"""The CPU engine against MuJoCo itself: plain loops over mj_step, its kinematics, its velocities."""

import copy
from dataclasses import fields, replace

import mujoco
import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from dexgrasp.sim.engine.base import InitialState, PhysicsVariation
from dexgrasp.sim.engine.cpu import CpuEngine
from dexgrasp.sim.scene import ModelPool

PERIOD_S = 0.05
KEYPOINT_M = 1e-6
"""Lengths of the hand are kept in float32 in the kinematics."""
EXACT = 1e-9
"""The same sums in another order."""


@pytest.fixture(scope="module")
def pool(allegro, household, balanced):
    return ModelPool(allegro, household, balanced)


@pytest.fixture(scope="module")
def start(allegro, household):
    """Two objects at rest beside each other's place, hands high above them, palms facing down."""
    names = [household.names[0], household.names[2], household.names[3]]
    heights = torch.tensor([household[name].rest_height[0] for name in names])
    down = torch.tensor(Rotation.from_euler("xyz", [10, 80, 20], degrees=True).as_quat()[[3, 0, 1, 2]])
    return InitialState(
        objects=names,
        object_pos_w=torch.stack([torch.tensor([0.01, 0.02, 0.03]).double(), 0 * heights, heights], dim=1),
        object_quat_w=torch.tensor(np.stack([household[name].rest_quat[0] for name in names])),
        palm_pos_w=torch.tensor([[0.0, 0.0, 0.4], [0.1, 0.05, 0.5], [0.0, -0.1, 0.45]]).double(),
        palm_quat_w=down.expand(3, 4).clone(),
        joint_pos=torch.tensor(allegro.open_pose).expand(3, -1).clone(),
        variation=PhysicsVariation.none(3, 16),
    )


@pytest.fixture
def engine(pool, start):
    built = CpuEngine(pool, num_envs=3, num_threads=1)
    built.reset(torch.arange(3), start)
    return built


def hold(engine, steps=1, palm_pos_w=None, palm_quat_w=None):
    """Fingers and palm stay at the given targets, else where they are."""
    state = engine.state
    pos = state.palm_pos_w.clone() if palm_pos_w is None else palm_pos_w
    quat = state.palm_quat_w.clone() if palm_quat_w is None else palm_quat_w
    fingers = state.joint_pos.clone()
    for _ in range(steps):
        engine.step(fingers, pos, quat, PERIOD_S)


def row_of(start, row):
    def cut(record):
        return {
            field.name: getattr(record, field.name)[row : row + 1]
            for field in fields(record)
            if field.name not in ("variation", "neighbours")
        }

    return InitialState(**cut(start), variation=PhysicsVariation(**cut(start.variation)))


def values(state):
    return {field.name: getattr(state, field.name).clone() for field in fields(state)}


class Recorder:
    """A batch that notes the controls of every call to step."""

    def __init__(self, batch):
        self.batch, self.calls = batch, []

    def step(self, ids, nstep):
        self.calls.append((self.batch.ctrl.copy(), nstep))
        self.batch.step(ids, nstep=nstep)

    def __getattr__(self, name):
        return getattr(self.batch, name)


def test_every_row_steps_bit_for_bit_like_its_model_alone(engine):
    alone = []
    for row in range(3):
        data = mujoco.MjData(engine.get_model(row))
        mujoco.mj_setState(engine.get_model(row), data, engine.batch.state[row], mujoco.mjtState.mjSTATE_INTEGRATION)
        alone.append(data)
    engine.batch = Recorder(engine.batch)
    rng = np.random.default_rng(0)
    for _ in range(12):
        fingers = engine.state.joint_pos + torch.from_numpy(rng.normal(0, 0.2, (3, 16)))
        palm = engine.state.palm_pos_w - torch.tensor([0.0, 0.0, 0.04])  # runs into the object
        engine.step(fingers, palm, engine.state.palm_quat_w.clone(), PERIOD_S)
    assert engine.state.object_contact.any()
    for row, data in enumerate(alone):
        for ctrl, nstep in engine.batch.calls:
            data.ctrl[:] = ctrl[row]
            mujoco.mj_step(engine.get_model(row), data, nstep=nstep)
        np.testing.assert_array_equal(engine.batch.qpos[row], data.qpos)
        np.testing.assert_array_equal(engine.batch.qvel[row], data.qvel)


def test_the_palm_target_moves_in_equal_parts_within_a_control_period(engine):
    engine.batch = Recorder(engine.batch)
    hold(engine, palm_pos_w=engine.state.palm_pos_w + torch.tensor([0.0, 0.03, 0.0]))
    calls = engine.batch.calls
    assert [nstep for _, nstep in calls] == [2, 2, 2]  # 0.05 s in steps of 1/120 s
    base = calls[-1][0][:, 1] - 0.03
    for part, (ctrl, _) in enumerate(calls, start=1):
        np.testing.assert_allclose(ctrl[:, 1] - base, 0.01 * part, atol=1e-12)


@pytest.mark.parametrize("steps", [0, 6])
def test_keypoints_and_palm_are_where_mujoco_has_them(engine, allegro, steps):
    for _ in range(steps):
        hold(engine, palm_pos_w=engine.state.palm_pos_w + torch.tensor([0.01, 0.02, -0.03]))
    for row in range(3):
        model, data = engine.get_model(row), mujoco.MjData(engine.get_model(row))
        data.qpos[:] = engine.batch.qpos[row]
        mujoco.mj_kinematics(model, data)
        sites = np.stack([data.site(name).xpos for name in allegro.keypoint_names])
        np.testing.assert_allclose(engine.state.keypoints_w[row], sites, atol=KEYPOINT_M)
        palm = data.body("palm")
        turn = Rotation.from_quat(palm.xquat[[1, 2, 3, 0]])
        palm_pos = palm.xpos + turn.as_matrix() @ allegro.palm_pos_b
        np.testing.assert_allclose(engine.state.palm_pos_w[row], palm_pos, atol=EXACT)
        frame = turn * Rotation.from_quat(allegro.palm_quat_b[[1, 2, 3, 0]])
        seen = Rotation.from_quat(engine.state.palm_quat_w[row].numpy()[[1, 2, 3, 0]])
        assert (seen.inv() * frame).magnitude() < 1e-7


def test_a_palm_target_is_reached_when_nothing_is_in_the_way(engine):
    pos = engine.state.palm_pos_w + torch.tensor([0.03, -0.05, 0.04])
    start = Rotation.from_quat(engine.state.palm_quat_w.numpy()[:, [1, 2, 3, 0]])
    goal = start * Rotation.from_rotvec([0.3, 0.2, -0.4])
    quat = torch.from_numpy(goal.as_quat()[:, [3, 0, 1, 2]])
    hold(engine, 20, pos, quat)
    reached = Rotation.from_quat(engine.state.palm_quat_w.numpy()[:, [1, 2, 3, 0]])
    assert (engine.state.palm_pos_w - pos).norm(dim=1).max() < 1e-3
    assert np.rad2deg((goal.inv() * reached).magnitude()).max() < 0.5


def test_a_force_on_the_object_accelerates_it(engine, start):
    high = start.object_pos_w + torch.tensor([0.3, 0.0, 0.5])
    engine.move_object(torch.arange(3), high)
    engine.push(torch.tensor([[2.5, 0.0, 0.0], [0.0, 0.0, 0.0], [0.0, -1.0, 0.0]]))
    hold(engine)
    want = torch.zeros(3, 3).double()
    want[0, 0], want[2, 1] = 2.5 / engine.state.object_mass[0], -1.0 / engine.state.object_mass[2]
    want[:, 2] = -9.81
    # the damping that stops rolling takes part in it: 1e-3 N s/m
    torch.testing.assert_close(engine.state.object_linvel_w, want * PERIOD_S, rtol=2e-3, atol=1e-3)
    engine.push(torch.zeros(3, 3))
    assert (engine.batch.xfrc_applied == 0).all()


def test_object_spin_is_given_in_the_world_frame(engine, start):
    engine.move_object(torch.arange(3), start.object_pos_w + torch.tensor([0.3, 0.0, 0.5]))
    engine.batch.qvel[:, engine.slots.object_v.start + 3 : engine.slots.object_v.stop] = [1.0, -2.0, 3.0]
    hold(engine)
    for row in range(3):
        model, data, velocity = engine.get_model(row), engine.get_data(row), np.zeros(6)
        body = model.body("object").id
        mujoco.mj_objectVelocity(model, data, mujoco.mjtObj.mjOBJ_BODY, body, velocity, 0)
        np.testing.assert_allclose(engine.state.object_angvel_w[row], velocity[:3], atol=EXACT)
        assert np.linalg.norm(velocity[:3]) > 1.0


def test_a_row_that_nobody_looks_at_stands_still_until_its_reset_and_changes_no_other(engine, start):
    other = torch.tensor([0, 2])
    targets = engine.state.joint_pos + 0.1, engine.state.palm_pos_w.clone(), engine.state.palm_quat_w.clone()
    engine.step(*targets, 0.05)
    moved = engine.state.joint_pos.clone()
    engine.reset(torch.arange(3), start)
    engine.freeze(torch.tensor([1]))
    before = engine.state.joint_pos[1].clone()
    engine.step(*targets, 0.05)
    assert torch.equal(engine.state.joint_pos[1], before) and not torch.equal(moved[1], before)
    assert torch.equal(engine.state.joint_pos[other], moved[other])
    engine.reset(torch.arange(3), start)
    engine.step(*targets, 0.05)
    assert torch.equal(engine.state.joint_pos, moved)


def test_an_object_at_rest_stays_where_it_was_put(engine, start):
    hold(engine, 10)
    assert (engine.state.object_pos_w - start.object_pos_w).norm(dim=1).max() < 1.5e-3  # pieces are 0.6 mm larger
    assert engine.state.object_linvel_w.norm(dim=1).max() < 0.01


def test_a_moved_object_is_elsewhere_at_rest_and_the_others_stay(engine, start):
    hold(engine, 2)
    before = engine.batch.state.copy()
    to = torch.tensor([[0.1, -0.1, float(start.object_pos_w[1, 2])]])
    engine.move_object(torch.tensor([1]), to)
    torch.testing.assert_close(engine.state.object_pos_w[1:2], to.double())
    assert (engine.state.object_linvel_w[1] == 0).all()
    np.testing.assert_array_equal(engine.batch.state[[0, 2]], before[[0, 2]])


def test_a_reset_touches_only_its_rows(engine, start):
    hold(engine, 4)
    before, raw = values(engine.state), engine.batch.state.copy()
    engine.reset(torch.tensor([1]), row_of(start, 2))
    np.testing.assert_array_equal(engine.batch.state[[0, 2]], raw[[0, 2]])
    for name, value in values(engine.state).items():
        assert torch.equal(value[[0, 2]], before[name][[0, 2]]), name
    torch.testing.assert_close(engine.state.palm_pos_w[1], start.palm_pos_w[2])
    torch.testing.assert_close(engine.state.object_pos_w[1], start.object_pos_w[2])


def test_a_reset_puts_hand_and_object_at_rest_where_it_says(engine, start):
    hold(engine, 3, palm_pos_w=start.palm_pos_w + 0.05)
    engine.reset(torch.arange(3), start)
    state = engine.state
    for name in ("object_pos_w", "object_quat_w", "palm_pos_w", "palm_quat_w", "joint_pos"):
        torch.testing.assert_close(getattr(state, name), getattr(start, name), rtol=0, atol=EXACT)
    assert torch.equal(state.joint_target, state.joint_pos)
    assert (engine.batch.qvel == 0).all()


def test_mass_and_friction_of_the_start_reach_the_rows_own_model(engine, start, pool):
    plain = engine.state.object_mass.clone()
    scale = torch.tensor([1.0, 2.0, 0.5]).double()
    friction = torch.tensor([0.8, 0.3, 1.1]).double()
    engine.reset(
        torch.arange(3), replace(start, variation=replace(start.variation, mass_scale=scale, friction=friction))
    )
    torch.testing.assert_close(engine.state.object_mass, plain * scale)
    torch.testing.assert_close(engine.state.object_friction, friction)
    for row, name in enumerate(start.objects):
        own, pooled = engine.get_model(row), pool[name]
        body = own.body("object").id
        assert own.body_mass[body] == pytest.approx(pooled.body_mass[body] * float(scale[row]))
        np.testing.assert_allclose(own.body_inertia[body], pooled.body_inertia[body] * float(scale[row]))
        np.testing.assert_allclose(own.dof_invweight0[-6:], pooled.dof_invweight0[-6:] / float(scale[row]))
        assert own.geom("object_0").friction[0] == pytest.approx(float(friction[row]))


def test_without_a_mass_scale_models_are_as_compiled(engine, start, pool):
    for row, name in enumerate(start.objects):
        own, pooled = engine.get_model(row), pool[name]
        np.testing.assert_array_equal(own.body_mass, pooled.body_mass)
        np.testing.assert_array_equal(own.dof_invweight0, pooled.dof_invweight0)


def test_finger_torques_keep_to_the_servos_limit(engine, allegro):
    far = torch.tensor(allegro.joint_upper).expand(3, -1)
    engine.step(far, engine.state.palm_pos_w.clone(), engine.state.palm_quat_w.clone(), PERIOD_S)
    assert torch.equal(engine.state.joint_target, far)
    assert (engine.state.joint_torque.abs() <= torch.tensor(allegro.effort_limit) + EXACT).all()
    assert (engine.state.joint_torque.abs() > 0.6).any()
    assert engine.state.joint_vel.abs().max() > 0.1


def test_state_tensors_live_on_the_rows_of_the_batch(engine):
    engine.batch.qpos[2, engine.slots.finger_q.start] = 0.123
    assert float(engine.state.joint_pos[2, 0]) == 0.123


def test_data_for_rendering_shows_the_current_state(engine, start):
    hold(engine, 3, palm_pos_w=start.palm_pos_w - 0.02)
    for row in range(3):
        data = engine.get_data(row)
        np.testing.assert_array_equal(data.qpos, engine.batch.qpos[row])
        np.testing.assert_allclose(data.body("object").xpos, engine.state.object_pos_w[row], atol=EXACT)


@pytest.mark.parametrize("field", ["qpos", "qvel"])
def test_a_row_that_is_not_finite_is_reported_until_its_reset(engine, start, field):
    getattr(engine.batch, field)[1, 0] = np.nan
    assert engine.finite().tolist() == [True, False, True]
    hold(engine)
    assert engine.finite().tolist() == [True, False, True]
    engine.reset(torch.tensor([1]), row_of(start, 1))
    assert engine.finite().all()


def test_a_row_in_which_mujoco_gives_up_does_not_stop_the_others(engine, start):
    twin = CpuEngine(engine.pool, 3, 1)
    twin.reset(torch.arange(3), start)
    engine._models[1] = copy.copy(engine.get_model(1))
    engine._models[1].opt.solver = 99  # no such solver: an error inside mj_step
    engine.batch.set_models(engine._models)
    for one in (engine, twin):
        hold(one, 2, palm_pos_w=start.palm_pos_w - 0.01)
    assert engine.finite().tolist() == [True, False, True]
    np.testing.assert_array_equal(engine.batch.qpos[[0, 2]], twin.batch.qpos[[0, 2]])
    engine.reset(torch.tensor([1]), row_of(start, 1))
    hold(engine)
    assert engine.finite().all()
