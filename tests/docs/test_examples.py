"""The examples and the notebook: each runs as a user would run it, and prints the numbers that it should."""

import os
import re
import runpy
import subprocess
import sys

import pytest

from dexgrasp.sim.robots import HandSpec
from tests.docs.test_shown_commands import EXAMPLES
from tests.helpers.shown_commands import ROOT

FOLDER = ROOT / "examples"
FILES = sorted(path.name for path in FOLDER.glob("0*.py"))


def run_here(name, arguments, monkeypatch, capsys):
    """Run an example in this process and return what it prints."""
    monkeypatch.setattr(sys, "argv", [name, *arguments])
    monkeypatch.syspath_prepend(FOLDER)
    runpy.run_path(str(FOLDER / name), run_name="__main__")
    return capsys.readouterr().out


def test_every_example_is_short_and_has_arguments_for_a_small_run():
    assert set(EXAMPLES) == set(FILES)
    assert {
        name: lines for name in FILES if (lines := len((FOLDER / name).read_text("utf-8").splitlines())) >= 60
    } == {}


def test_the_depth_example_finds_the_object_where_it_stands(monkeypatch, capsys):
    told = run_here("07_depth_to_points.py", ["--frames", "2"], monkeypatch, capsys)
    found = re.findall(r"(\d+) points sampled from \d+, centre \[([^\]]+)\] m", told)
    assert [count for count, _ in found] == ["256", "256"]
    for _, centre in found:  # the objects of a plain scene stand within the workspace, on the table
        x, y, z = map(float, centre.split())
        assert abs(x) < 0.1
        assert abs(y) < 0.1
        assert 0.0 < z < 0.2


def test_the_gate_example_holds_one_period_after_the_readings_are_older_than_allowed(monkeypatch, capsys):
    fresh = run_here("08_run_bundle_with_safety_gate.py", [], monkeypatch, capsys)
    assert "60 control steps" in fresh
    assert "held" not in fresh
    stale = run_here("08_run_bundle_with_safety_gate.py", ["--stale-from", "20"], monkeypatch, capsys)
    # the last reading is of step 19; 0.1 s are allowed, which 2 periods of 0.05 s do not exceed but for rounding
    step = int(re.search(r"step (\d+): held: readings", stale)[1])
    assert step in (21, 22)


def test_the_hand_of_the_example_has_its_palm_frame_and_a_thumb_opposite_two_fingers():
    hand = HandSpec.load(FOLDER / "three_finger_hand")
    assert hand.joint_names == ("left_base", "left_tip", "right_base", "right_tip", "thumb_base", "thumb_tip")
    assert hand.palm_quat_b.tolist() == [1.0, 0.0, 0.0, 0.0]  # +x normal and +z fingers: the axes of the base
    assert hand.thumb_mask.sum() == 2
    assert hand.finger_mask.sum() == 4


def test_the_reward_and_the_task_of_the_example_do_what_they_say(monkeypatch, capsys, household, balanced):
    import torch

    import dexgrasp
    from dexgrasp.perception.transforms import quat_rotate

    monkeypatch.syspath_prepend(FOLDER)
    import upright_grasp

    options = {"task.class_name": "UprightGrasp", "task.reward.extra": {"upright": 0.5}}
    task = dexgrasp.make("allegro", objects=household, num_envs=3, physics=balanced, num_threads=1, **options)
    obs = task.reset()
    state = task.engine.state
    assert (state.object_pos_w[:, 1] <= 0).all()
    up_w = quat_rotate(state.object_quat_w, torch.tensor([0.0, 0.0, 1.0]).to(state.object_quat_w).expand(3, 3))
    torch.testing.assert_close(upright_grasp.up_axis(state.object_quat_w), up_w)
    torch.testing.assert_close(obs["teacher"][:, -3:], up_w.float())
    step = task.step(torch.zeros(3, task.num_actions))
    assert step.info["terms"]["upright"] == 0.0  # it counts from the lift on


@pytest.mark.slow
@pytest.mark.parametrize("name", FILES)
def test_an_example_runs_as_a_user_runs_it(name, tmp_path):
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'ros2_ws/src/dexgrasp_ros'}"}
    out = ["--out", str(tmp_path / "out")] if "--out" in (FOLDER / name).read_text("utf-8") else []
    done = subprocess.run(
        [sys.executable, FOLDER / name, *EXAMPLES[name], *out],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    assert re.search(PRINTED[name], done.stdout), done.stdout[-2000:]


PRINTED = {
    "01_evaluate.py": r"none: .* of 2 trials(.|\n)*shift5: .* of 2 trials",
    "02_custom_policy.py": r"squeeze 0: [0-2] of 2 episodes succeeded(.|\n)*squeeze 0\.5: [0-2] of 2 ",
    "03_gymnasium.py": r"episode 2 of 2: \w+, \w+, attempts: [1-3]\n[0-2] of 2 episodes succeeded",
    "04_stable_baselines3.py": r"return -?\d+\.\d\d \(standard deviation .*\) over 2 episodes; saved: .*out\.zip",
    "05_isaacgym_rl_games.py": r"checkpoints: .*out",
    "06_own_hand.py": r"three_finger: 6 joints(.|\n)*scripted grasp: [0-2] of 2 trials(.|\n)*action \(12,\)",
    "07_depth_to_points.py": r"frame 0: 256 points sampled from \d+, centre ",
    "08_run_bundle_with_safety_gate.py": r"60 control steps, palm moved 0\.\d+ m",
    "09_own_reward_and_task.py": r"upright +\+0\.000(.|\n)*tilt of the objects: \[\d+, \d+\] degrees",
}
"""What each example prints at small size."""


@pytest.mark.slow
def test_the_notebook_runs_without_a_browser(tmp_path, monkeypatch):
    nbformat = pytest.importorskip("nbformat", reason="needs the extra `dev`")
    nbclient = pytest.importorskip("nbclient", reason="needs the extra `dev`")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    notebook = nbformat.read(FOLDER / "quickstart.ipynb", as_version=4)
    assert not any(cell.get("outputs") for cell in notebook.cells), "save the notebook without outputs"
    (trials,) = [cell for cell in notebook.cells if cell.source.startswith("TRIALS = ")]
    trials.source = "TRIALS = 2"
    resources = {"metadata": {"path": str(tmp_path)}}
    nbclient.NotebookClient(notebook, timeout=300, resources=resources).execute()
    texts = [o.get("text", "") for cell in notebook.cells if cell.cell_type == "code" for o in cell.outputs]
    assert any(re.search(r"of 2 trials\nreport: ", text) for text in texts), texts
    images = [o for cell in notebook.cells for o in cell.get("outputs", []) if "image/png" in o.get("data", {})]
    assert len(images) == 2
