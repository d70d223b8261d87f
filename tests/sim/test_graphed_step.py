"""A control step is repeated by CUDA graphs with the numbers of a plain one, over whole episodes.

The graphs are in software (tests/helpers/software_graph.py), on a pretended GPU with the physics of the CPU engine: as
graphs of a GPU they repeat operations on the memory of the recording, and run no Python.
"""

from dataclasses import replace

import pytest
import torch

from dexgrasp.sim.engine import cuda_graph
from dexgrasp.sim.engine.config import WarpCfg
from dexgrasp.sim.engine.factory import make_engine
from dexgrasp.sim.envs.trial_streams import make_task
from dexgrasp.sim.task.grasp_task import GraspTask
from tests.helpers.fake_gpu import GPU, EngineOnGpu, OnGpu, pretend_gpu, unwrap, wrap
from tests.helpers.software_graph import SoftwareRecorder
from tests.sim.test_host_waits import CASES, assert_equal, build, shown
from tests.sim.test_task_on_device import gpu, options  # noqa: F401

QUICK = {"grasp_s": 0.15, "lift_s": 0.1, "hold_s": 0.1}


@pytest.fixture
def recorder(monkeypatch):
    """Graphs in software for tasks of the pretended GPU."""
    made = SoftwareRecorder()
    monkeypatch.setattr(cuda_graph, "make_recorder", lambda device: made)
    return made


@pytest.fixture
def on_gpu(monkeypatch):
    monkeypatch.setattr("dexgrasp.sim.task.grasp_task.make_engine", lambda *args: EngineOnGpu(make_engine(*args)))
    with pretend_gpu():
        yield


def episodes(task, number=3):
    """All that a plain, a recorded and a replayed episode show, of different actions, and their outcomes."""
    generator, parts, outcomes = torch.Generator().manual_seed(2), [], []
    for _ in range(number):
        parts.append(task.reset())
        task.disturber._has_force = task.disturber._has_shift = True  # as in a large batch
        for _ in range(task.episode_steps):
            action = 0.3 * torch.randn(task.num_envs, task.num_actions, generator=generator)
            grip = torch.rand(task.num_envs, generator=generator)
            step = task.step(*(wrap(value) if task.device.type != "cpu" else value for value in (action, grip)))
            parts.append(shown(step) | dict(step.info["terms"]))
        outcomes += task.outcomes()
    return parts, outcomes


class Moving:
    """A state of two parts, one of which is that of the step before, and what the host counts."""

    def __init__(self, device):
        self.goal, self.before = (torch.zeros(2, device=device),), (torch.ones(2, device=device),)
        self.steps, self.seen = 0, torch.zeros(1)

    def step(self, inputs):
        self.before, self.goal = self.goal, (self.goal[0] + inputs["by"],)
        self.steps, self.seen = self.steps + 1, self.seen + 2
        return {"moved": self.goal[0] - self.before[0], "goal": self.goal[0]}


Moving.__module__ = "dexgrasp.sim"


def play(moving, graphed=None, size=2):
    """Outputs, state and what the host counts in episodes of two steps, by a graphed function or by plain calls."""
    found = []
    for episode in range(3):
        moving.steps, moving.seen = 0, torch.zeros(1)
        moving.goal = (torch.full((size,), float(episode), device=GPU),)
        for step in range(2):
            given = {"by": wrap(1.0 + step + torch.arange(size) ** episode)}
            made = moving.step(given) if graphed is None else graphed(given, moving.steps)
            state = (*made.values(), moving.goal[0], moving.before[0])
            found.append([*(part.inner.tolist() for part in state), moving.steps, float(moving.seen)])
    return found


def test_what_a_function_assigns_and_counts_is_there_after_a_replay(recorder):
    with pretend_gpu():
        moving = Moving(GPU)
        found = play(moving, cuda_graph.GraphedFunction(moving.step, GPU, moving))
        assert found == play(Moving(GPU))
    assert found[-1] == [[2, 3], [5, 7], [5, 7], [3, 4], 2, 4]
    assert (recorder.warmed, recorder.recorded) == (2, 2)


def test_graphs_that_do_not_fit_are_recorded_anew_with_one_line(recorder, caplog):
    with pretend_gpu(), caplog.at_level("INFO", "dexgrasp"):
        plain, moving = Moving(GPU), Moving(GPU)
        graphed = cuda_graph.GraphedFunction(moving.step, GPU, moving)
        for size in (2, 3):
            for each in (plain, moving):
                each.before = (torch.zeros(size, device=GPU),)
            assert play(moving, graphed, size) == play(plain, None, size)
    assert (recorder.warmed, recorder.recorded) == (4, 4)
    assert [record.message for record in caplog.records] == [
        "the CUDA graphs of Moving.step are recorded anew: the inputs have another shape"
    ]


def test_without_a_gpu_every_call_is_a_plain_one():
    moving = Moving("cpu")
    graphed = cuda_graph.GraphedFunction(moving.step, torch.device("cpu"), moving)
    assert graphed({"by": torch.ones(2)})["goal"].tolist() == [1, 1]
    assert [graphed({"by": torch.ones(2)})["goal"].tolist() for _ in range(2)] == [[2, 2], [3, 3]]


@pytest.mark.parametrize(
    ("camera", "disturbance", "phases"),
    [("first_frame", "mixed", QUICK), *(pytest.param(*case, {}, marks=pytest.mark.slow) for case in CASES)],
)
def test_replayed_episodes_have_the_numbers_of_plain_ones(
    request, household, balanced, recorder, monkeypatch, camera, disturbance, phases
):
    here = episodes(build(household, balanced, camera, disturbance, **phases))
    request.getfixturevalue("on_gpu")
    calls = []
    advance = GraspTask._advance
    monkeypatch.setattr(GraspTask, "_advance", lambda task, given: calls.append(1) or advance(task, given))
    task = build(household, balanced, camera, disturbance, warp=WarpCfg(cuda_graphs=True), **phases)
    assert_equal(episodes(task), here)
    assert len(calls) == 2 * task.episode_steps
    assert recorder.warmed == task.episode_steps < recorder.recorded


@pytest.mark.slow
def test_replayed_episodes_on_warp_have_the_numbers_of_plain_ones(request, household, balanced, recorder):
    """The launch of Warp's physics lies between the graphs of torch; here it is Warp's CPU backend."""
    given = options(household, balanced, "tracked_updated")
    given["task"] = replace(given["task"], **QUICK)
    given["auto_reset"] = False
    request.getfixturevalue("gpu")
    plain = episodes(make_task(3, **given))
    given["warp"] = replace(given["warp"], cuda_graphs=True)
    task = make_task(3, **given)
    found = episodes(task)
    assert recorder.warmed == task.episode_steps < recorder.recorded
    assert found[1] == plain[1]
    for one, other in zip(found[0], plain[0], strict=True):
        for name, value in one.items():
            theirs = other[name]
            assert torch.equal(unwrap(value), unwrap(theirs)) if isinstance(value, OnGpu) else value == theirs, name


@pytest.fixture
def cuda():
    if not torch.cuda.is_available():
        pytest.fail("no NVIDIA GPU here")
    return torch.device("cuda:0")


@pytest.mark.gpu
def test_a_gpu_waits_for_nothing_in_a_replayed_episode_and_grasps_as_in_a_plain_one(cuda, household, balanced):
    given = options(household, balanced, randomization="off")
    given |= {"task": replace(given["task"], grasp_s=1.8, lift_s=0.8, hold_s=0.5), "disturbance": "none"}
    task = make_task(64, **given | {"warp": replace(given["warp"], cuda_graphs=True), "in_order": True})
    successes = []
    for _ in range(3):
        task.reset(range(64))
        torch.cuda.set_sync_debug_mode("error" if len(successes) == 2 else "default")
        try:
            for _ in range(task.episode_steps):
                task.step(torch.zeros(64, task.num_actions, device=cuda))
        finally:
            torch.cuda.set_sync_debug_mode("default")
        successes.append(sum(outcome.success for outcome in task.outcomes()))
    assert successes[0] > 32 and max(successes) - min(successes) <= 4
