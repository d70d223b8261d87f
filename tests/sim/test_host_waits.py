"""A control step asks a GPU nothing and sends it nothing, and its numbers are those of the CPU.

On the CPU the task computes the rows that something happens to; on a GPU it computes all and keeps what counts. Both
are played through whole episodes with the physics of the CPU engine, on a pretended GPU that counts what would wait.
"""

import json

import numpy as np
import pytest
import torch

from dexgrasp import configs
from dexgrasp.sim.engine.factory import make_engine
from dexgrasp.sim.envs.trial_streams import TrialStreams, make_task
from dexgrasp.sim.randomization.episode_draws import RandomizationCfg
from dexgrasp.sim.sensors.config import CameraCfg
from dexgrasp.sim.task.disturbances import DISTURBANCES, MIXED
from dexgrasp.sim.task.episode_clock import EpisodeClock
from dexgrasp.sim.task.grasp_task import TaskCfg
from tests.helpers import fake_gpu
from tests.helpers.fake_gpu import GPU, EngineOnGpu, OnGpu, pretend_gpu, unwrap

ENVS = 3
CAMERAS = ("published", "first_frame", "latest", "tracked", "tracked_updated")
CASES = [(camera, MIXED) for camera in CAMERAS] + [("first_frame", kind) for kind in DISTURBANCES]
QUICK = ("tracked_updated", MIXED)


@pytest.fixture
def on_gpu(monkeypatch):
    """Tasks whose engine lies on the pretended GPU."""
    monkeypatch.setattr("dexgrasp.sim.task.grasp_task.make_engine", lambda *args: EngineOnGpu(make_engine(*args)))
    with pretend_gpu():
        yield


def build(household, balanced, camera="first_frame", disturbance=MIXED, warp=None, **phases):
    camera = configs.load_option(CameraCfg, "camera", camera)
    cfg = TaskCfg(**({"grasp_s": 0.45, "lift_s": 0.15, "hold_s": 0.2} | phases), camera=camera)
    domain = configs.load_option(RandomizationCfg, "randomization", "train")
    shared = {"objects": household, "physics": balanced, "num_envs": ENVS, "num_threads": 1, "seed": 3, "warp": warp}
    return make_task(**shared, task=cfg, randomization=domain, disturbance=disturbance)


def actions(task, steps):
    generator = torch.Generator().manual_seed(0)
    return (0.3 * torch.randn(steps, ENVS, task.num_actions, generator=generator)).to(task.device).unbind()


def shown(step):
    return step.obs | {"reward": step.reward, "terminated": step.terminated, "truncated": step.truncated}


def episode(task):
    """All that the steps of one episode show, and its outcomes; nothing is read before the end."""
    obs, given = task.reset(), actions(task, task.episode_steps)
    fake_gpu.waits.clear()
    fake_gpu.sends.clear()
    steps = [task.step(action) for action in given]
    asked = fake_gpu.waits | fake_gpu.sends
    assert not asked, asked
    parts = [obs, *(shown(step) | dict(step.info["terms"]) for step in steps)]
    return parts, task.outcomes()


def assert_equal(ours, theirs):
    assert ours[1] == theirs[1]
    for step, (one, other) in enumerate(zip(ours[0], theirs[0], strict=True)):
        assert set(one) == set(other)
        for name, value in one.items():
            same = torch.equal(unwrap(value), other[name]) if isinstance(value, OnGpu) else value == other[name]
            assert same, (step, name, value, other[name])


@pytest.mark.parametrize(
    ("camera", "disturbance"),
    [case if case == QUICK else pytest.param(*case, marks=pytest.mark.slow) for case in CASES],
)
def test_an_episode_asks_nothing_and_has_the_numbers_of_the_cpu(request, household, balanced, camera, disturbance):
    here = episode(build(household, balanced, camera, disturbance))
    request.getfixturevalue("on_gpu")
    task = build(household, balanced, camera, disturbance)
    assert task.device == GPU
    assert_equal(episode(task), here)


def following(task, steps=40):
    """All that a run shows whose episodes are followed by others."""
    streams, outcomes = TrialStreams(task), []
    parts = [streams.reset()]
    for action in actions(task, steps):
        step = streams.step(action)
        outcomes += step.info["outcomes"]
        parts.append(shown(step))
    return parts, outcomes


@pytest.mark.slow
def test_episodes_that_follow_each_other_have_the_numbers_of_the_cpu(request, household, balanced):
    here = following(build(household, balanced, "tracked_updated"))
    assert here[1]
    request.getfixturevalue("on_gpu")
    assert_equal(following(build(household, balanced, "tracked_updated")), here)


def test_an_object_is_moved_once_where_a_finger_comes_near(request, household, balanced):
    """The rows that are moved, and by how much; the others stay."""

    def moved(task):
        task.reset()
        state, shifts = task.engine.state, []
        for near in ([False] * ENVS, [True, False, True], [True] * ENVS, [True] * ENVS):
            before = state.object_pos_w.clone()
            distance = torch.where(torch.tensor(near), 0.0, 1.0).to(task.device)
            task.disturber.apply(task.engine, task.draws, task.phases, distance, task._points_o)
            shifts.append(unwrap(state.object_pos_w - before))
        return torch.stack(shifts)

    here = moved(build(household, balanced, disturbance="shift5"))
    happened = here.abs().sum(dim=2) > 0
    assert happened.tolist() == [[False] * 3, [True, False, True], [False, True, False], [False] * 3]
    request.getfixturevalue("on_gpu")
    assert torch.equal(moved(build(household, balanced, disturbance="shift5")), here)


def test_physics_that_fails_ends_its_episode_alone_and_is_dumped_at_the_end(
    on_gpu, household, balanced, tmp_path_factory
):
    task = build(household, balanced, grasp_s=0.2, lift_s=0.1, hold_s=0.1)
    task.nan_guard.dump_dir = tmp_path_factory.mktemp("dump")
    task.reset()
    fake_gpu.waits.clear()
    seen = []
    for number, action in enumerate(actions(task, task.episode_steps)):
        if number == 2:
            task.engine.batch.qpos[1, 3] = np.nan
        seen.append(task.step(action))
    assert not fake_gpu.waits, fake_gpu.waits
    assert [step.terminated.tolist() for step in seen[:3]] == [[False] * 3, [False] * 3, [False, True, False]]
    assert all(torch.isfinite(value).all() for step in seen for value in (*step.obs.values(), step.reward))
    assert [outcome.failure == "unstable" for outcome in task.outcomes()] == [False, True, False]
    (dump,) = task.nan_guard.dump_dir.iterdir()
    with np.load(dump) as file:
        assert file["actions"].shape == (3, task.num_actions)
        assert json.loads(str(file["identity"]))["object"] == task.objects[1]


def test_an_action_that_is_not_finite_is_reported_when_the_outcomes_are(on_gpu, household, balanced):
    task = build(household, balanced)
    task.reset()
    action = torch.zeros(ENVS, task.num_actions)
    action[2, 7] = np.nan
    task.step(action.to(GPU))
    with pytest.raises(FloatingPointError, match=r"not finite in environments \[2\]"):
        task.outcomes()
    task.outcomes()  # reported once


def test_the_clock_of_the_host_shows_what_that_of_the_device_does(on_gpu):
    clock = EpisodeClock(ENVS, GPU)
    clock.tick()
    clock.tick()
    clock.reset(torch.tensor([1], device=GPU))
    clock.set_since_pregrasp(torch.tensor([2], device=GPU), torch.tensor([-7], device=GPU))
    fake_gpu.waits.clear()
    clock.tick()
    assert not fake_gpu.waits
    assert clock.since_reset.tolist() == clock.host_since_reset.tolist() == [3, 1, 3]
    assert clock.since_pregrasp.tolist() == clock.host_since_pregrasp.tolist() == [3, 1, -6]
