"""Physics that fails: counted once, kept away from the other environments, and written down so that it replays."""

import json

import numpy as np
import pytest
import torch

from dexgrasp.sim.task.grasp_task import GraspTask, TaskCfg
from dexgrasp.sim.task.nan_guard import NanGuard

CFG = TaskCfg(grasp_s=0.4, lift_s=0.2, hold_s=0.1)
BROKEN, AT = 1, 5
TRIALS = [0, 1, 2]


@pytest.fixture(scope="module")
def make(allegro, household, balanced):
    def build(**options):
        return GraspTask(CFG, allegro, household, balanced, 3, num_threads=1, in_order=True, **options)

    return build


def actions(step):
    return torch.from_numpy(np.random.default_rng(step).normal(0, 0.3, (3, 22)).astype(np.float32))


def play(task, steps, broken=None, field="qpos"):
    """Results of the steps; before step AT the environment `broken` gets a NaN."""
    results = []
    for step in range(steps):
        if step == AT and broken is not None:
            getattr(task.engine.batch, field)[broken, 3] = np.nan
        results.append(task.step(actions(step)))
    return results


@pytest.fixture(scope="module", params=["qpos", "qvel"])
def broken_run(request, make, tmp_path_factory):
    task = make(auto_reset=False)
    task.nan_guard.dump_dir = tmp_path_factory.mktemp("dump")
    task.reset(TRIALS)
    return task, play(task, task.episode_steps, BROKEN, request.param)


@pytest.fixture(scope="module")
def healthy_run(make):
    task = make(auto_reset=False)
    task.reset(TRIALS)
    return task, play(task, task.episode_steps)


def test_the_broken_episode_terminates_at_once_and_is_counted_once(broken_run):
    task, results = broken_run
    assert [result.terminated[BROKEN].item() for result in results[: AT + 1]] == [False] * AT + [True]
    assert task.nan_guard.counts == {"not_finite": 1, "left_workspace": 0}


def test_the_broken_episode_is_reported_as_unstable_whatever_happens_afterwards(broken_run):
    task, results = broken_run
    outcome = task.outcomes()[BROKEN]
    assert (outcome.trial, outcome.success, outcome.failure) == (TRIALS[BROKEN], False, "unstable")
    assert np.isfinite([outcome.lift_m, outcome.slip_m, outcome.penetration_m]).all()
    assert [o.failure for o in results[AT].info["outcomes"]] == ["unstable"]


def test_the_others_go_on_bit_for_bit(broken_run, healthy_run):
    others = [0, 2]
    for one, other in zip(broken_run[1], healthy_run[1], strict=True):
        for group in one.obs:
            assert torch.equal(one.obs[group][others], other.obs[group][others])
        assert torch.equal(one.reward[others], other.reward[others])


def test_nothing_that_is_not_finite_reaches_observations_rewards_or_logs(broken_run):
    for result in broken_run[1]:
        assert all(torch.isfinite(group).all() for group in result.obs.values())
        assert torch.isfinite(result.reward).all()
        assert np.isfinite(list(result.info["terms"].values())).all()


def test_one_dump_is_written_and_its_actions_replay_the_episode(broken_run, make):
    task, _ = broken_run
    (dump,) = task.nan_guard.dump_dir.iterdir()
    with np.load(dump) as file:
        kept, identity = file["actions"], json.loads(str(file["identity"]))
    assert identity == {"trial": 1, "seed": 0, "object": task.objects[BROKEN], "steps": AT + 1}
    np.testing.assert_array_equal(kept, torch.stack([actions(step)[BROKEN] for step in range(AT + 1)]).numpy())
    again = make(auto_reset=False)
    again.reset([TRIALS[BROKEN]] * 3)
    for step in range(AT):
        again.step(torch.from_numpy(kept[step]).expand(3, -1))
    again.engine.batch.qpos[0, 3] = np.nan
    assert again.step(torch.from_numpy(kept[AT]).expand(3, -1)).terminated.tolist() == [True, False, False]


def test_with_auto_reset_the_broken_row_opens_a_new_episode(make):
    task = make(auto_reset=True)
    task.reset(TRIALS)
    results = play(task, AT + 1, BROKEN)
    assert results[-1].terminated.tolist() == [False, True, False]
    assert task.steps_since_reset.tolist() == [AT + 1, 0, AT + 1]
    assert torch.isfinite(results[-1].info["final_obs"]["teacher"]).all()
    assert bool(task.engine.finite().all())


def test_an_object_that_leaves_the_workspace_ends_the_episode_and_is_counted_once(make):
    task = make(auto_reset=False)
    task.reset(TRIALS)
    task.engine.move_object(torch.tensor([2]), torch.tensor([[0.5, 0.0, 0.2]]))
    results = play(task, 3)
    assert results[0].terminated.tolist() == [False, False, True]
    assert task.nan_guard.counts == {"not_finite": 0, "left_workspace": 1}


def test_actions_that_are_not_finite_are_refused_with_their_environments(make):
    task = make()
    task.reset(TRIALS)
    bad = torch.zeros(3, 22)
    bad[2, 4] = torch.nan
    with pytest.raises(FloatingPointError, match=r"not finite in environments \[2\]"):
        task.step(bad)


def test_without_a_folder_no_dump_is_written(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    guard = NanGuard(1, 3, 2)
    guard.dump(0, 0, 0, "mug", 2)
    assert list(tmp_path.iterdir()) == []


def test_only_the_first_failure_is_dumped(tmp_path):
    guard = NanGuard(2, 3, 2)
    guard.dump_dir = tmp_path
    guard.record(torch.tensor([0, 0]), torch.tensor([[1.0, 2.0], [3.0, 4.0]]))
    guard.dump(1, 11, 0, "mug", 1)
    guard.dump(0, 10, 0, "box", 1)
    with np.load(tmp_path / "unstable.npz") as file:
        assert json.loads(str(file["identity"]))["trial"] == 11
        assert file["actions"].tolist() == [[3.0, 4.0]]


def test_actions_are_kept_by_step_and_forgotten_at_a_reset(tmp_path):
    guard = NanGuard(2, 3, 1)
    for step in range(3):
        guard.record(torch.tensor([step, step]), torch.tensor([[1.0 + step], [10.0 + step]]))
    guard.reset(torch.tensor([0]))
    guard.dump_dir = tmp_path
    guard.dump(1, 0, 0, "mug", 3)
    with np.load(tmp_path / "unstable.npz") as file:
        assert file["actions"].ravel().tolist() == [10.0, 11.0, 12.0]
    assert (guard._actions[0] == 0).all()
