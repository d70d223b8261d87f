"""Wrong values, names and files of every command are refused before torch and the simulator are imported."""

import dataclasses
import importlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import get_type_hints

import pytest

from dexgrasp import configs
from dexgrasp.policies.agents.location import UNTRAINED
from dexgrasp.policies.agents.registry import POLICIES
from dexgrasp.policies.cli import main as cli
from dexgrasp.policies.cli.commands import COMMANDS
from dexgrasp.policies.cli.source_schema import source_schema

ROOT = Path(__file__).resolve().parents[2]

REFUSED = {
    "demo": ("engine=mujco", "policy=allegro/studnt", "trials=0", "disturbance=shift4"),
    "list": ("polices",),
    "completion": ("fsh",),
    "hands new": ("hand.xml", "hand.xml out=x side=up"),
    "hands check": ("alegro", "side=up"),
    "arms check": ("ur5", "arm=ur5", "mount=ur5e", "floating", "hand=alegro", "poses=0", "ur5e:tips=tool0"),
    "hands show": ("alegro", "port=99999", "policy=none"),
    "hands tune": ("alegro", "population=1", "physics=turbi", "objects=shiped"),
    "objects generate": ("out=x n=0", "out=x split=tset"),
    "objects import": ("meshes out=x unit=mmm", "meshes out=x density=0"),
    "objects scan": ("nowhere out=x", ". out=x poses=bord", ". out=x fusion.voxel_m=1", ". out=x mass=0 name=a"),
    "objects show": ("shiped", "shipped most=0", "nowhere"),
    "objects compare": ("shiped meshes", "shipped nowhere"),
    "train": (
        "engine=mujco",
        "recipe=techer",
        "hand=alegro",
        "objects=shiped",
        "validation_objects=none",
        "recipe=student",
        "recipe=student teacher=none",
        "teacher=allegro/teacher",
        "init_checkpoint=none",
        "num_envs=0",
        "learning_rate=nan",
        "task.camera.mode=frst",
        "physics.condim=5",
        "tracker=wandbb",
        "iterations=many",
        "out=/proc/run",
        "history_encoder=lstn",
    ),
    "evaluate": (
        "policy=allegro/studnt",
        "policy=allegro/student camera=lates",
        "mount=ur5",
        "engine=mujco",
        "objects=",
        "policy=",
        "task.reset.approach=below",
        "task.reward.lift=1e9",
        "videos=-1",
        "side=middle",
        "physics=turbi",
    ),
    "compare": ("synergy", "synergy runs/none", "synergy zero alpha=2"),
    "benchmark": ("", "ycbb .", "ycb", "ycb nowhere", "ycb . policy=none", "ycb . num_envs=0"),
    "benchmark validate": ("", "nowhere"),
    "benchmark dexgraspbench": ("", "nowhere", ".", ". physics=turbo", ". most=-1"),
    "benchmark grasps": ("", "nowhere", "nowhere most=0"),
    "report": ("", "nowhere"),
    "video": ("", "nowhere", "nowhere speed=100"),
    "export": ("policy=none out=x", "policy=allegro/student out=x trials=0"),
    "publish": ("policy=none out=x", "policy=allegro/teacher out=x sign=none"),
    "replay": ("nowhere policy=allegro/student", "nowhere policy=none", "nowhere policy=none segment.plane=flat"),
    "checkpoint sb3": ("none out=x.zip", "allegro/teacher out=x.zip obs=all"),
    "checkpoint upgrade": ("none", "none keep=maybe"),
    "bench engine": ("presets=turb", "engine=mujco", "num_envs=0"),
    "bench gpu": ("parts=x", "task.vector_frame=hand"),
    "bench physics": ("presets=ref", "policy=none"),
    "bench perception": ("hand=x", "frames=0"),
    "bench segmentation": ("kinds=plan", "scenes=0", "objects=none", "layouts=heap"),
    "bench cameras": ("camera=x", "disturbance=x", "hand=x"),
    "bench tracking": ("disturbance=x", "hand=x"),
    "bench ros": ("policy=none", "trials=0", "arm=none.xml", "hand=none"),
    "bench ablations": (
        "variants=studnt teacher=allegro/teacher",
        "disturbances=shft3 teacher=allegro/teacher",
        "teacher=none",
        "test=none",
    ),
    "bench deploy": ("policy=none", "steps=0"),
    "calibrate board": ("dpi=1", "board.columns=2", "board.square_m=35"),
    "calibrate camera": ("nowhere", "nowhere mounted=flnge", "nowhere stream=ir", "realsense views=0"),
    "check scene": ("nowhere", ". camera_file=none", ". frames=0", ". segment.plane=flat"),
    "randomization show": ("n=-1", "randomization=papr", "reset.camera_placement=under"),
    "viewer": ("policy=none", "nowhere", "camera_file=none", "port=99999", "preset=x"),
}
"""Words that each command refuses."""
HEAVY = ("torch", "mujoco", "scipy", "stable_baselines3", "cv2", "hydra", "onnxruntime", "rclpy", "matplotlib")
SCRIPT = """
import json, sys, time
from dexgrasp.policies.cli.main import main
found = []
for line in json.loads(sys.argv[1]):
    start_s = time.process_time()
    status = main(line.split())
    loaded = [name for name in json.loads(sys.argv[2]) if name in sys.modules]
    found.append((line, status, round(time.process_time() - start_s, 3), loaded))
    for name in loaded:
        del sys.modules[name]
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory):
    """(line, exit status, CPU seconds, heavy modules) of every line, all in one process, and its stderr."""
    lines = [f"{words} {rest}" for words, cases in REFUSED.items() for rest in cases]
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, json.dumps(lines), json.dumps(HEAVY)],
        capture_output=True,
        text=True,
        cwd=tmp_path_factory.mktemp("empty"),
        env=os.environ | {"PYTHONPATH": f"{ROOT}:{ROOT}/ros2_ws/src/dexgrasp_ros"},
        timeout=120,
    )
    return json.loads(done.stdout.splitlines()[-1]), done.stderr


def test_every_command_has_wrong_words():
    assert set(REFUSED) == {command.words for command in COMMANDS}


def test_wrong_words_are_refused_before_anything_heavy_is_imported(outcomes):
    found, stderr = outcomes
    assert not [(line, status) for line, status, _, _ in found if status != 2], stderr
    assert not [(line, loaded) for line, _, _, loaded in found if loaded]
    assert "Traceback" not in stderr


def test_wrong_words_cost_less_than_a_second(outcomes):
    assert not [(line, cpu_s) for line, _, cpu_s, _ in outcomes[0] if cpu_s > 1.0]


@pytest.mark.parametrize("command", COMMANDS, ids=[command.words for command in COMMANDS])
def test_the_class_made_from_the_source_has_the_fields_of_the_real_one(command):
    """Names, order, types with ranges, and defaults; only names of a table are known to the source alone."""
    module, _, name = command.schema.partition(":")
    if module.startswith("dexgrasp_ros"):
        pytest.importorskip("rclpy", reason="needs the extra `ros`")
    compare(source_schema(command.schema), getattr(importlib.import_module(module), name))


def compare(made, real):
    ours, theirs = (get_type_hints(kind, include_extras=True) for kind in (made, real))
    assert [field.name for field in dataclasses.fields(made)] == [field.name for field in dataclasses.fields(real)]
    for mine, field in zip(dataclasses.fields(made), dataclasses.fields(real), strict=True):
        if dataclasses.is_dataclass(theirs[field.name]):
            compare(ours[field.name], theirs[field.name])
            continue
        assert ours[field.name] == theirs[field.name] or "Literal" in str(ours[field.name]), field.name
        default = field.default_factory() if field.default is dataclasses.MISSING is not field.default_factory else None
        assert mine.default == field.default or default == {}, field.name


def test_both_ways_to_load_a_command_line_agree():
    lines = {
        "train": ["recipe=student", "teacher=allegro/teacher", "camera=d435_latest", "task.hold_s=2"],
        "evaluate": ["physics=turbo", "physics.condim=6", "camera=d435_tracked", "task.reward.extra={}", "trials=7"],
        "bench gpu": ["parts=stepping,learning", "num_envs=8,16"],
        "compare": ["a=zero", "b=synergy", "task=paper"],
    }
    for words, overrides in lines.items():
        command = next(command for command in COMMANDS if command.words == words)
        assert configs.as_dict(cli.load_early(command, overrides)) == configs.as_dict(cli.load(command, overrides))


def test_the_untrained_policies_are_those_of_the_registry():
    assert set(UNTRAINED) == set(POLICIES)
