"""Every command and code block that README and documentation show: parsed with its configuration, and run small."""

import ast
import importlib
import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
import typing
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from dexgrasp import assets
from dexgrasp.policies.cli import main, preflight
from dexgrasp.policies.cli.commands import COMMANDS
from dexgrasp.policies.cli.option_docs import keys
from tests.helpers.shown_commands import ROOT, commands, included_files, python_blocks

SHOWN = commands()
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]

NOT_PARSED = {
    r"git clone .*": "fetches this repository",
    r"cd \S+": "part of the shell",
    r"source \S+": "part of the shell",
    r"python3 -m venv .*": "part of Python",
    r"uvx .*": "installs packages",
    r"python src/main\.py .*": "program of DexGraspBench, in its own repository",
    r"jupyter lab .*": "opens a browser; the notebook is run by tests/docs/test_examples.py",
    r"pytest -m gpu .*": "needs a GPU",
    r"openssl .*": "run by tests/policies/test_signature.py",
    r"dexgrasp .* -m": "starts processes of its own; tests/policies/test_sweep.py",
    r"dexgrasp .*\bconfig=.*": "needs a saved run; tests/policies/test_sweep.py",
    r"docker .*": "installs packages",
    r"ros2 bag (reindex|record).*": "part of ROS",
    r"dexgrasp .*\bcluster=.*": "needs the extra `ray`; tests/policies/test_ray_backend.py",
    r"colcon build": "run by tests/ros/test_launch.py",
    r"dexgrasp train objects=shipped": "shown as an error; refused by tests/policies/test_train.py",
    r"dexgrasp( [a-z]+){1,2}": "names a command whose required keys are missing",
}
"""Pattern of the whole command -> why it is not parsed. The last entry applies only where a required key is missing."""

NOT_RUN = {
    r"dexgrasp (report|video)": "names the command; it is run with its arguments",
    r".*\bengine=warp\b.*": "needs a GPU; tests/sim/test_warp_engine.py",
    r"dexgrasp bench gpu( .*)?": "needs a GPU; tests/policies/test_bench_gpu.py",
    r"dexgrasp .*\brealsense\b.*": "needs a camera; tests/perception/test_realsense.py",
    r"dexgrasp replay .*": "needs a recording; tests/ros/test_replay.py",
    r"dexgrasp export .*\bsign=.*": "needs a key; tests/policies/test_export.py",
    r"dexgrasp hands new hand.urdf .*": "needs a model of the user; tests/policies/test_hands_commands.py",
    r"dexgrasp benchmark(?! validate)( .*)?": "needs a public set; tests/policies/test_public_benchmark.py",
    r"dexgrasp bench ros arm=.*": "one closed loop at a time on two cores; run by tests/ros/test_closed_loop.py",
    r"dexgrasp viewer recording.bag": "needs a recording; tests/perception/test_realsense.py",
    r"dexgrasp .*\bcluster=auto\b.*": "needs a cluster; tests/policies/test_ray_backend.py",
    r"make .*": "each target is a step of .ci/run, or installs packages; its commands are printed by make -n",
    r"pip install .*": "installs packages",
    r"ros2 launch .* robot:=real .*": "needs a robot",
    r"ros2 run .*": "needs a robot or its driver; run by the tests of the nodes in tests/ros",
    r"ros2 launch .*": "run by tests/ros/test_launch.py",
    r"ros2 (service|topic|param|action) .*": "compared with the running nodes by test_ros_interface.py",
    r"python -m dexgrasp\.sim\.robots\.urdf .*": "run by tests/sim/test_urdf.py",
}
"""Pattern of the whole command -> why it is parsed, but not run."""

SHIPPED = {
    "runs/student/last.zip": "assets/policies/allegro/student/policy.zip",
    "runs/student": "allegro/student",
    "runs/teacher/best.zip": "assets/policies/allegro/teacher/policy.zip",
    "runs/teacher": "allegro/teacher",
    "runs/my_hand/teacher": "allegro/teacher",
    "runs/allegro/teacher": "allegro/teacher",
    "runs/leap/teacher": "leap/teacher",
    "runs/allegro/student/last.zip": "assets/policies/allegro/student/policy.zip",
    "runs/leap/student/last.zip": "assets/policies/leap/student/policy.zip",
    "runs/refinement/last.zip": "allegro/student",
    "runs/allegro/refinement/last.zip": "allegro/student",
    "runs/leap/refinement/last.zip": "leap/student",
    "runs/bundle": "assets/policies/allegro/student/bundle",
    "path/to/arm.xml": "assets/arms/ur5e/arm.xml",
    "runs/hand": "examples/three_finger_hand",
    "runs/hand_tuned": "examples/three_finger_hand",
    "runs/a": "allegro/student",
    "runs/b": "allegro/student",
    "runs/allegro/bundle": "assets/policies/allegro/student/bundle",
    "runs/allegro/refinement": "allegro/student",
    "runs/my_objects": "assets/objects",
    "runs/my_things": "assets/objects",
    "runs/generated": "assets/objects",
    "path/to/meshes": "assets/objects",
    "path/to/scans": "assets/objects",
}
"""Results of earlier commands -> what stands for them where nothing is run."""

loaded = []
"""Configurations of the commands that `remember` was called for."""


def remember(cfg):
    """Stand for the function of every command: keep the configuration."""
    loaded.append(cfg)


def reason(command, patterns):
    """Return why a command is excluded; empty where it is not."""
    return next((why for pattern, why in patterns.items() if re.fullmatch(pattern, command)), "")


def dexgrasp_words(words):
    """Return the words after `dexgrasp`, also after `python -m` and under torchrun; None for other programs."""
    if words[0] == "dexgrasp":
        return words[1:]
    if words[0] in ("python", "torchrun") and "dexgrasp" in words and words[words.index("dexgrasp") - 1] == "-m":
        return words[words.index("dexgrasp") + 1 :]
    return None


def replaced(words, table):
    """Return the words with values, also those after `key=`, replaced by those of the table."""
    found = []
    for word in words:
        key, equals, value = word.partition("=")
        value = value if equals else word
        found.append(f"{key}={table.get(value, value)}" if equals else table.get(value, value))
    return found


def parse(words, monkeypatch, capsys):
    """Load the configuration of a command without running it; fails with its error, or where a name is an old one."""
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(
        main, "COMMANDS", tuple(replace(command, function=f"{__name__}:remember") for command in COMMANDS)
    )
    monkeypatch.setattr(preflight, "INPUTS", {})  # the files of shown commands do not exist here
    monkeypatch.setitem(sys.modules, __name__, sys.modules[__name__])
    loaded.clear()
    status = main.main(replaced(words, SHIPPED))
    told = capsys.readouterr()
    assert status == 0, told.err
    assert "is now" not in told.err, told.err
    return told.out


def is_without_required(words):
    """Return whether the command is named alone although a key of it has no default."""
    found = [c for c in COMMANDS if c.words == " ".join(words)]
    return bool(found) and any(key.default == "(required)" for key in keys(found[0].schema, found[0].config))


@pytest.mark.parametrize("command", SHOWN, ids=lambda command: command.text)
def test_a_shown_command_has_keys_and_values_that_exist(command, monkeypatch, capsys):
    words = command.words
    dexgrasp = dexgrasp_words(words)
    if dexgrasp is not None and (not dexgrasp or not is_without_required(dexgrasp)) and not excluded(command.text):
        told = parse(dexgrasp, monkeypatch, capsys) if dexgrasp else ""
        assert loaded or told or not dexgrasp
    elif dexgrasp is None and not excluded(command.text):
        CHECKS[words[0]](words, monkeypatch, capsys)


def excluded(text):
    """Return why a command is not parsed; the last entry of NOT_PARSED is for commands without their required keys."""
    why = reason(text, dict(list(NOT_PARSED.items())[:-1]))
    return why or (is_without_required(text.split()[1:]) and list(NOT_PARSED.values())[-1])


def check_make(words, monkeypatch, capsys):
    """The target exists, and each `dexgrasp` command that it would run is parsed."""
    plain = {key: value for key, value in os.environ.items() if key not in ("MAKEFLAGS", "MAKEOVERRIDES", "ARGS")}
    printed = subprocess.run(["make", "-n", *words[1:]], cwd=ROOT, env=plain, capture_output=True, text=True)
    assert printed.returncode == 0, printed.stderr
    for line in printed.stdout.splitlines():
        line = re.sub(r"\$\(\((\d+) / (\d+)\)\)", lambda found: str(int(found[1]) // int(found[2])), line)
        if found := re.search(r"(?:-m dexgrasp|bin/dexgrasp) ([a-z].*)", line):
            parse(found[1].split(), monkeypatch, capsys)


def check_pip(words, *_):
    """The extras exist."""
    for found in re.findall(r"\.\[([\w,]+)\]", " ".join(words)):
        assert set(found.split(",")) <= set(PROJECT["optional-dependencies"])


def check_python(words, *_):
    """The file or module exists, and declares the options."""
    if words[1] == "-m":
        assert importlib.util.find_spec(words[2]), words[2]
        return
    calls = [node for node in ast.walk(ast.parse((ROOT / words[1]).read_text("utf-8"))) if isinstance(node, ast.Call)]
    declared = {ast.literal_eval(c.args[0]) for c in calls if ast.unparse(c.func) == "parser.add_argument"}
    assert {word for word in words[2:] if word.startswith("--")} <= declared


def check_ros2(words, *_):
    """The executable and its parameters, the launch arguments, the service or the topic exist."""
    pytest.importorskip("rclpy", reason="needs the extra `ros`")
    from dexgrasp.configs import from_dict
    from dexgrasp_ros import launch_arguments

    page = (ROOT / "docs/reference/ros.md").read_text(encoding="utf-8")
    if words[1:3] == ["launch", "dexgrasp_description"]:
        assert words[3:] == ["rviz.launch.py"]
    elif words[1] == "launch":
        assert words[2:4] == ["dexgrasp_ros", "grasp.launch.py"]
        given = dict(word.split(":=") for word in words[4:] if word != "--show-args")
        defaults = {argument.name: argument.default for argument in launch_arguments.ARGUMENTS}
        assert not set(given) - set(defaults)
        assert launch_arguments.nodes(defaults | {key: SHIPPED.get(value, value) for key, value in given.items()})
    elif words[1] == "run":
        module, name = node_schemas()[words[3]].split(":")
        schema = getattr(importlib.import_module(module), name)
        tree = dict(word.split(":=") for word in words[4:] if ":=" in word)
        required = {"bundle": "bundle"} if "bundle" in schema.__dataclass_fields__ else {}
        assert isinstance(from_dict(schema, required | tree, words[3]), schema)
    elif words[1] == "param":
        module, name = node_schemas()[f"{words[3].strip('/')}_node"].split(":")
        schema = getattr(importlib.import_module(module), name)
        for key in words[4].split("."):
            assert key in typing.get_type_hints(schema)
            schema = typing.get_type_hints(schema)[key]
    elif words[1] == "action":
        name, kind = (word for word in words[3:] if "/" in word)
        assert f"| `{name}` | `{kind}` |" in page
    elif words[1] == "service":
        assert f"| `{words[3]}` | `{words[4]}` |" in page
    else:
        topic = next(word for word in words[2:] if word.startswith("/"))
        kinds = re.findall(rf"\| `{topic}` \| `([\w/]+)` \|", page)
        assert kinds
        assert words[2] == "echo" or words[words.index(topic) + 1] in kinds


def node_schemas():
    """Return executable -> module:Class of its parameters, as the documentation has them."""
    tree = ast.parse((ROOT / "docs/hooks.py").read_text(encoding="utf-8"))
    assigned = {ast.unparse(s.targets[0]): s.value for s in tree.body if isinstance(s, ast.Assign)}
    return ast.literal_eval(assigned["ROS_NODES"])


CHECKS = {"make": check_make, "pip": check_pip, "python": check_python, "ros2": check_ros2}


def written(words):
    """Return the files and folders that the words of a command name as its output."""
    named = [re.match(r"(?:--)?(?:out|bag):?=(.+)", word) for word in words]
    after = [words[i + 1] for i, word in enumerate(words[:-1]) if word in ("--out", "-out")]
    return [found[1] for found in named if found] + after


def test_what_shown_commands_and_examples_of_the_help_write_is_ignored_by_git():
    """Also where a command is given without its out=; a new user's clone stays clean."""
    outs = [path for command in SHOWN for path in written(command.words)]
    outs += [path for command in COMMANDS for example in command.examples for path in written(example.split())]
    outs += [key.default for command in COMMANDS for key in keys(command.schema, command.config) if key.name == "out"]
    paths = sorted({path for path in outs if path not in ("", "(required)")})  # without a name: a new one under runs/
    assert len(paths) > 30
    ignored = subprocess.run(["git", "check-ignore", *paths], cwd=ROOT, capture_output=True, text=True).stdout
    assert ignored.splitlines() == paths


def test_a_command_with_a_wrong_key_value_or_old_name_would_be_found(monkeypatch, capsys):
    for words, message in (
        (["evaluate", "trails=3"], "unknown key 'trails'"),
        (["evaluate", "physics=trubo"], "has no 'trubo'"),
        (["evaluate", "trials=three"], "trials"),
        (["evaluate", "policy=allegro/studnt"], "no policy 'allegro/studnt'"),
        (["train", "start=runs/student/last.zip"], "is now"),
    ):
        with pytest.raises(AssertionError, match=message):
            parse(words, monkeypatch, capsys)


@pytest.mark.filterwarnings("ignore")  # rl_games warns when it is imported
@pytest.mark.parametrize(("place", "code"), python_blocks(), ids=[place for place, _ in python_blocks()])
def test_shown_python_compiles_and_imports_names_that_exist(place, code):
    for node in ast.walk(ast.parse(code, place)):
        if isinstance(node, ast.Import):
            for alias in node.names:
                importlib.import_module(alias.name)
        elif isinstance(node, ast.ImportFrom):
            module = importlib.import_module(node.module)
            for alias in node.names:
                if not hasattr(module, alias.name):
                    importlib.import_module(f"{node.module}.{alias.name}")
        elif isinstance(node, ast.Attribute) and ast.unparse(node.value) == "dexgrasp":
            assert hasattr(importlib.import_module("dexgrasp"), node.attr), f"dexgrasp.{node.attr}"


def test_included_files_exist():
    assert included_files()
    assert all((ROOT / name).is_file() for name in included_files())


SMALL = {
    "demo": {"trials": 2, "videos": 0},
    "evaluate": {"trials": 2, "num_envs": 2, "videos": 0},
    "compare": {"trials": 2, "num_envs": 2},
    "train": {"iterations": 1, "num_envs": 4, "objects": "generated:4", "validation_trials": 2}
    | {"validation_objects": "generated:2:validation", "validation_interval": 1},
    "export": {"physics": "turbo"},
    "viewer": {"frames": 1, "port": 0},
    "hands show": {"frames": 1, "port": 0},
    "arms check": {"poses": 2},
    "hands tune": {"generations": 1, "population": 4, "trials": 2, "validation_trials": 2}
    | {"objects": "generated:4", "validation_objects": "generated:2:validation"},
    "objects generate": {"n": 36},
    "randomization show": {"n": 50},
    "bench engine": {"num_envs": 2, "threads": 1, "repeats": 1, "presets": "turbo"},
    "bench physics": {"trials": 2, "num_envs": 2, "presets": "turbo"},
    "bench perception": {"frames": 3},
    "bench segmentation": {"scenes": 1, "objects": "shipped"},
    "bench cameras": {"trials": 2, "num_envs": 2},
    "bench tracking": {"trials": 2, "num_envs": 2},
    "bench deploy": {"steps": 50},
    "bench ros": {"trials": 1},
    "bench ablations": {"budget": 0.0001, "variants": "student", "trials": 2, "num_envs": 4, "disturbances": "shift5"}
    | {"objects": "generated:4", "test": "generated:2:test", "validation_objects": "generated:2:validation"},
}
"""Command -> keys that make it small; they replace the values that are shown."""

LOCAL = {
    "random_urdfs": "shipped",
    "generated:20000:test": "generated:2:test",
    "generated:216:test": "generated:2:test",
    "generated:216:validation": "generated:2:validation",
    "path/to/arm.xml": "assets/arms/ur5e/arm.xml",
    "runs/hand_tuned": "runs/hand",
    "runs/a": "allegro/student",
    "runs/b": "runs/student",
}
"""Large or downloaded libraries -> small ones; runs of nobody -> those of the workplace."""

EXAMPLES = {
    "01_evaluate.py": ["--trials", "2"],
    "02_custom_policy.py": ["--num-envs", "2"],
    "03_gymnasium.py": ["--episodes", "2", "--num-envs", "2"],
    "04_stable_baselines3.py": ["--steps", "224", "--num-envs", "2", "--objects", "generated:4"],
    "05_isaacgym_rl_games.py": ["--epochs", "1", "--num-envs", "4"],
    "06_own_hand.py": ["--trials", "2"],
    "07_depth_to_points.py": ["--frames", "1"],
    "08_run_bundle_with_safety_gate.py": [],
    "09_own_reward_and_task.py": ["--steps", "4", "--num-envs", "2"],
}
"""Example -> arguments of a small run; they replace those that are shown, --bundle stays."""


@pytest.fixture(scope="module")
def workplace(tmp_path_factory, household):
    """A folder with what the commands read: meshes, images, a library, trained runs and a bundle."""
    folder = tmp_path_factory.mktemp("workplace")
    for name in ("examples", "assets", "docs"):
        (folder / name).symlink_to(ROOT / name)
    _write_inputs(folder, household)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        train = ["train", *(f"{key}={value}" for key, value in SMALL["train"].items())]
        assert main.main([*train, "recipe=teacher", "out=runs/teacher"]) == 0
        assert main.main([*train, "recipe=student", "teacher=runs/teacher", "out=runs/student"]) == 0
        assert main.main(["export", "policy=runs/student", "out=runs/bundle", "physics=turbo"]) == 0
        for name in ("first", "with_videos"):
            assert main.main(["evaluate", "physics=turbo", "trials=4", f"out=runs/{name}"]) == 0
        (folder / "runs/allegro").mkdir()
        (folder / "runs/allegro/bundle").symlink_to(folder / "runs/bundle")
        (folder / "runs/allegro/refinement").symlink_to(folder / "runs/student")
        assert main.main(["hands", "new", "examples/three_finger_hand/hand.xml", "out=runs/hand"]) == 0
        own_hand = ["hand=examples/three_finger_hand", "recipe=teacher", "out=runs/my_hand/teacher"]
        assert main.main([*train, *own_hand]) == 0
    return folder


def _write_inputs(folder, household):
    import numpy as np
    import trimesh
    import yaml
    from PIL import Image

    from dexgrasp.perception.cameras.extrinsics import pose_to_dict
    from dexgrasp.perception.cameras.open import save_folder
    from dexgrasp.sim.sensors.synthetic_scenes import make_scene
    from tests.helpers import synthetic_scan
    from tests.perception import test_calibration as calibration

    (folder / "path/to/images").mkdir(parents=True)
    (folder / "path/to/meshes").mkdir()
    (folder / "path/to/scans").symlink_to(folder / "path/to/meshes")
    (folder / "runs").mkdir()
    trimesh.creation.box((50, 60, 80)).export(folder / "path/to/meshes/box.obj")  # in millimetres
    trimesh.creation.cylinder(30, 100).export(folder / "path/to/meshes/can.stl")
    for name in ("my_objects", "my_things", "generated"):
        (folder / "runs" / name).symlink_to(household.path)
    poses = np.concatenate([synthetic_scan.ring(10, 32, 0.3), synthetic_scan.ring(6, 58, 0.3)])
    box = synthetic_scan.box_scene((0.03, 0.02, 0.025))
    synthetic_scan.render(box, poses, camera=synthetic_scan.SMALL).save(folder / "path/to/scan")
    shutil.copytree(folder / "path/to/scan", folder / "path/to/second_scan")
    save_folder(folder / "path/to/frames", [make_scene("plain", household, 0).frame] * 2, rate_hz=10)
    camera = replace(calibration.CAMERA, distortion="none", coeffs=(0.0,) * 5)
    (folder / "path/to/images/camera.json").write_text(json.dumps(asdict(camera)))
    poses = np.stack(calibration.poses_before_the_camera(12, np.random.default_rng(5)))
    for number, image in enumerate(calibration.images(poses, camera)):
        Image.fromarray(image).save(folder / f"path/to/images/{number}.png")
    carriers = {f"{n}.png": pose_to_dict(T) for n, T in enumerate(calibration.on_flange(poses))}
    (folder / "path/to/images/poses.yaml").write_text(yaml.safe_dump(carriers))


def small(words, out):
    """Return the words of a `dexgrasp` command made small, with results in the new folder `out`."""
    command = next(c for size in (2, 1) for c in COMMANDS if c.words == " ".join(words[:size]))
    split, names = len(command.words.split()), SMALL.get(command.words, {})
    default = {key.name: key.default for key in keys(command.schema, command.config)}.get("out")
    suffix = Path(next((word for word in words if word.startswith("out=")), default or "")).suffix
    given = [word for word in words[split:] if word.split("=")[0] not in ("out", *names)]
    without = default is None or (command.out_is_file and not suffix)  # the command names its file itself
    written = [] if without else [f"out={out}{suffix}"]
    return [*words[:split], *replaced(given, LOCAL), *(f"{key}={value}" for key, value in names.items()), *written]


def runnable():
    """Return the distinct small commands, each with its page."""
    found = {}
    for command in SHOWN:
        text, words = command.text, dexgrasp_words(command.words)
        if excluded(text) or reason(text, NOT_RUN):
            continue
        if words and not words[0].startswith("-") and "--help" not in words:
            found.setdefault(" ".join(small(words, "OUT")), command)
        else:
            found.setdefault(text, command)
    return found


def _in_folder(words, workplace):
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'ros2_ws/src/dexgrasp_ros'}"}
    done = subprocess.run(
        [sys.executable, *words], cwd=workplace, env=environment, capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]


@pytest.mark.slow
@pytest.mark.parametrize("command", runnable().values(), ids=runnable())
def test_a_shown_command_runs_at_small_size(command, workplace, tmp_path, monkeypatch, capfd):
    words = command.words
    dexgrasp = dexgrasp_words(words)
    if dexgrasp is None:
        assert words[0] == "python", f"add {command.text} to NOT_RUN with a reason, or run it here"
        _in_folder(_example(words[1:], tmp_path, workplace), workplace)
        return
    for word, module, extra in (
        ("ros", "rclpy", "ros"),
        ("cluster=local", "ray", "ray"),
        ("scan", "open3d", "scan"),
    ):
        if word in dexgrasp:
            pytest.importorskip(module, reason=f"needs the extra `{extra}`")
    if dexgrasp and not dexgrasp[0].startswith("-") and "--help" not in dexgrasp:
        dexgrasp = small(dexgrasp, tmp_path / "out")
    if words[0] == "torchrun":
        _in_folder(["-m", "torch.distributed.run", "--nproc-per-node=2", "-m", "dexgrasp", *dexgrasp], workplace)
        return
    monkeypatch.chdir(workplace)
    monkeypatch.setenv("PYTHONPATH", f"{ROOT}:{ROOT / 'ros2_ws/src/dexgrasp_ros'}")  # of processes that it starts
    status = main.main(dexgrasp)
    told = capfd.readouterr()
    expected = {0} if dexgrasp else {2}  # without words: the help
    if dexgrasp[:2] == ["bench", "ros"] and "closed loop, 0 of " in told.out:
        expected = {1}  # a machine that does not keep real time holds nothing
    assert status in expected, told.out[-2000:] + told.err[-2000:]


def _example(words, tmp_path, workplace):
    if words[0] == "-m":  # writes beside its input: into a copy
        shutil.copytree(workplace / words[-1], tmp_path / "copy")
        return [*words[:-1], str(tmp_path / "copy")]
    name = Path(words[0]).name
    kept = words[words.index("--bundle") :] if "--bundle" in words else []
    out = ["--out", str(tmp_path / "out")] if "--out" in (ROOT / words[0]).read_text(encoding="utf-8") else []
    return [words[0], *EXAMPLES[name], *out, *kept]


@pytest.mark.slow
@pytest.mark.parametrize(("place", "code"), python_blocks(), ids=[place for place, _ in python_blocks()])
def test_shown_python_runs(place, code, workplace, tmp_path):
    if unrunnable := [name for name in SKETCHES if name in code]:
        pytest.skip(f"a sketch: {SKETCHES[unrunnable[0]]}")
    script = tmp_path / "shown.py"
    script.write_text(code.replace("num_envs=8", "num_envs=2").replace("< 16", "< 2").replace("trials=20", "trials=2"))
    _in_folder([str(script)], workplace)


SKETCHES = {
    "PregraspPlan(palm_pos_w": "the variables are those of a robot; the loop runs in examples/08",
    "Plan(palm_pos_w": "the variables are those of a robot; the loop runs in examples/08",
    "ppo.yaml": "needs the user's own file; the loop runs in examples/05",
}
"""Part of a block -> why it is compiled, but not run."""


def test_the_shipped_names_that_stand_for_results_exist():
    for name in SHIPPED.values():
        assert (ROOT / name).exists() or assets.path(f"policies/{name}").is_dir()


def test_each_included_file_is_linked_below_for_readers_of_the_markdown():
    blocks = [
        (page, found[1], found[2])
        for page in (ROOT / "docs").rglob("*.md")
        for found in re.finditer(r'--8<-- "([^"]+)"\n```\n\n(.*)', page.read_text(encoding="utf-8"))
    ]
    assert len(blocks) >= 8
    for page, name, below in blocks:
        assert below == f"Code: [{name}](../../{name})", page
        assert (page.parent / "../.." / name).resolve() == ROOT / name
