"""The task's tensors live on the engine's device: shown on a pretended GPU, which refuses what a real one would.

Nothing is left behind on the CPU, every number is the one of a run on the CPU, and how often the host waits is counted.
"""

import pytest
import torch

from dexgrasp import configs

pytest.importorskip("mujoco_warp", reason="needs the extra `gpu`")

import warp as wp

from dexgrasp.sim.engine.config import WarpCfg
from dexgrasp.sim.envs.trial_streams import TrialStreams, make_task
from dexgrasp.sim.randomization.episode_draws import RandomizationCfg
from dexgrasp.sim.sensors.config import CameraCfg
from dexgrasp.sim.task.grasp_task import TaskCfg
from tests.helpers import fake_gpu as pretend_gpu
from tests.helpers.fake_gpu import GPU, OnGpu, unwrap, wrap

ROOM = WarpCfg(nconmax=128, njmax=400)
STEPS = 10
WAITS_PER_STEP = 6
"""Of the whole task: masks of rows that something happens to. Physics waits for nothing."""


@pytest.fixture
def gpu(monkeypatch):
    """Warp on the CPU whose arrays are tensors of the pretended GPU."""
    to_torch, from_torch, device = wp.to_torch, wp.from_torch, wp.get_device("cpu")
    with pretend_gpu.pretend_gpu():
        monkeypatch.setattr(wp, "to_torch", lambda *args, **options: wrap(to_torch(*args, **options)))
        monkeypatch.setattr(wp, "from_torch", lambda tensor, **options: from_torch(unwrap(tensor), **options))
        monkeypatch.setattr(wp, "device_to_torch", lambda _: GPU)
        monkeypatch.setattr(wp, "get_device", lambda _=None: device)
        monkeypatch.setattr("dexgrasp.sim.engine.warp.warp_device", lambda _: str(GPU))
        yield
    assert pretend_gpu.waits  # the pretence was at work


def options(household, balanced, camera="first_frame", randomization="train"):
    cfg = TaskCfg(grasp_s=0.4, lift_s=0.2, hold_s=0.2, camera=configs.load_option(CameraCfg, "camera", camera))
    domain = configs.load_option(RandomizationCfg, "randomization", randomization)
    shared = {"objects": household, "physics": balanced, "disturbance": "mixed", "seed": 3}
    return shared | {"task": cfg, "randomization": domain, "engine": "warp", "warp": ROOM}


def play(task, steps=STEPS):
    """All that a run shows, on the CPU."""
    streams = TrialStreams(task)
    shown = [streams.reset()]
    rng = torch.Generator().manual_seed(0)
    for _ in range(steps):
        step = streams.step(torch.randn(task.num_envs, task.num_actions, generator=rng))
        shown += [step.obs, {"reward": step.reward, "terminated": step.terminated, "truncated": step.truncated}]
        shown += [step.info["final_obs"]] if "final_obs" in step.info else []
    state = {name: getattr(task.engine.state, name) for name in ("joint_pos", "object_pos_w", "palm_quat_w")}
    return [*shown, state], step.info["outcomes"], task.outcomes()


@pytest.mark.parametrize("camera", ["first_frame", "tracked_updated"])
def test_a_run_on_a_gpu_is_the_run_on_the_cpu(request, household, balanced, camera):
    """Delayed, noisy, disturbed; with episodes that end and begin."""
    given = options(household, balanced, camera)
    here = play(make_task(3, **given), 18)
    request.getfixturevalue("gpu")
    task = make_task(3, **given)
    there = play(task, 18)
    assert task.device == GPU
    for ours, theirs in zip(there[0], here[0], strict=True):
        for name, value in ours.items():
            assert isinstance(value, OnGpu), name
            assert torch.equal(value.inner, theirs[name]), name
    assert there[1:] == here[1:]


def test_a_step_of_physics_waits_for_nothing_and_one_of_the_task_for_little(gpu, household, balanced):
    task = make_task(3, **options(household, balanced))
    task.reset()
    action = torch.zeros(3, task.num_actions, device=task.device)
    pretend_gpu.waits.clear()
    state = task.engine.state
    task.engine.step(state.joint_pos + 0.01, state.palm_pos_w.clone(), state.palm_quat_w.clone(), task.step_s)
    assert not pretend_gpu.waits
    for _ in range(4):
        task.step(action)
    assert pretend_gpu.waits.total() <= 4 * WAITS_PER_STEP, pretend_gpu.waits


def test_tensors_that_stay_behind_on_the_cpu_are_found(gpu):
    """The pretence itself."""
    there = torch.zeros(3, device=GPU)
    with pytest.raises(RuntimeError, match="same device"):
        there + torch.ones(3)
    with pytest.raises(TypeError, match="numpy"):
        there.numpy()
    assert (there + 1.0).tolist() == [1.0, 1.0, 1.0]
    assert pretend_gpu.waits
