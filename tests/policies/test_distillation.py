"""From teacher to student: schedule and losses by hand, a copy that acts as its teacher, imitation that learns."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from dexgrasp import configs
from dexgrasp.policies.algorithms.distillation import DistillationCfg, StudentPPO
from dexgrasp.policies.algorithms.ppo import GraspPPO, imitation_loss, reconstruction_loss
from dexgrasp.policies.benchmarks.ablations import VARIANTS, BenchAblationsCfg, varied
from dexgrasp.policies.networks.actor_critic import GraspPolicy
from dexgrasp.policies.networks.student import make_encoder
from dexgrasp.sim.envs.sb3_env import GraspVecEnv
from dexgrasp.sim.scene import PhysicsCfg
from dexgrasp.sim.task.grasp_task import TaskCfg

SHORT = TaskCfg(rate_hz=10.0, grasp_s=0.8, lift_s=0.3, hold_s=0.2)


@pytest.fixture(scope="module")
def env(household):
    """Four objects and the fastest physics: the subject here is what is learnt from, not what happens."""
    physics = configs.load_option(PhysicsCfg, "physics", "turbo")
    return GraspVecEnv(16, household, obs="both", task=SHORT, physics=physics, num_threads=1)


def make_student(env, mix, iterations=4, teacher=None):
    return StudentPPO(env, distillation=mix, iterations=iterations, teacher=teacher, hidden=(32, 16), seed=0)


def make_teacher(env):
    """A teacher that acts: random weights, scales of one roll-out."""
    model = GraspPPO(env, seed=1, hidden=(32, 16))
    model.learn(16 * model.num_steps)
    with torch.no_grad():
        model.policy.actor.net[-1].weight.mul_(50)
    return model.policy


def test_rho_rises_in_a_straight_line_and_stays():
    mix = DistillationCfg(rho_start=0.2, rho_end=0.6, rho_max=0.8)
    assert [mix.rho(where) for where in (0.0, 0.2, 0.4, 0.6, 1.0)] == pytest.approx([0, 0, 0.4, 0.8, 0.8])


def test_the_published_schedule_can_be_had():
    mix = DistillationCfg(rho_start=0.0, rho_end=0.4, rho_max=1.0)  # 2,000 of 5,000 iterations
    assert mix.rho(1000 / 5000) == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("mix", "iterations", "least"),
    [
        (DistillationCfg(rho_start=0.15, rho_end=0.25), 2, 7),  # 1 / 6 is above 0.15, 1 / 7 below
        (DistillationCfg(rho_start=0.15, rho_end=0.25), 6, 7),
        (DistillationCfg(rho_start=0.15, rho_end=0.25), 7, None),
        (DistillationCfg(rho_start=0.25, rho_end=0.5), 3, 4),  # rho(1 / 4) is 0
        (DistillationCfg(rho_start=0.25, rho_end=0.25), 4, 5),  # rho(1 / 4) is rho_max
        (DistillationCfg(rho_start=0.0, rho_end=0.0), 2, None),  # as recipe=refinement: no imitation is meant
        (DistillationCfg(rho_start=0.15, rho_end=0.25, imitation_weight=0.0), 2, None),
        (DistillationCfg(rho_start=0.15, rho_end=0.25, rho_max=0.0), 2, None),
        (DistillationCfg(schedule="success", rho_start=0.5, rho_end=0.9), 2, None),
    ],
)
def test_iterations_too_few_for_imitation_are_warned_of_with_the_least_that_begin_with_it(mix, iterations, least):
    warning = mix.missing_imitation(iterations)
    assert (f"; iterations={least} or more begin with imitation" in warning) if least else warning == ""
    if least:
        assert mix.rho(1 / least) == 0 < mix.rho(1 / (least - 1))


def test_rho_may_follow_success(env):
    model = make_student(env, DistillationCfg(schedule="success", rho_start=0.5, rho_end=0.9, rho_max=1.0))
    model.iteration_stats = {"won": 0.7}
    assert model.rho == pytest.approx(0.5)


def test_both_losses_are_mean_squares():
    means, labels = torch.tensor([[1.0, 2.0], [0.0, 0.0]]), torch.tensor([[0.0, 0.0], [1.0, 1.0]])
    assert float(imitation_loss(means, labels)) == pytest.approx((1 + 4 + 1 + 1) / 4)
    assert float(reconstruction_loss(means, labels)) == pytest.approx(7 / 4)


def test_the_parts_of_the_loss_are_mixed_as_the_method_says(env):
    model = make_student(
        env, DistillationCfg(rho_start=0.0, rho_end=0.0, rho_max=0.25, imitation_weight=2.0, reconstruction_weight=0.5)
    )
    batch = {
        "student": torch.randn(8, env.task.layouts["student"].size),
        "true": torch.randn(8, len(model.policy.reconstructed_columns)),
    }
    batch["labels"] = torch.randn(8, env.task.num_actions)
    loss, record = model._imitation(batch)
    assert loss.item() == pytest.approx(
        0.75 * 2.0 * record["imitation"].item() + 0.5 * record["reconstruction"].item(), rel=1e-5
    )


def test_a_copy_acts_as_its_teacher_where_both_know_the_same(env, monkeypatch):
    """With the true contacts in place of what is reconstructed, and no difference between seen and true vectors."""
    monkeypatch.setattr("dexgrasp.policies.networks.actor_critic.MAX_NORMALISED", 1e9)
    teacher, student = make_teacher(env), make_student(env, DistillationCfg()).policy
    obs = env.streams.reset()
    seen = {group: values.clone() for group, values in obs.items()}
    student.update_actor_normalisers(seen)
    student.copy_teacher(teacher)
    own, theirs = env.task.layouts["student"].slices(), env.task.layouts["teacher"].slices()
    seen["student"][:, own["visible_vectors"]] = seen["teacher"][:, theirs["object_vectors"]]
    for name in ("object_linvel", "object_angvel", "object_displacement", "object_in_palm", "object_mass"):
        seen["teacher"][:, theirs[name]] = teacher.actor.normaliser.mean[theirs[name]]  # what the student cannot know
    seen["teacher"][:, theirs["object_friction"]] = teacher.actor.normaliser.mean[theirs["object_friction"]]
    reconstructed = student.actor.felt_normaliser(seen["teacher"][:, student.reconstructed_columns])
    standard = student.actor.normaliser(seen["student"])[:, : own["history"].start]
    with torch.no_grad():
        got = student.actor.net(torch.cat([standard, reconstructed], dim=1))
        want = teacher.mean(seen)
    torch.testing.assert_close(got, want, atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize("kind", ["lstm", "conv", "mlp"])
def test_encoders_read_the_whole_history(kind):
    encoder = make_encoder(kind, 38, 26)
    frames = torch.randn(2, 10, 38, requires_grad=True)
    encoder(frames).sum().backward()
    assert encoder(frames).shape == (2, 26)
    reaching = frames.grad.abs().sum(dim=(0, 2)) > 0
    assert reaching[-1] and reaching.sum() >= 9  # a stride may leave the oldest out


def test_while_it_imitates_the_student_acts_without_noise_and_comes_nearer(env):
    mix = DistillationCfg(rho_start=1.0, rho_end=1.0, gradient_steps=60, batch_size=256, num_rollouts=3)
    model = make_student(env, mix, iterations=60, teacher=make_teacher(env))
    model.start_from_teacher(copy=False)
    errors = []
    for _ in range(4):
        model.learn(model.num_timesteps + 16 * model.num_steps)
        errors.append((model.iteration_stats["imitation"], model.iteration_stats["reconstruction"]))
    assert (model.exploration == 0).all()
    assert errors[-1][0] < 0.9 * errors[0][0], errors
    assert errors[-1][1] < 0.7 * errors[0][1], errors


def test_of_a_large_rollout_some_samples_are_kept_whole_and_the_file_stays_small(env, tmp_path):
    """What 4,096 environments see would take 0.7 GiB per roll-out."""
    keep = 50
    mix = DistillationCfg(
        samples_per_rollout=keep, num_rollouts=2, gradient_steps=2, batch_size=16, rho_start=1.0, rho_end=1.0
    )
    model = make_student(env, mix, iterations=60, teacher=make_teacher(env))
    model.start_from_teacher()
    model.learn(3 * 16 * model.num_steps)
    assert [len(kept["true"]) for kept in model._rollouts] == [keep, keep] and 16 * model.num_steps > 4 * keep
    newest = model._rollouts[-1]
    seen = {group: values.flatten(0, 1) for group, values in model.rollout_buffer.obs.items()}
    rows = (newest["student"][:, None] == seen["student"]).all(dim=2).int().argmax(dim=1)
    assert torch.equal(newest["student"], seen["student"][rows]) and len(set(rows.tolist())) == keep
    with torch.no_grad():
        reconstructed = model.policy.actor.felt_normaliser(seen["teacher"][rows][:, model.policy.reconstructed_columns])
        labels = model.teacher.mean({group: values[rows] for group, values in seen.items()})
    torch.testing.assert_close(newest["true"], reconstructed)
    limit = env.task.cfg.action_clip
    torch.testing.assert_close(newest["labels"], labels.clamp(-limit, limit), atol=1e-5, rtol=1e-5)
    model.save(tmp_path / "last.zip", with_rollouts=True)
    numbers = 2 * keep * sum(values.shape[1] for values in newest.values())
    assert (tmp_path / "last.window").stat().st_size < 4 * numbers + 2000  # zip and names
    again = make_student(env, mix, iterations=60, teacher=model.teacher).resume(tmp_path / "last.zip")
    for kept, read in zip(model._rollouts, again._rollouts, strict=True):
        assert kept.keys() == read.keys() and all(torch.equal(kept[name], read[name]) for name in kept)


def test_without_a_teacher_to_imitate_the_student_is_told_nothing(env):
    model = make_student(env, replace(DistillationCfg(), rho_start=0.0, rho_end=0.0, rho_max=1.0, imitation_weight=0.0))
    model.iteration = 1
    model.learn(16 * model.num_steps)
    assert model.iteration_stats["imitation"] == 0.0
    assert model.iteration_stats["rho"] == 1.0
    assert isinstance(model.policy, GraspPolicy)


def test_an_ablation_changes_what_it_names_and_nothing_else():
    cfg = configs.load(BenchAblationsCfg, "bench_ablations", ["teacher=allegro/teacher", "budget=0.5"])
    full, frozen = (varied(cfg, VARIANTS[name], Path("run")) for name in ("student", "frozen view"))
    assert full.iterations == 63  # 0.5 million over 128 environments of 62 steps
    assert (full.task.camera.mode, frozen.task.camera.mode) == ("tracked_updated", "first_frame")
    assert replace(frozen, task=replace(frozen.task, camera=full.task.camera)) == full
    imitation = varied(cfg, VARIANTS["imitation only"], Path("run"))
    scratch = varied(cfg, VARIANTS["no privileged learning"], Path("run"))
    assert (imitation.distillation.rho_max, imitation.init_from_teacher) == (0.0, True)
    assert (scratch.distillation.imitation_weight, scratch.distillation.rho_max, scratch.init_from_teacher) == (
        0.0,
        1.0,
        False,
    )


@pytest.mark.parametrize(("rho_start", "rate"), [(0.0, 2e-5), (0.5, 3e-4)])
def test_reinforcement_begins_at_its_own_rate(env, rho_start, rate):
    mix = DistillationCfg(rho_start=rho_start, rho_end=0.5, ppo_rate=2e-5)
    student = make_student(env, mix, teacher=make_teacher(env))
    student.start_from_teacher()
    assert student.learning_rate == student.optimizer.param_groups[0]["lr"] == rate


def test_every_step_of_a_mixed_iteration_imitates_other_samples(env, monkeypatch):
    student = make_student(
        env, DistillationCfg(rho_start=0.0, rho_end=0.0, rho_max=0.5, batch_size=16), teacher=make_teacher(env)
    )
    student.target_kl = 1e9
    seen = []
    imitation = student._imitation
    monkeypatch.setattr(student, "_imitation", lambda batch: seen.append(batch["student"]) or imitation(batch))
    student.start_from_teacher()
    student.learn(env.num_envs * student.num_steps)
    assert len(seen) == student.num_epochs * student.num_minibatches
    assert len({float(batch.sum()) for batch in seen}) == len(seen)
