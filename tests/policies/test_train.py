"""`dexgrasp train` as a user runs it: stopped and gone on with, in two processes, from a teacher to a student."""

import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from dexgrasp import configs
from dexgrasp.policies.agents.checkpoint import load_checkpoint, read_checkpoint
from dexgrasp.policies.cli.main import main
from dexgrasp.policies.training.callbacks import (
    PARTS,
    CheckpointCallback,
    ConsoleCallback,
    steps_in_words,
    validate,
)
from dexgrasp.policies.training.config import TrainCfg
from dexgrasp.policies.training.learning_curves import read_columns
from dexgrasp.policies.training.train import (
    make_env,
    make_learner,
    make_validation_task,
    reproduce_published_release,
    student_options,
    summary,
    train,
)
from dexgrasp.sim.task.grasp_task import TaskCfg
from dexgrasp.utils.timers import cpu_seconds

TINY = (
    "objects=generated:4",
    "validation_objects=generated:2:validation",
    "physics=turbo",
    "validation_trials=4",
    "validation_interval=2",
    "num_threads=1",
    "task.rate_hz=10",
    "task.grasp_s=0.6",
    "task.lift_s=0.2",
    "task.hold_s=0.2",
)


def tiny(path, *more):
    return configs.load(TrainCfg, "train", [*TINY, f"out={path}", *more])


def untimed(columns):
    """Columns of progress.csv that do not count from the start of the command."""
    return {
        name: column
        for name, column in columns.items()
        if not name.startswith(("profile/", "time/")) or name == "time/total_timesteps"
    }


def assert_same(one, two, atol=0.0, rtol=0.0):
    got = read_checkpoint(two).group("policy")
    for name, want in read_checkpoint(one).group("policy").items():
        torch.testing.assert_close(got[name], want, atol=atol, rtol=rtol, msg=lambda text, name=name: f"{name}: {text}")


@pytest.fixture(autouse=True)
def _no_pictures(monkeypatch):
    """A picture takes as long as four iterations of a training this small; that of `teacher` is looked at."""
    monkeypatch.setattr(sys.modules[train.__module__], "draw_curves", lambda progress, picture: None)


@pytest.fixture(scope="module")
def teacher(tmp_path_factory):
    path = tmp_path_factory.mktemp("teacher")
    train(tiny(path, "num_envs=8", "iterations=4"))
    return path


def test_the_published_release_can_be_configured_saved_and_read_back():
    cfg = reproduce_published_release(configs.load(TrainCfg, "train", ["reproduce_release=true"]))
    assert cfg.task.reward.floor == -1000.0 and cfg.task.randomization.palm_noise_m == 0.0 and cfg.final_std == 0.0
    assert configs.from_dict(TaskCfg, configs.as_dict(cfg.task), "saved") == cfg.task


def test_a_run_leaves_its_policies_curves_and_configuration(teacher):
    names = {"last.zip", "best.zip", "progress.csv", "curves.png", "config.yaml", "run.json", "run.log"}
    assert names <= {file.name for file in teacher.iterdir()}
    steps, success = read_columns(teacher / "progress.csv")["rollout/success"]
    assert steps == [80.0, 160.0, 240.0, 320.0]  # 8 environments, 10 steps an episode
    assert all(0 <= rate <= 1 for rate in success)


def test_a_refinement_starts_at_its_own_rate_and_stays_near_the_policy_that_it_starts_from(tmp_path):
    """At the rate of a new policy the first iteration moved the shipped student by 135 targets."""
    words = ["recipe=refinement", "init_checkpoint=allegro/student", "teacher=allegro/teacher", "num_envs=16"]
    cfg = configs.load(TrainCfg, "train", [*words, "objects=generated:4", "num_threads=1", "task.hold_s=0.3"])
    learner = make_learner(cfg, make_env(cfg), tmp_path)
    assert learner.learning_rate == cfg.distillation.ppo_rate == 1e-5
    found, adapt = [], learner._adapt_learning_rate
    learner._adapt_learning_rate = lambda kl: found.append(kl) or adapt(kl)
    learner.learn(cfg.num_envs * learner.num_steps)
    assert found[0] < 1e-4 and max(found) < 3 * cfg.target_kl and len(found) > 8


def test_every_checkpoint_says_what_made_it(teacher):
    """As the run directory does, from which it may be taken away."""
    facts, config = json.loads((teacher / "run.json").read_text()), configs.read_plain(teacher / "config.yaml")
    for name, iteration in (("last.zip", 4), ("best.zip", read_checkpoint(teacher / "best.zip").state.iteration)):
        found = read_checkpoint(teacher / name).manifest
        assert found["config"] == config
        assert {key: found[key] for key in facts} == facts  # git, versions, machine, seed, command, starts
        assert found["iteration"] == iteration and found["control_steps"] == 80 * iteration
    assert found["versions"]["torch"] == torch.__version__ and found["command"]


def test_a_run_says_where_its_time_went(teacher):
    shares = {part: read_columns(teacher / "progress.csv")[f"profile/{part}"][1][-1] for part in PARTS}
    assert sum(shares.values()) == pytest.approx(1.0)
    assert shares["physics"] == max(shares.values()) or shares["aside"] > shares["physics"]  # 4 trials of validation
    assert min(shares.values()) > 0


def test_a_run_that_was_stopped_ends_where_one_that_was_not_ends(teacher, tmp_path):
    stopped = train(tiny(tmp_path, "num_envs=8", "iterations=4", "time_limit_min=0.0001"))
    assert stopped["iteration"] < 4
    begun_s = cpu_seconds()
    train(tiny(tmp_path, "num_envs=8", "iterations=4"))
    spent_s, steps = cpu_seconds() - begun_s, 80 * (4 - stopped["iteration"])
    rate = read_columns(tmp_path / "progress.csv")["time/steps_per_cpu_s"][1][-1]
    assert steps / spent_s <= rate < 10 * steps / spent_s  # of this start, without what comes before the first rollout
    assert_same(teacher / "last.zip", tmp_path / "last.zip")
    got, want = (untimed(read_columns(run / "progress.csv")) for run in (tmp_path, teacher))
    assert got == want and {"rollout/success", "train/kl", "validation/success"} <= set(want)
    assert want["validation/success"][0] == [160.0, 320.0]  # also that of the last iteration


def test_a_run_whose_folder_is_moved_ends_at_its_next_write_and_goes_on_in_the_moved_one(
    teacher, tmp_path, monkeypatch, capsys
):
    """Moved in the third iteration, with a copy in its place, to which nothing is written."""
    run, moved, line = tmp_path / "run", tmp_path / "moved", ConsoleCallback.on_iteration_end

    def move(self, learner):
        line(self, learner)
        if learner.iteration == 3 and not moved.exists():
            run.rename(moved)
            shutil.copytree(moved, run)

    monkeypatch.setattr(ConsoleCallback, "on_iteration_end", move)
    monkeypatch.setattr(CheckpointCallback.__init__, "__defaults__", (0.0,))  # after every iteration
    words = ["train", *TINY, "num_envs=8", "iterations=4"]
    assert main([*words, f"out={run}"]) == 2
    assert f"{run} was moved or removed while this command wrote to it" in capsys.readouterr().err.splitlines()[-1]
    assert read_checkpoint(moved / "last.zip").state.iteration == 2
    assert read_checkpoint(run / "last.zip").state.iteration == 2
    assert len(read_columns(run / "progress.csv")["rollout/success"][0]) == 2
    assert main([*words, f"out={moved}"]) == 0
    assert_same(teacher / "last.zip", moved / "last.zip")
    assert untimed(read_columns(moved / "progress.csv")) == untimed(read_columns(teacher / "progress.csv"))


def test_another_configuration_does_not_go_on_with_a_run(teacher, tmp_path):
    with pytest.raises(ValueError, match=r"gamma: 0\.985 then, 0\.9 now"):
        train(tiny(teacher, "num_envs=8", "iterations=5", "gamma=0.9"))
    (tmp_path / "best.zip").write_bytes((teacher / "best.zip").read_bytes())  # killed before its first last.zip
    for name in ("run.json", "config.yaml"):
        (tmp_path / name).write_bytes((teacher / name).read_bytes())
    with pytest.raises(ValueError, match=r"gamma: 0\.985 then, 0\.9 now"):
        train(tiny(tmp_path, "num_envs=8", "iterations=5", "gamma=0.9"))


def test_a_student_without_a_teacher_is_told_where_to_get_one(tmp_path):
    with pytest.raises(FileNotFoundError, match="dexgrasp train recipe=teacher"):
        train(tiny(tmp_path, "recipe=student", "num_envs=4", "iterations=2"))


def test_a_teacher_must_be_whole_and_of_the_same_hand_and_task(teacher, tmp_path):
    def student(whom, *more):
        return tiny(tmp_path / "out", "recipe=student", f"teacher={whom}", "num_envs=4", "iterations=2", *more)

    with pytest.raises(ValueError, match=r"teacher: .*trained for something else \(side: right there, left here\)"):
        train(student(teacher, "side=left"))
    with pytest.raises(ValueError, match=r"task\.finger_action_rad: 0\.3 there, 0\.2 here"):
        train(student(teacher, "task.finger_action_rad=0.2"))
    (tmp_path / "best.zip").write_bytes((teacher / "best.zip").read_bytes()[:100_000])
    with pytest.raises(ValueError, match=r"teacher: .*best\.zip is not a whole checkpoint: "):
        train(student(tmp_path / "best.zip"))
    with pytest.raises(ValueError, match=r"init_checkpoint: .*best\.zip is a teacher, a student is needed"):
        train(student(teacher, f"start={teacher}"))


STRETCHED = "(limits of std and kl are stretched)"


def test_a_finished_run_says_so_and_plays_nothing(teacher, capsys):
    before = (teacher / "progress.csv").read_text()
    assert train(tiny(teacher, "num_envs=8", "iterations=4"))["iteration"] == 4
    lines = capsys.readouterr().out.splitlines()
    assert (
        lines[0]
        == f"iterations       4; to go on: the same command with out={teacher} and a greater iterations= {STRETCHED}"
    )
    assert lines[1].startswith("best validation") and "of 4 trials; 95 % interval" in lines[1]
    actions = "task.rate_hz=10.0 task.grasp_s=0.6 task.lift_s=0.2"  # of TINY: the student needs them
    assert lines[-1].endswith(f"dexgrasp train recipe=student teacher={teacher} {actions}")
    assert (teacher / "progress.csv").read_text() == before


def test_a_validation_tells_its_control_steps(teacher, monkeypatch, caplog):
    monkeypatch.setattr("dexgrasp.utils.progress.LINE_EVERY_S", 0.0)
    caplog.set_level("INFO", "dexgrasp")
    task = make_validation_task(tiny("", "validation_trials=2"))
    validate(SimpleNamespace(policy=load_checkpoint(teacher / "best.zip").policy), task)
    ended = "(23 per attempt), 0 of the block's 2 trials ended"  # 0.6 s, 0.2 s and the hold of 1.5 s at 10 Hz
    assert caplog.messages == [f"validation: control step {i + 1} {ended}" for i in range(23)]


def test_the_next_commands_carry_hand_task_class_and_plugins():
    cfg = configs.load(TrainCfg, "train", ["hand=examples/three_finger_hand", "side=left", "plugins=a.py,b"])
    cfg = replace(cfg, task=replace(cfg.task, class_name="Upright"))
    assert student_options(cfg) == ["hand=examples/three_finger_hand", "side=left", "task.class_name=Upright"]
    learner = SimpleNamespace(iterations_run=1)
    lines = summary(cfg, Path("my runs/x"), learner, done=True).splitlines()
    evaluate = "dexgrasp evaluate 'policy=my runs/x' camera=d435 plugins=a.py,b"
    assert lines[-2] == f"next             {evaluate}"
    assert shlex.split(lines[-1]) == [
        *("dexgrasp", "train", "recipe=student", "teacher=my runs/x", *student_options(cfg), "plugins=a.py,b"),
    ]
    assert student_options(configs.load(TrainCfg, "train", [])) == []


@pytest.mark.parametrize(
    ("words", "camera"),
    [
        (["recipe=teacher"], ["camera=d435"]),  # of the first frame; a teacher takes any camera
        (["recipe=teacher", "camera=d435_latest"], ["camera=d435_latest"]),
        (["recipe=student"], ["camera=d435"]),
        (["recipe=refinement"], ["camera=d435"]),
        (["recipe=student", "camera=d435_tracked"], ["camera=d435_tracked"]),
        (["recipe=student", "camera=d435_latest", "task.camera.disparity_sd_px=0.0"], ["camera=d435_latest"]),
        (["recipe=student", "camera=published"], []),  # no preset of the first frame has errors
        (["recipe=student", "task.camera.frame_interval_steps=2"], []),  # evaluate would refuse a preset
    ],
)
def test_the_next_evaluation_has_the_camera_errors_of_the_published_results(words, camera):
    cfg = configs.load(TrainCfg, "train", words)
    line = summary(cfg, Path("runs/x"), SimpleNamespace(iterations_run=1), done=True).splitlines()[-2]
    assert line.split() == ["next", "dexgrasp", "evaluate", "policy=runs/x", *camera]


@pytest.mark.parametrize(
    ("steps", "words"),
    [
        (0, "0"),
        (448, "448"),
        (1_000, "1.0 k"),
        (5_376, "5.4 k"),
        (999_949, "999.9 k"),
        (999_950, "1.00 M"),
        (8_028_160, "8.03 M"),
    ],
)
def test_control_steps_are_shown_in_a_unit_that_fits(steps, words):
    assert steps_in_words(steps) == words


def test_a_finished_run_and_another_option_are_told_before_objects_are_read(teacher, caplog):
    with pytest.raises(ValueError, match="num_envs: 8 then, 16 now"):
        train(tiny(teacher, "num_envs=16", "iterations=4", "objects=no_such_library"))
    caplog.set_level("INFO", "dexgrasp")
    train(tiny(teacher, "num_envs=8", "iterations=4"))
    assert caplog.messages[0] == "finished: 4 of 4 iterations were run; nothing is trained"


RARE = ("num_envs=8", "iterations=4", "validation_interval=100")
WITHOUT_TENSORBOARD = """
import sys
sys.modules["torch.utils.tensorboard"] = None
from dexgrasp.__main__ import run
from dexgrasp.policies.training.callbacks import ConsoleCallback
tell = ConsoleCallback.on_iteration_end
def tell_and_wait(self, learner):
    tell(self, learner)
    sys.stdin.read()  # ends when the signal is sent
ConsoleCallback.on_iteration_end = tell_and_wait
sys.exit(run())
"""


@pytest.fixture(scope="module")
def interrupted(tmp_path_factory):
    """A run without TensorBoard that Ctrl-C has ended: folder, exit status, lines of stdout, lines of stderr."""
    folder = tmp_path_factory.mktemp("interrupted")
    words = [sys.executable, "-c", WITHOUT_TENSORBOARD, "train", *TINY, *RARE, f"out={folder}"]
    pipes = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
    run = subprocess.Popen(words, **pipes, text=True)
    first = run.stdout.readline()  # of the first iteration, which ends when the signal is there
    run.send_signal(signal.SIGINT)
    rest, said = run.communicate(timeout=120)  # closes stdin
    return folder, run.returncode, [first, *rest.splitlines()], said.splitlines()


def test_without_tensorboard_training_says_so_in_one_line_and_goes_on(interrupted):
    folder, _, iterations, said = interrupted
    assert sum("TensorBoard is not installed" in line for line in said) == 1, said
    assert iterations[0].split()[0] == "1"
    assert (folder / "progress.csv").is_file() and (folder / "last.zip").is_file()


def test_ctrl_c_ends_after_the_iteration_in_one_line_and_the_run_goes_on_exactly(teacher, interrupted):
    folder, status, iterations, said = interrupted
    done = len(iterations)
    assert status == 130 and done in (1, 2)  # it strikes while the first is told
    assert said[-2:] == [
        "stopping after this iteration; press Ctrl-C once more to stop at once",
        f"dexgrasp train: interrupted; stopped after iteration {done}; the same command with out={folder} goes on",
    ]
    train(tiny(folder, *RARE))
    assert_same(teacher / "last.zip", folder / "last.zip")


def test_a_student_ends_at_the_iteration_asked_for_and_goes_on_without_damaged_rollouts(
    teacher, tmp_path, caplog, capsys
):
    """The episode of its teacher that sets the scales is counted neither before nor after a resume."""
    small = (
        "recipe=student",
        f"teacher={teacher}",
        "num_envs=4",
        "distillation.rho_start=0.6",
        "distillation.rho_end=1",
        "distillation.gradient_steps=2",
        "distillation.batch_size=16",
    )
    assert train(tiny(tmp_path, *small, "iterations=2"))["iteration"] == 2
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[:2] for line in lines[:3]] == [["1", "40"], ["2", "80"], ["iterations", "2;"]]
    assert " kl     -  std     -  rho 0.000 " in lines[0]  # imitation, without exploration
    assert re.search(r" kl \d\.\d{3}  std 0\.[1-9]\d\d  rho [0-9.]*[1-9]", lines[1])
    (tmp_path / "last.window").write_bytes(b"cut")
    assert train(tiny(tmp_path, *small, "iterations=3"))["iteration"] == 3
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()[:2]] == ["3", "iterations"]
    assert "last.window cannot be read" in caplog.text


@pytest.mark.parametrize("keep", [pytest.param(32768, marks=pytest.mark.slow), 30])
def test_a_student_that_was_stopped_goes_on_exactly(teacher, tmp_path, keep):
    """Whether imitation keeps all of the 80 samples of a roll-out or some."""
    student = (
        "recipe=student",
        f"teacher={teacher / 'best.zip'}",
        "num_envs=8",
        "distillation.rho_start=0.4",
        "distillation.rho_end=0.8",
    )
    small = (
        *student,
        "distillation.gradient_steps=3",
        "distillation.batch_size=32",
        f"distillation.samples_per_rollout={keep}",
        "validation_interval=100",
    )
    train(tiny(tmp_path / "through", *small, "iterations=4"))
    first = tiny(tmp_path / "stopped", *small, "iterations=4", "time_limit_min=0.0001")
    assert train(first)["iteration"] == 1
    train(tiny(tmp_path / "stopped", *small, "iterations=4"))
    assert_same(tmp_path / "through/last.zip", tmp_path / "stopped/last.zip")


@pytest.mark.slow
def test_two_processes_train_as_one_with_twice_the_environments(tmp_path):
    alike = ("iterations=3", "num_minibatches=1", "num_epochs=2", "validation_interval=100", "precision=fp32")
    train(tiny(tmp_path / "one", "num_envs=8", *alike))
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2", "--master-port=0", "--standalone"]
    command = [*torchrun, "-m", "dexgrasp", "train", *TINY, f"out={tmp_path / 'two'}", "num_envs=4", *alike]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=120, env=os.environ | {"OMP_NUM_THREADS": "1"}
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert_same(tmp_path / "one/last.zip", tmp_path / "two/last.zip", atol=2e-4, rtol=1e-3)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["objects=generated:4:test"], "objects=generated:4:test: 4 objects (box_test_s0_00000, "),
        (["objects=shipped"], "objects=shipped: 144 objects (box_test_s0_00000, "),
        (
            ["validation_objects=generated:4:test"],
            "validation_objects=generated:4:test: 4 objects (box_test_s0_00000, ",
        ),
        (["validation_objects=generated:4"], "validation: 4 objects (box_train_s0_00000, "),
    ],
)
def test_test_objects_and_shared_objects_are_refused_before_anything_is_written(words, message, tmp_path, capsys):
    assert main(["train", *TINY, *words, f"out={tmp_path / 'run'}", "num_envs=4", "iterations=1"]) == 2
    said = capsys.readouterr().err.splitlines()[-1]
    assert said.startswith(f"dexgrasp train: error: {message}") and "ake " in said
    assert not (tmp_path / "run").exists()


PARTING = """
import os
from pathlib import Path
import torch
from dexgrasp.utils import distributed
distributed.init_process_group("gloo")
weight = torch.nn.Parameter(torch.ones(2))
optimizer = torch.optim.Adam([weight])
weight.sum().backward()
distributed.average_gradients([weight])
optimizer.step()
distributed.all_reduce_sum(torch.ones(1))
distributed.shutdown()
print([task.read_text().strip() for task in Path("/proc/self/task").glob("*/comm")])
"""


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
def test_no_thread_of_the_group_outlives_it():
    """One that does aborts the process now and then, when the interpreter ends."""
    alone = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "0", "RANK": "0", "WORLD_SIZE": "1", "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, "-c", PARTING], capture_output=True, text=True, env=os.environ | alone)
    assert done.returncode == 0, done.stderr
    assert "gloo" not in done.stdout
