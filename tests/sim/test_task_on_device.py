"""The task's tensors live on the engine's device: shown on a pretended GPU, which refuses what a real one would.

Nothing is left behind on the CPU, every number is the one of a run on the CPU, and in a step the host never waits.
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


@pytest.mark.slow
@pytest.mark.parametrize("camera", ["first_frame", "tracked_updated"])
def test_a_run_on_a_gpu_is_the_run_on_the_cpu(request, household, balanced, camera):
    """Delayed, noisy, disturbed; with episodes that end and begin. tests/sim/test_host_waits.py plays one, quickly."""
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


def test_a_step_waits_for_nothing_and_nothing_is_sent(gpu, household, balanced):
    """A control step of the whole task, with physics; tests/sim/test_host_waits.py has all cameras and disturbances."""
    task = make_task(3, **options(household, balanced))
    task.reset()
    assert pretend_gpu.waits and pretend_gpu.sends  # a reset does
    action = torch.zeros(3, task.num_actions, device=task.device)
    pretend_gpu.waits.clear()
    pretend_gpu.sends.clear()
    for _ in range(3):
        task.step(action)
    assert not pretend_gpu.waits | pretend_gpu.sends


def test_tensors_that_stay_behind_on_the_cpu_are_found(gpu):
    """The pretence itself."""
    there = torch.zeros(3, device=GPU)
    with pytest.raises(RuntimeError, match="same device"):
        there + torch.ones(3)
    with pytest.raises(TypeError, match="numpy"):
        there.numpy()
    assert (there + 1.0).tolist() == [1.0, 1.0, 1.0]
    assert pretend_gpu.waits


@pytest.mark.parametrize(
    "ask",
    [
        lambda x: bool(x.any()),
        lambda x: x.nonzero(),
        lambda x: x[x > 0],
        lambda x: x.__setitem__(x > 0, torch.zeros(2, device=GPU)),
        lambda x: x.masked_select(x > 0),
        lambda x: x.cpu(),
        lambda x: torch.linalg.solve(torch.eye(3, device=GPU), x),
        lambda x: x.sum().item(),
    ],
)
def test_what_a_gpu_is_waited_for_is_counted(gpu, ask):
    there = torch.tensor([0.0, 1.0, 2.0], device=GPU)
    pretend_gpu.waits.clear()
    ask(there)
    assert pretend_gpu.waits


@pytest.mark.parametrize(
    "send",
    [
        lambda x: torch.tensor([1.0], device=GPU),
        lambda x: x.new_tensor([1.0]),
        lambda x: torch.ones(3).to(GPU),
        lambda x: x.copy_(torch.ones(3)),
        lambda x: x[[0, 2]],
        lambda x: x[torch.tensor([0, 2])],
    ],
)
def test_what_is_sent_to_a_gpu_is_counted(gpu, send):
    there = torch.zeros(3, device=GPU)
    pretend_gpu.sends.clear()
    send(there)
    assert pretend_gpu.sends
