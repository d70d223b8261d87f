"""`dexgrasp video`: a stored trial is repeated, its outcome compared with the recorded one, bad input refused."""

import json
from dataclasses import replace

import imageio_ffmpeg
import pytest
import torch
from PIL import Image

from dexgrasp.policies.cli.main import main
from dexgrasp.policies.evaluation import html_report
from dexgrasp.policies.evaluation.config import EvaluateCfg
from dexgrasp.policies.evaluation.evaluate import evaluate
from dexgrasp.policies.evaluation.videos import steps_done
from dexgrasp.sim.rendering.offscreen import RenderUnavailable, backend
from dexgrasp.sim.scene import PhysicsCfg
from dexgrasp.sim.task.grasp_task import TaskCfg

FAST = PhysicsCfg("turbo", timestep_s=0.01, integrator="discrete", cone="pyramidal", impratio=5.0, condim=3)
CFG = EvaluateCfg(trials=3, num_envs=3, num_threads=1, task=TaskCfg(grasp_s=0.6, lift_s=0.3, hold_s=0.1), physics=FAST)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """An evaluation of three trials of 20 control steps."""
    out = tmp_path_factory.mktemp("runs") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(html_report, "draw_object", lambda model: b"")
        evaluate(replace(CFG, out=str(out)))
    return out


@pytest.fixture(autouse=True)
def _opengl():
    try:
        backend()
    except RenderUnavailable as error:
        pytest.skip(str(error))


def recorded(run, trial):
    row = json.loads((run / "trials.jsonl").read_text().splitlines()[trial])
    return "success" if row["success"] else row["failure"].replace("_", " ")


def test_a_stored_trial_becomes_a_video_and_ends_as_recorded(run, capsys):
    assert main(["video", str(run), "trial=1", "width=192"]) == 0
    out, progress = capsys.readouterr()
    assert progress.splitlines()[-1].startswith("video: 20/20 (100 %), ")  # control steps
    assert f": {recorded(run, 1)}, as recorded" in out
    [path] = (run / "videos").glob("*_1_*.mp4")
    assert str(path) in out
    frames, seconds = imageio_ffmpeg.count_frames_and_secs(path)
    assert (frames, seconds) == (20, pytest.approx(1.0))


def test_an_animation_leaves_steps_out_and_keeps_the_speed(run, tmp_path, capsys):
    assert main(["video", str(run), "trial=2", f"out={tmp_path / 'a.webp'}", "width=150", "speed=0.5"]) == 0
    with Image.open(tmp_path / "a.webp") as image:
        assert image.size == (150, 100)
        assert image.n_frames == 20  # 10 frames per second at half speed
    assert main(["video", str(run), "trial=2", f"out={tmp_path / 'a.gif'}", "width=150"]) == 0
    with Image.open(tmp_path / "a.gif") as image:
        assert image.n_frames == 10
        assert image.info["duration"] == 100


def test_a_trial_that_ends_otherwise_is_said_and_gives_status_1(run, tmp_path, capsys):
    lines = (run / "trials.jsonl").read_text()
    rows = [json.loads(line) for line in lines.splitlines()]
    rows[0] |= {"success": True, "failure": ""} if not rows[0]["success"] else {"success": False, "failure": "missed"}
    (run / "trials.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    try:
        assert main(["video", str(run), "trial=0", f"out={tmp_path / 'a.gif'}", "width=96"]) == 1
        assert f"but '{recorded(run, 0)}' was recorded" in capsys.readouterr().out
    finally:
        (run / "trials.jsonl").write_text(lines)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["trial=3"], "has no trial 3: it has trials 0 to 2"),
        (["disturbance=heavy"], "has no trials with disturbance=heavy; it has: none"),
        (["out=a.avi"], "a recording is an .mp4, .gif or .webp file, got 'a.avi'"),
        (["width=100"], "width of an .mp4 must be a multiple of 48 pixels, got 100"),
        (["speed=0"], "'speed' must lie in 0.1..10, got 0"),
    ],
)
def test_bad_input_is_refused_in_one_line(run, words, message, capsys):
    assert main(["video", str(run), *words]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert len(error.splitlines()) == 1


def test_other_folders_are_refused_with_the_one_to_take(run, tmp_path, capsys):
    assert main(["video", str(tmp_path)]) == 2
    assert "is no run directory" in capsys.readouterr().err
    assert main(["video"]) == 2
    assert "dexgrasp video RUN trial=N" in capsys.readouterr().err
    for kind, words in (("compare", f"take {tmp_path / 'a'} or {tmp_path / 'b'}"), ("train", "is a run of 'train'")):
        (tmp_path / "run.json").write_text(json.dumps({"kind": kind}))
        (tmp_path / "config.yaml").write_text("")
        assert main(["video", str(tmp_path)]) == 2
        assert words in capsys.readouterr().err


def test_the_counter_of_frames_never_goes_back_or_beyond_the_end():
    """Two trials of 10 steps; the first needs two attempts, the second one, and goes on to count when it has ended."""
    earlier = torch.tensor([1, 0])
    course = [(1, 0, 1, 0), (1, 7, 1, 7), (2, -3, 1, 8), (2, 0, 1, 10), (2, 5, 1, 15), (2, 10, 1, 20)]
    counts = [
        steps_done(torch.tensor([first, second]), earlier, torch.tensor([at, there]), 10)
        for first, at, second, there in course
    ]
    assert counts == [0, 14, 18, 20, 25, 30]
