"""A second attempt: what the hand feels, the way back to another pre-grasp, and how the trial is then judged."""

import math

import pytest
import torch

from dexgrasp import assets, configs
from dexgrasp.perception.transforms import quat_rotate
from dexgrasp.policies.agents.registry import make_policy
from dexgrasp.policies.evaluation.config import EvaluateCfg, apply_policy_config, make_task
from dexgrasp.policies.evaluation.episodes import RegraspRunner, play
from dexgrasp.sim.task.regrasp import (
    ABOVE_M,
    ASIDE_M,
    GRIP_THRESHOLD_HOLD,
    MIN_VISIBLE_FRACTION,
    OPEN_S,
    PALM_M_S,
    REST_S,
    grip_confidence,
    lowest_height_m,
)


class Scripted:
    """The scripted grasp with a sense of touch that is made up."""

    def __init__(self, task, grip):
        self._action, self.grip = torch.zeros(task.num_envs, task.num_actions), grip

    def reset(self, trials):
        """Nothing to forget."""

    def act(self, obs):
        """No correction."""
        return self._action


@pytest.fixture
def make(household, allegro):
    def build(rows, *words, disturbance="none"):
        words = [
            "policy=synergy",
            "camera=d435",
            "physics=balanced",
            "num_threads=1",
            "task.hold_s=0.5",
            *words,
        ]
        cfg = apply_policy_config(configs.load(EvaluateCfg, "evaluate", words))
        return make_task(cfg, allegro, household, disturbance, rows)

    return build


def until(task, actor, obs, arrived):
    """Steps until `arrived` is true of the step since the pre-grasp."""
    while not arrived(int(task.steps_since_pregrasp[0])):
        obs = actor.step(obs).obs
    return obs


def lifted(task, actor, trial):
    """A trial to the end of its lift, where the camera sees nothing of the object any more."""
    obs = until(task, actor, task.reset([trial]), lambda step: step == task.grasp_steps + task.lift_steps)
    task.object_camera.visible_fraction[:] = MIN_VISIBLE_FRACTION / 2
    return obs


def test_the_grip_is_the_weaker_of_thumb_and_strongest_finger(allegro):
    contact = torch.zeros(4, len(allegro.contact_bodies))
    thumb, fingers = (mask.nonzero()[0] for mask in (allegro.thumb_mask, allegro.finger_mask))
    contact[0, thumb[0]] = 0.9  # the thumb alone
    contact[1, thumb[-1]], contact[1, fingers[2]], contact[1, fingers[5]] = 0.6, 0.2, 0.8
    contact[2, 0], contact[2, fingers[0]] = 1.0, 1.0  # the palm is neither
    contact[3, thumb[0]], contact[3, fingers[0]] = 0.5, 0.4
    torch.testing.assert_close(grip_confidence(contact, allegro), torch.tensor([0.0, 0.6, 0.0, 0.4]))


def test_an_empty_hand_goes_up_and_aside_and_on_to_a_new_pregrasp(make):
    task = make(1)
    actor = RegraspRunner(task, Scripted(task, torch.zeros(1)), attempts=2)
    obs = lifted(task, actor, 1)
    start_w, quat_w = task.control.palm_pos_w[0].clone(), task.control.palm_quat_w[0].clone()
    open_pose = task.control.style.open_pose[0].clone()
    up = math.ceil(max((ABOVE_M - float(start_w[2])) / PALM_M_S, OPEN_S) / task.step_s)
    across = math.ceil(ASIDE_M / PALM_M_S / task.step_s)
    obs = actor.step(obs).obs
    assert int(task.steps_since_pregrasp[0]) == 1 - (up + across + round(REST_S / task.step_s))
    assert task.phases.name(0) == "retreat" and task.outcome_tracker.attempts.tolist() == [2]
    for _ in range(up - 1):
        obs = actor.step(obs).obs
    torch.testing.assert_close(task.control.palm_pos_w[0], torch.tensor([*start_w[:2], ABOVE_M], dtype=torch.float64))
    torch.testing.assert_close(task.engine.state.joint_target[0], open_pose)
    for _ in range(across):
        obs = actor.step(obs).obs
    back_w = -quat_rotate(quat_w, quat_w.new_tensor([0.0, 0.0, 1.0]))[:2]
    torch.testing.assert_close(task.control.palm_pos_w[0, :2], start_w[:2] + ASIDE_M * back_w / back_w.norm())
    torch.testing.assert_close(task.control.palm_quat_w[0], quat_w)
    obs = until(task, actor, obs, lambda step: step == 0)
    trajectory, palm_w = task.control.palm_trajectory, task.engine.state.palm_pos_w[0]
    torch.testing.assert_close(trajectory.palm_pos_w, trajectory.start_pos_w)
    assert float(trajectory.travelled_m[0]) == 0.0 < float(trajectory.depth_m[0])
    assert (palm_w - trajectory.start_pos_w[0]).norm() < 0.01
    assert task.engine.state.object_pos_w[0, 2] - task.outcome_tracker.start_pos_w[0, 2] < 0.02  # it was let go
    obs = until(task, actor, obs, lambda step: step == task.episode_steps)
    assert task.outcome_tracker.attempts.tolist() == [2]  # both are used up, whatever is felt


def test_the_next_attempt_is_made_where_the_object_is_now(make):
    task = make(1)
    actor = RegraspRunner(task, Scripted(task, torch.zeros(1)), attempts=2)
    obs = until(task, actor, actor.step(lifted(task, actor, 0)).obs, lambda step: step == -1)
    pos_w = task.engine.state.object_pos_w.double().clone()
    pos_w[0, :2] += torch.tensor([-0.12, 0.1])  # further than any tracker looks
    task.engine.move_object(torch.tensor([0]), pos_w)
    obs = until(task, actor, obs, lambda step: step == 1)
    assert (task.control.palm_trajectory.object_xy_w[0] - pos_w[0, :2]).norm() < 0.015


def test_the_second_attempt_is_another_grasp_and_a_new_trial_begins_with_the_best(make):
    task = make(1)
    actor, tried = RegraspRunner(task, Scripted(task, torch.zeros(1)), attempts=3), task.regrasp.failed_grasps
    obs = lifted(task, actor, 3)
    first = tried.descriptors[0, 0].clone()
    until(task, actor, actor.step(obs).obs, lambda step: step == 0)
    assert torch.equal(tried.descriptors[0, 1], first)
    assert (tried.descriptors[0, 0] - first).norm() > 0.5
    task.reset([3])
    assert torch.equal(tried.descriptors[0, 0], first)
    assert (tried.descriptors[0, 1:] - first).norm(dim=1).min() > 1e3


def test_a_trial_counts_by_its_last_attempt_and_says_how_many_there_were(make):
    """The camera sees nothing in one row, and little is felt: that row makes the block longer."""
    task = make(4, disturbance="none")
    once = play(task, make_policy("synergy", task), range(4))
    assert [outcome.attempts for outcome in once] == [1] * 4
    felt = torch.full((4,), GRIP_THRESHOLD_HOLD + 0.01)
    again = play(task, Scripted(task, felt), range(4), 3, lambda: task.object_camera.visible_fraction[1].zero_())
    assert [outcome.attempts for outcome in again] == [1, 3, 1, 1]
    assert [again[i] for i in (0, 2, 3)] == [
        once[i] for i in (0, 2, 3)
    ]  # to the last bit, though the block took longer
    assert sum(outcome.success for outcome in again) >= 3


def test_what_did_not_rise_was_left_behind_whatever_is_felt(make):
    """The object is taken out of the hand before the lift; fingers that press each other would feel a grip."""
    task = make(2)
    actor = RegraspRunner(task, Scripted(task, torch.full((2,), 0.5)), attempts=2)
    obs = until(task, actor, task.reset([0, 1]), lambda step: step == task.grasp_steps + 1)
    pos_w = task.engine.state.object_pos_w[:1].double()
    pos_w[0, 0] += 0.15
    task.engine.move_object(torch.tensor([0]), pos_w)
    until(task, actor, obs, lambda step: step == task.grasp_steps + task.lift_steps)
    assert task.outcome_tracker.attempts.tolist() == [1, 1]
    actor.step(obs)
    assert task.outcome_tracker.attempts.tolist() == [2, 1]
    assert task.outcome_tracker.rise_m[1] > 0.1


def test_an_object_that_is_lost_in_the_hold_is_grasped_again(make):
    """Two hands hold; after five steps of the hold one feels nothing any more."""
    task = make(2)
    policy = Scripted(task, torch.ones(2))
    actor = RegraspRunner(task, policy, attempts=2)
    held_steps = task.grasp_steps + task.lift_steps + 5
    obs = until(task, actor, task.reset([0, 1]), lambda step: step == held_steps)
    assert task.outcome_tracker.held.all() and task.outcome_tracker.attempts.tolist() == [1, 1]
    policy.grip = torch.tensor([GRIP_THRESHOLD_HOLD - 0.01, GRIP_THRESHOLD_HOLD + 0.01])
    actor.step(obs)
    assert task.outcome_tracker.attempts.tolist() == [2, 1]
    assert task.outcome_tracker.held.tolist() == [False, True]
    assert task.phases.name(0) == "retreat"


def test_an_object_out_of_reach_is_not_pursued(make):
    task = make(1)
    actor = RegraspRunner(task, Scripted(task, torch.zeros(1)), attempts=3)
    obs = until(task, actor, actor.step(lifted(task, actor, 0)).obs, lambda step: step == -1)
    task.engine.move_object(torch.tensor([0]), torch.tensor([[1e4, 0.0, 0.05]], dtype=torch.float64))
    until(task, actor, obs, lambda step: step == task.episode_steps)
    (outcome,) = task.outcomes()
    assert not outcome.success and outcome.attempts == 2
    assert task.engine.state.palm_pos_w.abs().max() < 0.6


def test_the_height_of_the_lowest_quarter_by_hand():
    heights = torch.tensor([[0.3, 0.1, 0.2, 0.5, 0.6, 0.7, 0.8, 0.9]])
    points_w = torch.nn.functional.pad(heights[..., None], (2, 0))
    assert lowest_height_m(points_w).item() == pytest.approx(0.15)


def test_what_looked_only_once_has_one_attempt_and_so_has_what_feels_nothing(make):
    blind, numb = make(1, "camera=first_frame"), make(1)
    assert play(blind, Scripted(blind, torch.zeros(1)), [0], attempts=3)[0].attempts == 1
    assert play(numb, make_policy("synergy", numb), [0], attempts=3)[0].attempts == 1


@pytest.mark.parametrize("file", ["bundle", "policy.zip"])
def test_the_shipped_student_feels_what_it_touches(make, allegro, file):
    """Eight grasps, half of the objects taken away on the way there: what is felt is the truth of the simulator."""
    name = str(assets.path(f"policies/allegro/student/{file}"))
    task = make(8, f"policy={name}")
    actor, obs, taken = make_policy(name, task), task.reset(range(8)), torch.arange(0, 8, 2)
    actor.reset(range(8))
    for step in range(task.grasp_steps + 1):
        if step == task.grasp_steps // 3:
            pos_w = task.engine.state.object_pos_w[taken].double()
            pos_w[:, 1] += 0.2
            task.engine.move_object(taken, pos_w)
        touched = grip_confidence(task.engine.state.object_contact.float(), allegro) > 0
        obs = task.step(actor.act(obs), actor.grip).obs
    assert torch.equal(actor.grip > GRIP_THRESHOLD_HOLD, touched)
    assert not touched[taken].any() and touched.sum() >= 3
