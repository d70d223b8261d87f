"""From a checkpoint to a bundle: the same episode, the same targets; what is refused, and that nothing is executed."""

import json
import os
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch

from dexgrasp import assets, configs
from dexgrasp.policies.agents import registry
from dexgrasp.policies.agents.bundle_agent import observation_of, plan_of
from dexgrasp.policies.agents.checkpoint import load_checkpoint, read_checkpoint, write_checkpoint
from dexgrasp.policies.agents.registry import make_policy
from dexgrasp.policies.deploy.bundle import read_contract
from dexgrasp.policies.deploy.policy import Policy
from dexgrasp.policies.deploy.shipped import PolicyNotFoundError
from dexgrasp.policies.evaluation.config import EvaluateCfg, apply_policy_config, make_task
from dexgrasp.policies.evaluation.episodes import play
from dexgrasp.policies.export.controller import DeployableController
from dexgrasp.policies.export.export import OWN_FILES, ExportCfg, export, grasp_contract, make_contract
from dexgrasp.policies.export.export import make_task as make_rehearsal
from dexgrasp.policies.export.replay_check import record_episodes, replay
from dexgrasp.sim.robots.hand import HandSpec
from dexgrasp.sim.scene import PhysicsCfg
from dexgrasp.sim.sensors.config import CameraCfg
from dexgrasp.sim.task.regrasp import (
    GRIP_THRESHOLD_HOLD,
    GRIP_THRESHOLD_UNSEEN,
    MIN_RISE_FRACTION,
    MIN_VISIBLE_FRACTION,
)
from tests.helpers.untrained_checkpoint import TASK, make_run, make_teacher_run

TURBO = configs.load_option(PhysicsCfg, "physics", "turbo")


@pytest.fixture
def copied_run(student_run, tmp_path):
    """A copy of the run that a test may damage."""
    return shutil.copytree(student_run, tmp_path / "run")


def evaluation(policy, household, **options):
    return EvaluateCfg(
        policy=str(policy), objects=str(household.path), trials=6, num_threads=1, physics=TURBO, **options
    )


def task_for(policy, household, rows=6, disturbance="none"):
    cfg = apply_policy_config(evaluation(policy, household))
    return make_task(cfg, HandSpec.load("allegro"), household, disturbance, rows)


def test_export_signs_the_bundle_with_the_key_and_owns_all_its_files(bundle):
    Policy.load(bundle, public_key=bundle.parent / "public.pem")
    assert {path.name for path in bundle.iterdir()} == set(OWN_FILES)


@pytest.mark.parametrize("key", ["nowhere.pem", "public.pem"])
def test_a_key_that_cannot_sign_is_refused_before_any_work(student_run, bundle, tmp_path, key):
    with pytest.raises(ValueError, match=key):
        export(ExportCfg(str(student_run), str(tmp_path / "out"), sign=str(bundle.parent / key)))
    assert not (tmp_path / "out").exists()


def test_an_episode_in_the_task_is_the_episode_of_the_bundle(student_run, bundle, household):
    """The bundle sees readings alone and keeps its own state; targets of palm and fingers for every step."""
    checkpoint, policy = load_checkpoint(student_run), Policy.load(bundle)
    task = task_for(student_run, household)
    obs = task.reset(range(6))
    policy.reset(plan_of(task))
    moved = 0.0
    for _ in range(task.episode_steps):
        command = policy.act(observation_of(task))
        with torch.no_grad():
            action = checkpoint.actor(obs["student"])
        obs = task.step(action, torch.from_numpy(command.grip)).obs
        moved = max(moved, float(action.abs().max()))
        np.testing.assert_allclose(command.joint_target, task.engine.state.joint_target, atol=1e-5)
        np.testing.assert_allclose(command.palm_pos_w, task.control.palm_pos_w, atol=1e-5)
        np.testing.assert_allclose(command.palm_quat_w, task.control.palm_quat_w, atol=1e-5)
    assert policy.phase == "hold"
    assert moved > 0.3  # the actions matter


def test_the_shipped_bundle_follows_a_moved_object_as_the_task_does(household):
    """`BundleAgent` raises where the palm targets of the two part."""
    task = task_for("allegro/student", household, disturbance="shift5")
    play(task, make_policy("allegro/student", task), range(6))
    assert task.control.palm_trajectory.followed_m.norm(dim=1).max() > 0.02


def test_the_shipped_bundle_begins_anew_where_its_rows_do(household):
    """One row tries again, one gives up because its object is gone; `BundleAgent` compares the targets of all."""
    task = task_for("allegro/student", household)
    policy = make_policy("allegro/student", task)
    obs = task.reset(range(6))
    policy.reset(range(6))
    while (task.steps_since_pregrasp < task.episode_steps).any():
        action = policy.act(obs)
        if (task.steps_since_pregrasp == task.grasp_steps).all():
            task.start_regrasp(torch.tensor([0, 3]))
        if task.steps_since_pregrasp[3] == -1 and task.regrasp.moving_aside[3]:
            task.engine.move_object(torch.tensor([3]), torch.tensor([[5.0, 0.0, 0.05]], dtype=torch.float64))
        obs = task.step(action, policy.grip).obs
    assert task.outcome_tracker.attempts.tolist() == [2, 1, 1, 2, 1, 1]
    assert policy._policy.steps[0] == task.steps_since_pregrasp[0]  # begun anew, and compared to the end


def test_the_bundle_and_its_checkpoint_end_the_same_trials_alike(student_run, bundle, household):
    ends = {}
    for policy in (student_run, bundle):
        task = task_for(policy, household)
        outcomes = play(task, make_policy(str(policy), task), range(6))
        ends[policy] = [(one.object, one.success, one.failure) for one in outcomes]
    assert ends[student_run] == ends[bundle]


def test_the_bundle_says_what_its_numbers_mean(bundle, allegro):
    assert json.loads((bundle / "contract.json").read_text())["schema"] == 4
    contract = read_contract(bundle)
    control = contract.control
    assert (control.min_rise_fraction, control.min_visible_fraction) == (MIN_RISE_FRACTION, MIN_VISIBLE_FRACTION)
    assert (control.grip_threshold_unseen, control.grip_threshold_hold) == (GRIP_THRESHOLD_UNSEEN, GRIP_THRESHOLD_HOLD)
    assert contract.hand.joint_names == tuple(allegro.joint_names)
    assert list(contract.hand.effort_limit_nm) == allegro.effort_limit.tolist()
    assert (control.rate_hz, control.grasp_steps, control.lift_steps) == (20.0, 32, 14)
    assert control.finger_action_rad == 0.2
    assert control.vector_frame == "palm"
    assert control.scripted_grasp.close_rad == TASK.scripted_grasp.close_rad
    assert (contract.camera.mode, contract.camera.model) == ("latest", "points")
    assert contract.parity.steps >= 1000
    assert max(contract.parity.error.values()) <= 1e-5
    golden = np.load(bundle / "golden.npz", allow_pickle=False)
    assert len(golden["in/step"]) >= 32
    assert golden["in/step"].max() > 46  # the lift and the hold are recorded too


class TorchSession:
    """The controller itself in the place of its graph."""

    def __init__(self, controller):
        self._controller = controller

    @torch.no_grad()
    def run(self, _, feed, options):
        given = (torch.from_numpy(feed[name]) for name in self._controller.inputs)
        return [value.numpy() for value in self._controller(*given)]


@pytest.mark.parametrize(
    ("encoder", "task"),
    [
        ("lstm", TASK),
        ("conv", replace(TASK, vector_frame="world", rate_hz=25.0)),
        ("mlp", replace(TASK, use_scripted_grasp=False, camera=CameraCfg(mode="first_frame"))),
    ],
)
def test_the_controller_repeats_the_task_whatever_the_student_is(tmp_path, household, encoder, task):
    checkpoint = load_checkpoint(make_run(tmp_path, encoder, task))
    controller = DeployableController(checkpoint.actor, checkpoint.hand, checkpoint.task, 256).eval()
    recording = record_episodes(
        checkpoint, make_rehearsal(checkpoint, ExportCfg("", "", str(household.path), 3, 0, TURBO)), range(3)
    )
    policy = Policy(make_contract(checkpoint, controller), TorchSession(controller))
    parity, _ = replay(policy, recording, controller)
    assert parity.steps > 100
    assert max(parity.error.values()) <= 1e-5


def test_a_controller_for_another_task_does_not_repeat_it(tmp_path, household):
    """The check can fail: other phases, and a scale that is off by a hundredth."""
    checkpoint = load_checkpoint(make_run(tmp_path))
    recording = record_episodes(
        checkpoint, make_rehearsal(checkpoint, ExportCfg("", "", str(household.path), 2, 0, TURBO)), range(2)
    )
    for other, name in (({"lift_s": 0.75}, "palm_pos_w"), ({"finger_action_rad": 0.202}, "joint_target")):
        controller = DeployableController(
            checkpoint.actor, checkpoint.hand, replace(checkpoint.task, **other), 256
        ).eval()
        with pytest.raises(ValueError, match=f"parity: in step .* {name} of the bundle differs"):
            replay(Policy(make_contract(checkpoint, controller), TorchSession(controller)), recording, controller)


def test_what_belongs_to_the_policy_is_adopted(student_run, bundle, household):
    for policy in (student_run, bundle):
        task = apply_policy_config(evaluation(policy, household)).task
        assert (task.grasp_s, task.finger_action_rad, task.camera.mode) == (1.6, 0.2, "latest")
        assert task.hold_s == 3.0  # the evaluation's own


def test_another_meaning_of_its_actions_is_refused(student_run, household):
    other = replace(evaluation(student_run, household).task, palm_action_m_s=0.2)
    with pytest.raises(ValueError, match=r"task\.palm_action_m_s=0\.2, but '.*' was trained with 0\.1"):
        apply_policy_config(evaluation(student_run, household, task=other))
    with pytest.raises(ValueError, match=r"hand=leap, but '.*' was trained with allegro"):
        apply_policy_config(evaluation(student_run, household, hand="leap"))


def test_a_policy_that_does_not_exist_is_named_with_what_was_looked_for(tmp_path):
    expected = r"Expected random, synergy, zero, .*leap/teacher, .*or the path of a run directory .*bundle directory"
    with pytest.raises(ValueError, match=rf"no policy 'runs/none'\. {expected}"):
        apply_policy_config(EvaluateCfg(policy="runs/none"))
    with pytest.raises(ValueError, match=rf"{tmp_path} holds no such policy\. {expected}"):
        apply_policy_config(EvaluateCfg(policy=str(tmp_path)))


@pytest.mark.parametrize(
    ("facts", "policy", "expected"),
    [
        (
            {"kind": "evaluate", "command": ["dexgrasp", "demo"]},
            "allegro/student",
            "`demo`, which trains nothing; its ",
        ),
        ({"kind": "evaluate", "command": ["dexgrasp", "evaluate"]}, "allegro/student", "`evaluate`, which trains"),
        ({"kind": "benchros"}, "allegro/student", "`bench ros`, which trains nothing; its policy is allegro/student."),
        ({"kind": "compare"}, None, "`compare`, which trains nothing. Expected"),
        ({"kind": "train"}, None, "holds no such policy"),
        ({"kind": ["damaged"]}, "allegro/student", "holds no such policy"),
    ],
)
def test_a_run_that_trains_nothing_names_its_command_and_its_policy(facts, policy, expected, tmp_path):
    (tmp_path / "run.json").write_text(json.dumps(facts))
    (tmp_path / "config.yaml").write_text("trials: 4\n" + (f"policy: {policy}\n" if policy else ""))
    with pytest.raises(PolicyNotFoundError) as error:
        registry.find_policy(str(tmp_path))
    assert expected in str(error.value)


def test_the_kind_of_policy_that_a_command_needs_is_named(bundle, student_run):
    assert registry.find_policy("allegro/student", kind="checkpoint").path == assets.path(
        "policies/allegro/student/policy.zip"
    )
    with pytest.raises(ValueError, match=r"teacher: '.*' is a bundle, a checkpoint is needed"):
        registry.find_policy(str(bundle), "teacher", "checkpoint")
    with pytest.raises(ValueError, match=r"policy: '.*' is a checkpoint, a bundle is needed: dexgrasp export policy="):
        registry.find_policy(str(student_run), kind="bundle")
    with pytest.raises(
        PolicyNotFoundError, match=r"start: no policy 'allegro/studnt'\. Did you mean 'allegro/student'\?"
    ):
        registry.find_policy("allegro/studnt", "start")


def test_a_shipped_policy_is_found_by_hand_and_stage(bundle, student_run, tmp_path, monkeypatch):
    place = tmp_path / "policies" / "allegro" / "student"
    shutil.copytree(student_run, place)
    os.rename(place / "best.zip", place / "policy.zip")
    monkeypatch.setattr("dexgrasp.assets.ROOT", tmp_path)
    assert registry.find_policy("allegro/student") == registry.PolicyLocation(place / "policy.zip", bundle=False)
    shutil.copytree(bundle, place / "bundle")
    assert registry.find_policy("allegro/student") == registry.PolicyLocation(place / "bundle", bundle=True)


def test_a_checkpoint_of_another_hand_or_view_is_refused(copied_run):
    data = read_checkpoint(copied_run / "best.zip")
    task = data.manifest["config"]["task"]
    other_view = {"task": task | {"camera": task["camera"] | {"mode": "first_frame"}}}
    for change, error in (
        (other_view, r"not a student of allegro.*expects 1 value of 'visible_fraction', the task gives no"),
        ({"side": "middle"}, "side must be one of"),
        ({"hand": "shadow"}, "shadow"),
        ({"hand": 3}, "lacks a configuration with hand, side, task"),
    ):
        manifest = {"config": data.manifest["config"] | change}
        write_checkpoint(copied_run / "best.zip", replace(data, manifest=manifest))
        with pytest.raises((ValueError, OSError), match=error):
            load_checkpoint(copied_run)


def test_export_writes_over_nothing_but_a_bundle_and_takes_students_alone(student_run, copied_run, tmp_path):
    (tmp_path / "precious").mkdir()
    (tmp_path / "precious" / "thesis.txt").write_text("years")
    with pytest.raises(ValueError, match=r"holds other files \(thesis.txt\) and is no bundle"):
        export(ExportCfg(str(student_run), str(tmp_path / "precious")))
    make_teacher_run(copied_run)
    with pytest.raises(ValueError, match="is a teacher"):
        export(ExportCfg(str(copied_run), str(tmp_path / "bundle")))
    assert not (tmp_path / "bundle").exists()


@pytest.mark.parametrize("name", assets.names("hands"))
def test_a_contract_holds_the_grasp_of_every_shipped_hand(name):
    """A negative gap too: the top of the object lies between palm and fingertips."""
    hand = HandSpec.load(name)
    contract = grasp_contract(hand)
    for style, found in ((hand.power, contract.power), (hand.pinch, contract.pinch)):
        assert (found.gap_m, found.floor_m) == (float(style.gap_m), float(style.floor_m))
        assert len(found.open_pose) == len(hand.joint_names)
