"""Every write of a command is met by a kill, and by a disk that is full from then on; the command then runs again.

The second start must give what an uninterrupted one gives, and leave nothing unfinished. What lay there before stays:
files of others always, an older result until the new one is whole.
"""

import csv
import importlib
import json
import shutil
from dataclasses import asdict, dataclass, field, replace

import numpy as np
import pytest
import yaml
from PIL import Image

from dexgrasp import assets
from dexgrasp.perception.cameras.extrinsics import pose_to_dict
from dexgrasp.policies.agents.checkpoint import read_checkpoint
from dexgrasp.policies.deploy.bundle import BundleError, read_bundle
from dexgrasp.policies.export.replay_check import ReplayError
from dexgrasp.policies.training import callbacks
from dexgrasp.sim.objects.generator import generate
from dexgrasp.utils import files
from dexgrasp.utils.tensor_archive import read_archive
from tests.helpers import faults
from tests.helpers.untrained_checkpoint import TASK, make_teacher_run
from tests.perception import test_calibration as boards

SHORT = "num_threads=1 physics=turbo task.hold_s=0.1"
EVALUATE = f"evaluate policy=zero objects=library trials=3 num_envs=2 {SHORT} out=run"
TRAIN = (
    "objects=library validation_objects=others validation_trials=2 validation_interval=1 num_threads=1 num_envs=2 "
    "iterations=2 tracker=none task.rate_hz=10 task.grasp_s=0.6 task.lift_s=0.2 task.hold_s=0.2 out=run"
)


def rows_of(path):
    """Rows of a progress.csv without the columns of the clock and of this start's number of iterations."""
    if not path.exists():
        return None
    rows = csv.DictReader(path.read_text().splitlines())
    of_a_start = ("time/fps", "time/time_elapsed", "time/iterations", "time/steps_per_cpu_s", "profile/")
    return [{key: value for key, value in row.items() if not key.startswith(of_a_start)} for row in rows]


def tensors_of(path):
    return {name: value.numpy().tobytes() for name, value in read_archive(path)[1].items()} if path.exists() else None


def training(here):
    run, names = here / "run", ("last.zip", "best.zip", "last.window")
    states = [read_checkpoint(run / name).state for name in names[:2] if (run / name).exists()]
    return rows_of(run / "progress.csv"), [tensors_of(run / name) for name in names], states


def evaluation(folder):
    trials, result = folder / "trials.jsonl", folder / "result.json"
    plain = json.loads(result.read_text()) if result.exists() else {}
    kept = {key: plain.get(key) for key in ("successes", "trials", "per_object", "failures", "code")}
    return trials.read_bytes() if trials.exists() else None, kept, (folder / "report.html").exists()


def bundle(folder):
    try:
        return read_bundle(folder).graph
    except BundleError:
        return None


def quick_write(checkpoint, cfg, folder):
    """A bundle without the minutes of its export: the shipped one."""
    for name in ("policy.onnx", "golden.npz", "contract.json"):
        (folder / name).write_bytes((assets.ROOT / "policies/allegro/student/bundle" / name).read_bytes())
    return ReplayError(steps=1000, ties=0, error={"action": 0.0})


@dataclass(frozen=True)
class Command:
    """A command whose writes are met, and what of its files is a result."""

    words: str
    make: tuple[str, ...]
    """Inputs that it needs: names of functions below."""
    result: object
    """Function of the working directory: the result, equal for equal runs."""
    replaces: bool = False
    """Whether a second run replaces the result of the first one, which stays until then."""
    prepare: object = field(default=lambda: None)


def set_period():
    callbacks.CheckpointCallback.__init__.__defaults__ = (0.0,)  # a checkpoint after every iteration


def set_long_period():
    """Write a checkpoint after every second iteration: kills undo up to two whole iterations."""
    each = callbacks.CheckpointCallback.on_training_end
    callbacks.CheckpointCallback.on_iteration_logged = lambda this, learner: (
        None if learner.iteration % 2 else each(this, learner)
    )


def set_quick_write():
    importlib.import_module("dexgrasp.policies.export.export").write = quick_write


COMMANDS = {
    "evaluate": Command(EVALUATE, ("library",), lambda here: evaluation(here / "run")),
    "compare": Command(
        EVALUATE.replace("evaluate policy=zero", "compare zero synergy"),
        ("library",),
        lambda here: (
            [evaluation(here / "run" / side) for side in "ab"],
            json.loads((here / "run/compare.json").read_text())["lost"] if (here / "run/compare.json").exists() else 0,
        ),
    ),
    "train a teacher": Command(f"train {TRAIN}", ("library", "others"), training, prepare=set_period),
    "train a teacher with rare checkpoints": Command(
        f"train {TRAIN}".replace("iterations=2", "iterations=4"),
        ("library", "others"),
        training,
        prepare=set_long_period,
    ),
    "train a student": Command(  # its second iteration imitates, its third one mixes
        f"train recipe=student teacher=teacher {TRAIN} distillation.gradient_steps=2 distillation.num_rollouts=2 "
        "distillation.batch_size=16 distillation.rho_start=0.5 distillation.rho_end=0.9 history_encoder=mlp".replace(
            "iterations=2", "iterations=3"
        ),
        ("library", "others", "teacher"),
        training,
        prepare=set_period,
    ),
    "objects generate": Command(
        "objects generate n=2 families=box workers=1 out=run",
        (),
        lambda here: {name: data for name, data in faults.contents(here / "run").items() if name != ".lock"},
    ),
    "objects import": Command(
        "objects import meshes workers=1 scale=1 out=run",
        ("meshes",),
        lambda here: {name: data for name, data in faults.contents(here / "run").items() if name != ".lock"},
    ),
    "report": Command(
        "report run out=report.html",
        ("library", "run"),
        lambda here: (here / "report.html").exists() and (here / "report.html").read_text()[-8:],
        replaces=True,
    ),
    "calibrate board": Command(
        "calibrate board dpi=60 out=run",
        (),
        lambda here: (here / "run/board.png").exists() and (here / "run/board.png").read_bytes(),
        replaces=True,
    ),
    "calibrate camera": Command(
        "calibrate camera views out=run",
        ("views",),
        lambda here: (here / "run/camera.yaml").exists() and yaml.safe_load((here / "run/camera.yaml").read_text()),
        replaces=True,
    ),
    "export": Command(
        "export policy=allegro/student out=run",
        (),
        lambda here: bundle(here / "run"),
        replaces=True,
        prepare=set_quick_write,
    ),
    "publish": Command(
        "publish policy=trained out=run",
        ("library", "others", "trained"),
        lambda here: (here / "run/README.md").exists() and tensors_of(here / "run/policy.zip"),
        replaces=True,
    ),
}


def make_inputs(here, names):
    """Write the inputs of a command into the folder `here`."""
    for name in names:
        if name == "library":
            generate(3, here / name, families=["box", "capsule"], workers=1, progress=False)
        elif name == "others":
            generate(2, here / name, families=["box"], split="validation", workers=1, progress=False)
        elif name == "teacher":
            (here / name).mkdir()
            make_teacher_run(here / name, replace(TASK, rate_hz=10.0, grasp_s=0.6, lift_s=0.2, finger_action_rad=0.3))
        elif name == "meshes":
            write_meshes(here / name)
        elif name == "views":
            write_views(here / name)
        elif name == "run":
            assert faults.run(EVALUATE.split(), here)[0] == 0
        elif name == "trained":
            assert faults.run(f"train {TRAIN}".replace("out=run", "out=trained").split(), here)[0] == 0


def write_meshes(folder):
    import trimesh

    folder.mkdir()
    for i in range(2):
        trimesh.creation.box((0.05, 0.06, 0.05 + 0.02 * i)).export(folder / f"box_{i}.stl")


def write_views(folder):
    folder.mkdir()
    poses = np.stack(boards.poses_before_the_camera(3, np.random.default_rng(5)))
    camera = replace(boards.CAMERA, distortion="none", coeffs=(0.0,) * 5)
    (folder / "camera.json").write_text(json.dumps(asdict(camera)))
    for number, image in enumerate(boards.images(poses, camera)):
        Image.fromarray(image).save(folder / f"{number}.png")
    carriers = {f"{n}.png": pose_to_dict(boards.T_WORLD_CAM @ T) for n, T in enumerate(poses)}
    (folder / "poses.yaml").write_text(yaml.safe_dump(carriers))


def meet_every_write(name, kind, tmp_path, every=1):
    """Run the command once; then once for every write with a fault there, and again without."""
    command, template, here = COMMANDS[name], tmp_path / "template", tmp_path / "here"
    template.mkdir()
    faults.warm_up(("evaluate", "compare", "train", "report", "export", "publish", "calibrate camera"))
    make_inputs(template, command.make)
    (template / "mine").mkdir()
    (template / "mine/notes.txt").write_text("of the user")
    words = command.words.split()
    starts = {"new": template}
    status, output, count = faults.run(words, faults.fresh(here, template), prepare=command.prepare)
    assert status in (0, 1), output
    wanted, rc = command.result(here), status
    counts = {"new": count}
    if command.replaces:
        starts["old"] = tmp_path / "old"
        shutil.copytree(here, starts["old"])
        if (starts["old"] / "run").is_dir():
            (starts["old"] / "run/notes.txt").write_text("of the user")
        status, output, counts["old"] = faults.run(words, faults.fresh(here, starts["old"]), prepare=command.prepare)
        assert status == rc, output
    for state, start in starts.items():
        assert counts[state] >= 3
        for at in range(1, counts[state] + 1, every):
            faults.fresh(here, start)
            status, output, _ = faults.run(words, here, at, kind, command.prepare)
            place = f"{name}, {state}, {kind} at write {at} of {counts[state]}: {output}"
            assert status == (-9 if kind == "kill" else 2) or (kind == "full" and status == rc), place
            if kind == "full" and status == 2:
                last = output.strip().splitlines()[-1]
                full = ("cannot be written: the disk is full; ", "cannot be written (No space left on device: ")
                assert any(words in last for words in full) and files.PARTIAL not in last, place
                assert "Traceback" not in output, place
            mine = [here / "mine/notes.txt", *([here / "run/notes.txt"] if (start / "run/notes.txt").exists() else [])]
            assert all(path.read_text() == "of the user" for path in mine), place
            if state == "old":
                assert command.result(here) == wanted, place
            status, output, _ = faults.run(words, here, prepare=command.prepare)
            assert status == rc, f"{place}, then: {output}"
            assert command.result(here) == wanted, place
            assert not faults.leftovers(here), place
            assert all(path.read_text() == "of the user" for path in mine), place


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["kill", "full"])
@pytest.mark.parametrize("name", COMMANDS)
def test_a_fault_at_any_write_loses_nothing(name, kind, tmp_path):
    meet_every_write(name, kind, tmp_path)


def test_kills_at_some_writes_of_a_quick_command_lose_nothing(tmp_path):
    meet_every_write("calibrate board", "kill", tmp_path, every=6)
