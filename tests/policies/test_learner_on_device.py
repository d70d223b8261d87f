"""Gradient steps on a GPU that is pretended: they ask the host nothing, and learn what those on the CPU do.

What is recorded is repeated by graphs in software (tests/helpers/software_graph.py), with the numbers of plain calls.
"""

from contextlib import nullcontext

import pytest
import torch

from dexgrasp import configs
from dexgrasp.policies.agents.checkpoint import read_checkpoint
from dexgrasp.policies.algorithms.distillation import DistillationCfg, StudentPPO
from dexgrasp.policies.algorithms.ppo import GraspPPO, log_prob
from dexgrasp.policies.networks.actor_critic import GraspPolicy
from dexgrasp.sim.engine import cuda_graph
from dexgrasp.sim.engine.factory import make_engine
from dexgrasp.sim.envs.sb3_env import GraspVecEnv
from dexgrasp.sim.scene import PhysicsCfg
from dexgrasp.sim.task.grasp_task import TaskCfg
from tests.helpers import fake_gpu
from tests.helpers.fake_gpu import EngineOnGpu, pretend_gpu, unwrap
from tests.helpers.software_graph import SoftwareRecorder

ENVS = 4
TARGET = 0.004
"""Divergence of twice which the policy reaches within an iteration."""
SHORT = TaskCfg(rate_hz=10.0, grasp_s=0.8, lift_s=0.3, hold_s=0.2)
MIXES = {
    "teacher": None,
    "imitation": DistillationCfg(rho_start=0.9, rho_end=1.0, batch_size=16, gradient_steps=7),
    "both": DistillationCfg(rho_start=0.0, rho_end=0.0, rho_max=0.5, batch_size=16),
}


@pytest.fixture(scope="module")
def envs(household):
    """Environments on the CPU and on the pretended GPU."""
    physics = configs.load_option(PhysicsCfg, "physics", "turbo")
    shared = {"obs": "both", "task": SHORT, "physics": physics, "num_threads": 1}
    with pytest.MonkeyPatch.context() as patch, pretend_gpu():
        patch.setattr("dexgrasp.sim.task.grasp_task.make_engine", lambda *args: EngineOnGpu(make_engine(*args)))
        there = GraspVecEnv(ENVS, household, **shared)
    return GraspVecEnv(ENVS, household, **shared), there


@pytest.fixture
def learner(envs):
    """Make a learner on the CPU or on the pretended GPU, with a rollout of given numbers."""

    def make(on_gpu, stage="teacher", **options):
        env, shared = envs[on_gpu], {"hidden": (16, 8), "seed": 5, "num_minibatches": 4, "restarts": False} | options
        with pretend_gpu() if on_gpu else nullcontext():
            if MIXES[stage] is None:
                model = GraspPPO(env, **shared)
            else:
                torch.manual_seed(3)
                teacher = GraspPolicy(env.task.layouts, env.task.num_actions, hidden=(8,)).to(env.task.device)
                model = StudentPPO(env, distillation=MIXES[stage], teacher=teacher, iterations=10, **shared)
            model.iteration = 1
            fill(model)
        return model

    return make


def fill(model, ended=True):
    """A rollout of the policy, whose last environment ended early where `ended`."""
    generator, buffer = torch.Generator().manual_seed(1), model.rollout_buffer
    for tensor in (*buffer.obs.values(), buffer.actions, buffer.returns, buffer.advantages):
        tensor.copy_(torch.randn(tensor.shape, generator=generator))
    with torch.no_grad():
        obs = {group: values.flatten(0, 1) for group, values in buffer.obs.items()}
        buffer.means.copy_(model.policy.mean(obs).view_as(buffer.means))
        model._behaviour_log_std = log_std = model.policy.std.log()
        buffer.actions.mul_(log_std.exp()).add_(buffer.means)
        buffer.log_probs.copy_(log_prob(buffer.actions, buffer.means, log_std))
    buffer.values.zero_()
    buffer.alive.fill_(True)
    if ended:
        buffer.alive[5:, -1] = False


def update(model, on_gpu, epochs=2):
    """Update; return what the host waited for and sent, parameters, moments of Adam, and statistics."""
    model.num_epochs = epochs
    with pretend_gpu() if on_gpu else nullcontext():
        model._update()
        asked = sum(fake_gpu.waits.values()), sum(fake_gpu.sends.values())
        state = {name: unwrap(value).clone() for name, value in model.policy.state_dict().items()}
        moments = [unwrap(value).clone() for each in model.optimizer.state.values() for value in each.values()]
        return asked, state, moments, dict(model.iteration_stats)


@pytest.mark.parametrize("stage", ["teacher", "both"])
def test_more_gradient_steps_ask_a_gpu_no_more(learner, stage):
    asked = [update(learner(True, stage), True, epochs)[0] for epochs in (1, 3)]
    assert asked[0] == asked[1]


def test_imitation_asks_a_gpu_no_more_for_more_steps(learner, monkeypatch):
    asked = []
    for steps in (2, 6):
        model = learner(True, "imitation")
        monkeypatch.setitem(vars(model.distillation), "gradient_steps", steps)
        asked.append(update(model, True)[0])
    assert asked[0] == asked[1]


def test_a_rollout_asks_a_gpu_nothing_between_its_start_and_its_end(learner, monkeypatch):
    """Its means of reward terms, outcomes and returns are read after the last step."""
    model, asked = learner(True), []
    noise, returns = model._noise, model.rollout_buffer.compute_returns_and_advantages
    with pretend_gpu():
        monkeypatch.setattr(model, "_noise", lambda *sizes: (noise(*sizes), fake_gpu.waits.clear())[0])
        end = lambda value: asked.append(dict(fake_gpu.waits)) or returns(value)  # noqa: E731
        monkeypatch.setattr(model.rollout_buffer, "compute_returns_and_advantages", end)
        model.env.task.reset()
        fake_gpu.sends.clear()
        model._collect_rollout()
    assert asked == [{}] and model.rollout_buffer.pos == model.num_steps


@pytest.mark.parametrize("stage", list(MIXES))
def test_a_gpu_learns_what_the_cpu_learns(learner, stage):
    """Of episodes that all last: with others the parts differ in size. Adam is fused there, its rate float32."""
    found = []
    for on_gpu in (False, True):
        model = learner(on_gpu, stage)
        with pretend_gpu() if on_gpu else nullcontext():
            fill(model, ended=False)
        found.append(update(model, on_gpu))
    (_, here, _, stats), (_, there, _, others) = found
    for name, value in here.items():
        torch.testing.assert_close(there[name], value, rtol=1e-5, atol=1e-6)
    assert set(stats) == set(others)
    for name, value in stats.items():
        assert others[name] == pytest.approx(value, rel=1e-4, abs=1e-6), name


def test_steps_after_the_limit_of_divergence_have_no_effect(learner):
    """On the CPU they are not taken: Adam counts as many steps on a GPU, and the rate follows as far."""
    found = []
    for on_gpu in (False, True):
        model = learner(on_gpu, target_kl=TARGET)
        with pretend_gpu() if on_gpu else nullcontext():
            fill(model, ended=False)
        stats = update(model, on_gpu, epochs=6)[3]
        (steps,) = {int(each["step"]) for each in model.optimizer.state.values()}
        found.append((steps, stats["kl"], stats["lr"]))
    assert 1 < found[0][0] < 6 * 4
    assert found[1] == (found[0][0], pytest.approx(found[0][1], rel=1e-3), found[0][2])


@pytest.mark.parametrize("on_gpu", [False, True])
@pytest.mark.filterwarnings("ignore:for .* copying from a non-meta parameter")
def test_a_checkpoint_of_one_device_goes_on_on_the_other(learner, tmp_path, on_gpu):
    """It has one form: Adam's step, moments and rate come through."""
    model, other = learner(on_gpu), learner(not on_gpu)
    moments, rate = update(model, on_gpu)[2], model.learning_rate
    with pretend_gpu():
        model.save(tmp_path / "last.zip")
        data = read_checkpoint(tmp_path / "last.zip")
        other._load_state(tmp_path / "last.zip", data)
    stored = {name.rpartition("/")[2] for name in data.tensors if name.startswith("optimizer/")}
    assert stored == {"step", "exp_avg", "exp_avg_sq"}
    found = [unwrap(value) for each in other.optimizer.state.values() for value in each.values()]
    assert len(found) == len(moments) and all(map(torch.equal, found, moments))
    assert other.learning_rate == rate and unwrap(other.optimizer.param_groups[0]["lr"]) == pytest.approx(rate)


@pytest.mark.parametrize("stage", list(MIXES))
def test_recorded_gradient_steps_have_the_numbers_of_plain_ones(learner, stage, monkeypatch):
    """Also those without effect, with episodes that ended early."""
    found, recorders = [], []
    monkeypatch.setattr(
        cuda_graph, "make_recorder", lambda device: recorders.append(SoftwareRecorder()) or recorders[-1]
    )
    for graphs in (False, True):
        model = learner(True, stage, cuda_graphs=graphs, target_kl=TARGET)
        found.append([update(model, True, epochs=3), update(model, True, epochs=3)])
        steps = {int(each["step"]) for each in model.optimizer.state.values()}
        assert stage == "imitation" or max(steps) < 2 * 3 * 4
    assert [(recorder.warmed, recorder.recorded) for recorder in recorders] == [(1, 1), (1, 1)]
    for plain, graphed in zip(*found, strict=True):
        for name, value in plain[1].items():
            assert torch.equal(graphed[1][name], value), name
        assert all(torch.equal(one, other) for one, other in zip(plain[2], graphed[2], strict=True))
        assert plain[3] == graphed[3]
