"""The Isaac Gym face: buffers, resets and hooks of a VecTask; the tensor API against MuJoCo itself."""

import mujoco
import numpy as np
import pytest
import torch

from dexgrasp.sim.envs import window
from dexgrasp.sim.envs.isaacgym import gymapi, gymtorch, vec_task
from dexgrasp.sim.envs.trial_streams import TrialStreams, make_task
from dexgrasp.sim.envs.window import NoDisplay
from dexgrasp.sim.task.disturbances import DISTURBANCES
from dexgrasp.sim.task.grasp_task import TaskCfg

TINY = TaskCfg(grasp_s=0.2, lift_s=0.2, hold_s=0.1)
STEPS = 4 + 4 + 2  # at 20 Hz
FLOAT32 = 1e-5


@pytest.fixture(scope="module")
def options(household, allegro, balanced):
    return {"objects": household, "hand": allegro, "physics": balanced, "task_cfg": TINY}


@pytest.fixture
def make(options):
    def build(num_envs=3, **changes):
        return vec_task.make(num_envs=num_envs, **(options | changes))

    return build


@pytest.fixture
def env(make):
    built = make()
    built.reset()
    return built


def noise(steps, envs=3):
    return 0.3 * torch.randn(steps, envs, 22, generator=torch.manual_seed(1))


def tensor(env, name):
    """An acquired tensor of the tensor API, per environment."""
    return gymtorch.wrap_tensor(getattr(env.gym, f"acquire_{name}_tensor")(env.sim)).view(env.num_envs, -1)


def test_sizes_spaces_and_rates_are_those_of_the_task(env):
    student, teacher = (env.task.layouts[group].size for group in ("student", "teacher"))
    assert (env.num_envs, env.num_environments, env.num_obs, env.num_states) == (3, 3, student, teacher)
    assert (env.num_acts, env.num_actions, env.max_episode_length) == (22, 22, STEPS)
    assert env.observation_space.shape == (student,)
    assert env.state_space.shape == (teacher,)
    assert float(env.action_space.high.min()) == -float(env.action_space.low.max()) == 1.0
    assert env.control_freq_inv * env.dt == pytest.approx(1 / 20)
    assert {"obs": (3, student), "states": (3, teacher)} == {k: v.shape for k, v in env.reset().items()}


def test_a_step_counts_progress_and_the_last_one_resets_with_a_time_out(env):
    for step, actions in enumerate(noise(STEPS)):
        obs, reward, reset, extras = env.step(actions)
        last = step == STEPS - 1
        assert env.progress_buf.tolist() == [0 if last else step + 1] * 3
        assert env.randomize_buf.tolist() == env.progress_buf.tolist()
        assert reset.tolist() == env.reset_buf.tolist() == [int(last)] * 3
        assert extras["time_outs"].tolist() == env.timeout_buf.tolist() == [last] * 3
        assert torch.equal(reward, env.rew_buf)
    phase = slice(-405, -402)  # complete when the episode ends, zero when one begins
    assert torch.equal(extras["final_obs"]["obs"][:, phase], torch.ones(3, 3))
    assert torch.equal(obs["obs"][:, phase], torch.zeros(3, 3))
    assert [outcome.trial for outcome in extras["outcomes"]] == [0, 0, 0]
    assert set(extras["episode"]) == {"success", "lift_m", "slip_m"}
    assert env.control_steps == STEPS
    assert torch.equal(env.reset_done()[1], torch.arange(3))


def test_it_returns_what_the_task_returns(env, options):
    streams = TrialStreams(make_task(3, task=TINY, **{k: v for k, v in options.items() if k != "task_cfg"}))
    streams.reset()
    for actions in noise(STEPS + 2):
        obs, reward, reset, _ = env.step(actions)
        want = streams.step(actions)
        assert torch.equal(obs["obs"], want.obs["student"])
        assert torch.equal(obs["states"], want.obs["teacher"])
        assert torch.equal(env.get_state(), want.obs["teacher"])
        assert torch.equal(reward, want.reward)
        assert torch.equal(reset.bool(), want.terminated | want.truncated)


def test_leaving_the_workspace_resets_without_a_time_out(env):
    env.task.engine.move_object(torch.tensor([1]), torch.tensor([[0.0, 0.9, 0.1]]))
    _, _, reset, extras = env.step(torch.zeros(3, 22))
    assert reset.tolist() == [0, 1, 0]
    assert extras["time_outs"].tolist() == [False] * 3
    assert env.progress_buf.tolist() == [1, 0, 1]


def test_observations_and_actions_are_clipped_where_asked(make):
    env = make(clip_observations=0.25, clip_actions=0.5)
    assert env.reset()["obs"].abs().max() == 0.25
    obs, *_ = env.step(torch.full((3, 22), 2.0))
    assert env.actions.unique().tolist() == [0.5]
    assert obs["states"].abs().max() == 0.25
    assert env.obs_buf.abs().max() > 0.25  # the buffer itself is not


def test_reset_idx_restarts_only_its_rows(env):
    for actions in noise(4):
        env.step(actions)
    before = env.obs_buf.clone()
    env.reset_idx(torch.tensor([2, 0]))
    env.compute_observations()
    assert env.progress_buf.tolist() == [0, 4, 0]
    assert torch.equal(env.obs_buf[1], before[1])
    assert not torch.equal(env.obs_buf[[0, 2]], before[[0, 2]])
    assert env.task.trial.tolist() == [1, 0, 1]


class Ported(vec_task.VecTask):
    """What a user's own task overrides: reward is the object's height, episodes end after three steps."""

    calls = ()

    def pre_physics_step(self, actions):
        self.calls += ("pre",)
        super().pre_physics_step(actions)

    def post_physics_step(self):
        self.calls += ("post",)
        super().post_physics_step()

    def compute_reward(self):
        super().compute_reward()
        self.calls += ("reward",)
        self.rew_buf = self.task.engine.state.object_pos_w[:, 2].float()
        self.reset_buf = (self.progress_buf >= 3).long()

    def reset_idx(self, env_ids):
        self.calls += ("reset",)
        super().reset_idx(env_ids)


def test_hooks_of_a_subclass_are_called_in_isaac_gyms_order_and_decide(options):
    given = {k: v for k, v in options.items() if k != "task_cfg"}
    env = Ported(2, task_cfg=TINY, **given)
    env.reset()
    for _ in range(3):
        height = env.task.engine.state.object_pos_w[:, 2].clone()
        _, reward, reset, _ = env.step(torch.zeros(2, 22))
        torch.testing.assert_close(reward, height.float(), atol=0.05, rtol=0)
    assert env.calls == ("reset", *("pre", "post", "reward") * 3, "reset")
    assert reset.tolist() == [1, 1]
    assert env.progress_buf.tolist() == [0, 0]


def test_without_a_states_group_there_are_no_states(make):
    env = make(states_group=None)
    assert env.num_states == 0
    assert set(env.reset()) == {"obs"}
    assert "state_space" not in env.get_env_info()


def test_a_checkpoint_goes_on_with_the_next_trials(make):
    env, resumed = make(seed=4), make(seed=0)
    env.reset()
    resumed.set_env_state(env.get_env_state())
    assert torch.equal(resumed.reset()["obs"], env.reset()["obs"])
    env.seed(4)
    assert torch.equal(env.reset()["obs"], make(seed=4).reset()["obs"])


def test_impossible_arguments_are_refused_at_construction(make):
    with pytest.raises(ValueError, match="sim_device must be 'cpu', got 'cuda:0'"):
        make(sim_device="cuda:0")
    with pytest.raises(ValueError, match=r"task must be a subclass of VecTask or one of \['Grasp'\], got 'Ant'"):
        make(task="Ant")
    with pytest.raises(ValueError, match=r"group must be one of \['student', 'teacher'\], got 'pupil'"):
        make(states_group="pupil")


def test_a_window_without_a_display_is_refused(make, monkeypatch):
    monkeypatch.setattr(window, "_has_display", lambda: False)
    with pytest.raises(NoDisplay):
        make(headless=False)


@pytest.mark.parametrize("name", DISTURBANCES)
def test_every_disturbance_of_the_evaluation_acts_as_on_the_task_itself(make, options, name):
    env = make(num_envs=2, disturbance=name)
    given = {k: v for k, v in options.items() if k != "task_cfg"}
    streams = TrialStreams(make_task(2, task=TINY, disturbance=name, **given))
    env.reset()
    streams.reset()
    for actions in noise(STEPS, envs=2):
        obs, reward, _, extras = env.step(actions)
        want = streams.step(actions)
        assert torch.equal(obs["states"], want.obs["teacher"])
        assert torch.equal(reward, want.reward)
    assert extras["outcomes"] == want.info["outcomes"]
    assert {outcome.disturbance for outcome in extras["outcomes"]} == {name}


def test_rigid_body_states_are_mujocos_with_quaternions_xyzw(env):
    for actions in noise(5):
        env.step(actions)
    bodies = tensor(env, "rigid_body_state").view(3, -1, 13)
    for row in range(3):
        model, data = env.task.engine.get_model(row), env.task.engine.get_data(row)
        velocity = np.zeros(6)
        for k, name in enumerate(env.sim.body_names):
            body = model.body(name).id
            mujoco.mj_objectVelocity(model, data, mujoco.mjtObj.mjOBJ_XBODY, body, velocity, 0)
            want = np.concatenate([data.xpos[body], data.xquat[body][[1, 2, 3, 0]], velocity[3:], velocity[:3]])
            np.testing.assert_allclose(bodies[row, k], want, atol=FLOAT32, rtol=FLOAT32)
    assert bodies[..., 7:].abs().max() > 0.1  # something moved


def test_root_states_are_those_of_the_hand_base_and_the_object(env):
    for actions in noise(5):
        env.step(actions)
    roots = tensor(env, "actor_root_state").view(3, 2, 13)
    bodies = tensor(env, "rigid_body_state").view(3, -1, 13)
    handle = env.gym.get_env(env.sim, 1)
    hand = env.gym.find_actor_rigid_body_index(handle, gymapi.HAND, "palm", gymapi.DOMAIN_ENV)
    assert torch.equal(roots[:, gymapi.HAND], bodies[:, hand])
    state = env.task.engine.state
    want = [state.object_pos_w, state.object_quat_w[:, [1, 2, 3, 0]], state.object_linvel_w, state.object_angvel_w]
    torch.testing.assert_close(roots[:, gymapi.OBJECT], torch.cat(want, dim=1).float(), atol=FLOAT32, rtol=FLOAT32)
    assert env.gym.get_actor_index(handle, env.gym.find_actor_handle(handle, "object")) == 3


def test_net_contact_forces_are_the_sums_of_mujocos_contacts(env):
    for _ in range(6):
        env.step(torch.zeros(3, 22))
    forces = tensor(env, "net_contact_force").view(3, -1, 3)
    for row in range(3):
        want = contact_sum_n(env.task.engine.get_model(row), env.task.engine.get_data(row))
        np.testing.assert_allclose(forces[row], want[1:], atol=1e-3, rtol=1e-3)
    assert forces[:, -1].norm(dim=1).min() > 0.01  # the table carries the objects


def contact_sum_n(model, data):
    """Force of all contacts on every body, by looping over them (nbody, 3)."""
    total, wrench = np.zeros((model.nbody, 3)), np.zeros(6)
    for i in range(data.ncon):
        mujoco.mj_contactForce(model, data, i, wrench)
        force = data.contact[i].frame.reshape(3, 3).T @ wrench[:3]  # of the first geom on the second
        first, second = model.geom_bodyid[data.contact[i].geom]
        total[second] += force
        total[first] -= force
    return total


def test_an_object_at_rest_is_carried_by_its_weight(env):
    for _ in range(200):
        env.gym.simulate(env.sim)
    tensor(env, "net_contact_force")
    env.gym.refresh_net_contact_force_tensor(env.sim)
    lift_n = tensor(env, "net_contact_force").view(3, -1, 3)[:, -1, 2]
    torch.testing.assert_close(lift_n, 9.81 * env.task.engine.state.object_mass.float(), rtol=0.03, atol=0)


def test_looking_does_not_disturb(make):
    watched, alone = make(), make()
    watched.reset()
    alone.reset()
    names = ("actor_root_state", "dof_state", "rigid_body_state", "net_contact_force")
    for actions in noise(STEPS + 2):
        for name in names:
            tensor(watched, name)
            getattr(watched.gym, f"refresh_{name}_tensor")(watched.sim)
        assert torch.equal(watched.step(actions)[0]["states"], alone.step(actions)[0]["states"])


def test_refresh_writes_into_the_acquired_tensor(env):
    dof = tensor(env, "dof_state")
    before = dof.clone()
    env.step(torch.ones(3, 22))
    assert torch.equal(dof, before)
    env.gym.refresh_dof_state_tensor(env.sim)
    assert not torch.equal(dof, before)
    state = env.task.engine.state
    assert torch.equal(dof.view(3, 16, 2), torch.stack([state.joint_pos, state.joint_vel], dim=-1).float())
    with pytest.raises(
        RuntimeError, match=r"the body tensor is not acquired: acquire it before the refresh; acquired: \['dof'\]"
    ):
        env.gym.refresh_rigid_body_state_tensor(env.sim)


def test_an_indexed_root_state_moves_only_its_object_which_then_falls_freely(env):
    roots = tensor(env, "actor_root_state").view(3, 2, 13)
    untouched = roots.clone()
    quarter = 0.5**0.5
    roots[1, gymapi.OBJECT] = torch.tensor([0.2, 0.1, 0.9, 0.0, 0.0, quarter, quarter, 0.3, 0.0, 0.0, 0.0, 0.0, 2.0])
    roots[0, gymapi.OBJECT, 2] = 5.0  # not listed below
    index = torch.tensor([1 * 2 + gymapi.OBJECT], dtype=torch.int32)
    handles = gymtorch.unwrap_tensor(roots), gymtorch.unwrap_tensor(index)
    assert env.gym.set_actor_root_state_tensor_indexed(env.sim, *handles, len(index))
    wxyz = torch.tensor([quarter, 0, 0, quarter]).double()  # a quarter turn about z
    torch.testing.assert_close(env.task.engine.state.object_quat_w[1], wxyz, atol=1e-6, rtol=0)
    want = roots[1, gymapi.OBJECT].clone()
    env.gym.refresh_actor_root_state_tensor(env.sim)
    torch.testing.assert_close(roots[1, gymapi.OBJECT], want, atol=FLOAT32, rtol=0)
    assert torch.equal(roots[[0, 2]], untouched[[0, 2]])
    fall = 10
    for _ in range(fall):
        env.gym.simulate(env.sim)
    env.gym.fetch_results(env.sim, True)
    env.gym.refresh_actor_root_state_tensor(env.sim)
    velocity = roots[1, gymapi.OBJECT, 7:10]
    torch.testing.assert_close(velocity, torch.tensor([0.3, 0.0, -9.81 * fall * env.dt]), atol=0.01, rtol=0)


@pytest.mark.parametrize("mount", ["floating", "ur5e"])
def test_a_hand_root_is_placed_at_rest_and_stays_there(make, mount):
    env = make(num_envs=2, mount=mount)
    env.reset()
    roots = tensor(env, "actor_root_state").view(2, 2, 13)
    roots[:, gymapi.HAND, 2] += 0.03
    want = roots[:, gymapi.HAND, :7].clone()
    assert env.gym.set_actor_root_state_tensor(env.sim, gymtorch.unwrap_tensor(roots))
    env.gym.refresh_actor_root_state_tensor(env.sim)
    reach = 2e-3 if mount == "ur5e" else FLOAT32
    torch.testing.assert_close(roots[:, gymapi.HAND, :7], want, atol=reach, rtol=0)
    assert roots[:, gymapi.HAND, 7:].abs().max() < 1e-6
    for _ in range(20):
        env.gym.simulate(env.sim)
    env.gym.refresh_actor_root_state_tensor(env.sim)
    torch.testing.assert_close(roots[:, gymapi.HAND, :3], want[:, :3], atol=5e-3, rtol=0)


def test_joints_are_set_and_driven_to_their_targets(env):
    dof = tensor(env, "dof_state").view(3, 16, 2)
    dof[..., 0] += 0.05
    dof[..., 1] = 0.0
    assert env.gym.set_dof_state_tensor(env.sim, gymtorch.unwrap_tensor(dof))
    torch.testing.assert_close(env.task.engine.state.joint_pos.float(), dof[..., 0])
    targets = dof[..., 0] + 0.1
    hands = gymtorch.unwrap_tensor(torch.tensor([0, 4], dtype=torch.int32))
    assert env.gym.set_dof_position_target_tensor(env.sim, gymtorch.unwrap_tensor(dof[..., 0].clone()))
    assert env.gym.set_dof_position_target_tensor_indexed(env.sim, gymtorch.unwrap_tensor(targets), hands, 2)
    for _ in range(60):
        env.gym.simulate(env.sim)
    moved = env.task.engine.state.joint_pos.float() - dof[..., 0]
    assert moved[[0, 2]].median() == pytest.approx(0.1, abs=0.03)
    assert moved[1].abs().median() < 0.03
    still = gymtorch.unwrap_tensor(dof)
    assert env.gym.set_dof_state_tensor_indexed(env.sim, still, gymtorch.unwrap_tensor(torch.tensor([2])), 1)
    torch.testing.assert_close(env.task.engine.state.joint_pos[1].float(), dof[1, :, 0])


def test_names_and_counts_are_found_and_a_miss_lists_what_there_is(env):
    gym, sim = gymapi.acquire_gym(), env.sim
    handle = gym.get_env(sim, 2)
    assert gym is env.gym
    assert gym.prepare_sim(sim)
    assert (gym.get_env_count(sim), gym.get_sim_actor_count(sim), gym.get_sim_dof_count(sim)) == (3, 6, 48)
    assert gym.get_sim_rigid_body_count(sim) == 3 * len(sim.body_names)
    assert gym.get_actor_dof_names(handle, gymapi.HAND) == list(env.task.hand.joint_names)
    assert gym.get_actor_dof_names(handle, gymapi.OBJECT) == []
    assert gym.get_actor_rigid_body_names(handle, gymapi.OBJECT) == ["object"]
    name = env.task.hand.joint_names[5]
    assert gym.find_actor_dof_index(handle, gymapi.HAND, name) == 2 * 16 + 5
    assert gym.find_actor_rigid_body_index(handle, gymapi.OBJECT, "object") == 3 * len(sim.body_names) - 1
    with pytest.raises(ValueError, match=r"no actor 'table'; there are \['hand', 'object'\]"):
        gym.find_actor_handle(handle, "table")


def test_the_engine_refuses_to_write_what_is_no_memory(env):
    with pytest.raises(ValueError, match=r"\['joint_torque'\] cannot be written; those that can: .*object_angvel_w"):
        env.task.engine.write(torch.arange(3), {"joint_torque": torch.zeros(3, 16)})
