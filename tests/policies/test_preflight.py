"""What can be known beforehand is refused before long work begins: in seconds, in one line, nothing is written."""

import importlib.util
import sys
import time

import pytest
import yaml

from dexgrasp.policies.cli import preflight
from dexgrasp.policies.cli.commands import COMMANDS
from dexgrasp.policies.cli.main import main

REFUSED = [
    ("train recipe=student", "teacher: none is given, recipe=student needs one: give teacher=RUN"),
    ("train teacher=allegro/teacher", "teacher=allegro/teacher is for a student, and recipe=teacher has none"),
    ("train recipe=student teacher=leap/teacher", "(hand: leap there, allegro here)"),
    ("train recipe=student teacher=allegro/student", "is a student, a teacher is needed"),
    (
        "train init_checkpoint=runs/none",
        "init_checkpoint: no policy 'runs/none'. Expected ability/teacher, allegro/teacher, leap",
    ),
    ("train hand=alegro", "no hand 'alegro': expected one of ['ability', 'allegro', 'leap', 'orca', 'shadow']"),
    ("train objects=shiped", "objects: 'shiped' is neither a known name nor a folder. Did you mean 'shipped'?"),
    ("train validation_objects=none", "validation_objects: 'none' is neither"),
    ("train objects=shipped", "144 objects (box_test_s0_00000, "),
    ("train objects=generated:0", "objects: 'generated:0': the number of objects must lie in 1..1000000"),
    ("evaluate scene=clutter engine=warp", "engine=warp does not hold clutter yet: use engine=cpu, or scene=single"),
    ("train task.class_name=Foo", "task 'Foo' is not registered"),
    ("train task.reward.extra.foo=1", "reward term 'foo' is not registered"),
    ("train task.rate_hz=23", "does not divide the control period"),
    ("train out={file}", "is a file, expected a folder: choose another out="),
    ("train out={file}/run", "cannot be written (Not a directory"),
    ("train out=/proc/run", "out=/proc/run cannot be written"),
    (
        "evaluate policy=student",
        "no policy 'student'. Did you mean 'ability/student' or 'allegro/student' or 'leap/student' or 'orca/student'",
    ),
    ("export", "'policy' has no value; give policy=<str>; for instance: dexgrasp export policy=runs/student"),
    ("evaluate policy=allegro/studnt", "no policy 'allegro/studnt'. Did you mean 'allegro/student'?"),
    ("evaluate policy=allegro/student hand=leap", "hand=leap, but 'allegro/student' was trained with allegro"),
    ("evaluate policy=leap/student hand=allegro", "hand=allegro, but 'leap/student' was trained with leap"),
    (
        "evaluate policy=allegro/student camera=first_frame",
        "camera=first_frame, but 'allegro/student' was",
    ),
    (
        "evaluate policy=allegro/student task.camera.mode=first_frame",
        "task.camera.mode=first_frame, but",
    ),
    ("evaluate policy=allegro/student hand=leap --cfg", "hand=leap, but 'allegro/student' was trained with allegro"),
    ("evaluate objects=", "objects is empty: give shipped"),
    ("evaluate policy=", "policy is empty"),
    ("evaluate allegro/student", "did you mean policy=allegro/student?"),
    ("evaluate mount=ur5", "an arm.yaml, or an MJCF or URDF file. Did you mean 'ur5e'?"),
    ("evaluate engine=warp cluster=local", "with engine=warp leave cluster out"),
    ("viewer task.scene.name=clutter", "the viewer shows single objects: leave task.scene out"),
    ("compare synergy", "compare needs two policies"),
    ("compare synergy runs/none", "b: no policy 'runs/none'"),
    ("benchmark ycbb .", "unknown object set 'ycbb'. Did you mean 'ycb'?"),
    ("benchmark ycb none", "no folder 'none': expected the meshes of ycb"),
    ("benchmark ycb .", ". is not ycb: 78 meshes of 78 missing, as a_colored_wood_blocks/textured.obj"),
    ("benchmark dexgraspbench none", "no folder 'none': expected the repository JYChen18/DexGraspBench"),
    ("benchmark dexgraspbench .", "no .npy in output/example_shadow/graspdata: give grasps=, a folder in ."),
    ("benchmark grasps", "benchmark grasps needs the run directory of an evaluation"),
    ("benchmark validate", "no file 'FILE': expected rows of `dexgrasp benchmark`"),
    (
        "export policy=allegro/student out=bundle trials=8",
        "8 of 112 steps each give 896 recorded steps, 1000 are needed",
    ),
    ("export policy=allegro/teacher out=bundle", "is a teacher"),
    ("export policy=allegro/student out=bundle objects=none", "objects: 'none' is neither"),
    ("publish policy=allegro/student out=published results=nothing", "run.json is missing"),
    ("checkpoint sb3 none out=policy.zip", "no checkpoint at 'none'"),
    ("checkpoint upgrade none", "no checkpoint at 'none'"),
    ("objects show none", "library: 'none' is neither"),
    ("objects show shipped out={folder}.png", "is a folder, expected a file"),
    ("objects import none out=library", "no folder of meshes at none"),
    ("objects scan none out=library", "no source of frames 'none'"),
    ("calibrate camera none out=calibration", "none/camera.json is missing"),
    ("check scene none", "no source of frames 'none'"),
    ("viewer policy=none", "no policy 'none'"),
    ("bench physics policy=none", "no policy 'none'"),
    ("bench ablations", "teacher: none is given"),
    ("bench deploy policy=none", "no policy 'none'"),
]


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A working directory with a file and a folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DEXGRASP_CACHE", str(tmp_path / "cache"))
    (tmp_path / "file").write_text("text")
    (tmp_path / "folder.png").mkdir()
    return tmp_path


@pytest.mark.parametrize(("line", "message"), REFUSED, ids=[line for line, _ in REFUSED])
def test_a_mistake_is_refused_in_seconds_and_nothing_is_written(line, message, here, capsys):
    start_s = time.process_time()
    assert main(line.format(file="file", folder="folder").split()) == 2
    assert time.process_time() - start_s < 5
    out, err = capsys.readouterr()
    *logged, last = err.splitlines()
    assert message in last and last.startswith("dexgrasp ") and ": error: " in last
    assert not out and not [text for text in logged if "Traceback" in text]
    left = {path.name for path in here.iterdir()} - {"file", "folder.png", "cache"}
    assert left <= {"calibration"}  # a run directory with the log of its failure


@pytest.mark.parametrize(
    ("line", "package", "extra"),
    [
        ("export policy=allegro/student out=bundle", "onnxscript", "export"),
        ("viewer", "viser", "viz"),
        ("calibrate board", "cv2", "calibrate"),
        ("calibrate camera realsense", "pyrealsense2", "realsense"),
        ("replay bag policy=allegro/student", "rosbags", "ros"),
        ("train tracker=wandb", "wandb", "wandb"),
        ("train tracker=tensorboard", "tensorboard", "tensorboard"),
        ("evaluate engine=warp", "mujoco_warp", "gpu"),
        ("evaluate cluster=local", "ray", "ray"),
        ("compare synergy zero cluster=local", "pyarrow", "ray"),
    ],
)
def test_a_missing_extra_is_named_before_anything_begins(line, package, extra, here, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, package, None)  # the import system then knows no such package
    assert main(line.split()) == 2
    assert f"pip install -e '.[{extra}]' -c constraints.txt (No module named " in capsys.readouterr().err
    assert {path.name for path in here.iterdir()} == {"file", "folder.png"}


def test_the_packages_of_the_checks_are_modules_of_their_extras():
    """Every package in the table is found where all extras but Ray are installed."""
    packages = {package for _, names, _ in preflight.EXTRAS for package in names}
    assert packages == {"onnx", "onnxscript", "viser", "cv2", "rosbags", "ray", "pyarrow", "wandb", "mujoco_warp"} | {
        "warp",
        "tensorboard",
        "pyrealsense2",
    }
    for name in packages - {"ray", "pyarrow", "rosbags", "pyrealsense2"}:
        assert importlib.util.find_spec(name), name


OUT_FILES = {
    "video nowhere": "grasp.mp4",
    "report nowhere nowhere": "x.html",
    "checkpoint sb3 nowhere": "x.zip",
    "objects show nowhere": "x.png",
}


@pytest.mark.parametrize(("words", "name"), OUT_FILES.items(), ids=list(OUT_FILES))
def test_a_file_that_a_command_has_written_may_exist_and_no_other(words, name, here, capsys):
    (here / name).write_text("<!-- written by dexgrasp -->")
    assert main([*words.split(), f"out={name}"]) == 2
    error = capsys.readouterr().err
    assert "nowhere" in error and "exists" not in error  # the input is missing: `out` was accepted
    (here / name).write_text("of the user")
    for force in ([], ["force=false"]):
        assert main([*words.split(), f"out={name}", *force]) == 2
        if "objects show" not in words:  # whose library is looked up first
            assert f"out={name} exists and was not written by dexgrasp" in capsys.readouterr().err
    assert (here / name).read_text() == "of the user"
    (here / name).unlink()
    (here / name).mkdir()
    assert main([*words.split(), f"out={name}"]) == 2
    assert f"out={name} is a folder, expected a file" in capsys.readouterr().err


def test_the_table_names_the_commands_whose_out_is_a_file():
    assert {command.words for command in COMMANDS if command.out_is_file} == {
        *("objects show", "report", "video", "checkpoint sb3", "hands check"),
    }


def test_the_printed_configuration_is_that_of_the_run(capsys):
    assert main(["evaluate", "policy=allegro/student", "--cfg"]) == 0
    camera = yaml.safe_load(capsys.readouterr().out)["task"]["camera"]
    assert (camera["mode"], camera["frame_interval_steps"]) == ("tracked_updated", 3)
