"""Runs belong to the content of their inputs: a run with another policy, library or version is refused, not resumed."""

import hashlib
import json
import shutil
import sys
from dataclasses import replace

import pytest
import trimesh
from PIL import Image

from dexgrasp.policies import run_directory
from dexgrasp.policies.agents.checkpoint import read_checkpoint, write_checkpoint
from dexgrasp.policies.cli.main import main
from dexgrasp.policies.evaluation import html_report
from dexgrasp.policies.evaluation.config import EvaluateCfg
from dexgrasp.policies.evaluation.evaluate import code_of_trials
from dexgrasp.policies.evaluation.trial_store import BlockLog, JsonLinesStore, TrialBlock, starts_of_trials
from dexgrasp.policies.input_identity import hand_sha256, identify_inputs, plugins_sha256
from dexgrasp.policies.run_directory import Run
from dexgrasp.policies.training.config import TrainCfg
from dexgrasp.sim.objects.generator import generate
from dexgrasp.sim.objects.library import ObjectModel
from tests.helpers.untrained_checkpoint import make_teacher_run

SHORT = ["num_threads=1", "num_envs=2", "physics=turbo", "task.hold_s=0.1", "out=run"]


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A working directory with a policy, a library and the evaluation of both."""
    here = tmp_path_factory.mktemp("finished")
    (here / "policy").mkdir()
    make_teacher_run(here / "policy")
    generate(3, here / "library", families=["box"], workers=1, progress=False)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(here)
        patch.setattr(html_report, "draw_object", lambda model: b"")
        patch.setattr(run_directory, "git_state", lambda: {"hash": "a" * 40, "dirty": False})
        assert main(line()) == 0
    return here


@pytest.fixture
def here(finished, tmp_path, monkeypatch):
    """A copy of it, which is the working directory."""
    shutil.copytree(finished, tmp_path / "copy")
    monkeypatch.chdir(tmp_path / "copy")
    monkeypatch.setattr(html_report, "draw_object", lambda model: b"")
    monkeypatch.setattr(run_directory, "git_state", lambda: {"hash": "b" * 40, "dirty": True})
    return tmp_path / "copy"


def line(*more):
    return ["evaluate", "policy=policy", "objects=library", "trials=2", *SHORT, *more]


def other_weights(here):
    data = read_checkpoint(here / "policy/best.zip")
    write_checkpoint(here / "policy/best.zip", replace(data, tensors={k: 2 * v for k, v in data.tensors.items()}))


def other_objects(here):
    shutil.rmtree(here / "library")
    generate(3, here / "library", families=["box"], seed=1, workers=1, progress=False)
    manifest = json.loads((here / "library/manifest.json").read_text())
    for entry in manifest["objects"]:
        file = here / "library" / entry["file"]
        entry["name"] = entry["name"].replace("_s1_", "_s0_")  # other objects under the old names
        replace(ObjectModel.load(file), name=entry["name"]).save(file)
        entry["sha256"] = hashlib.sha256(file.read_bytes()).hexdigest()
    (here / "library/manifest.json").write_text(json.dumps(manifest))


def lighter_object(here):
    manifest = json.loads((here / "library/manifest.json").read_text())
    manifest["objects"][2]["mass"] *= 0.5
    (here / "library/manifest.json").write_text(json.dumps(manifest))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (other_weights, "the content of policy=policy: sha256 "),
        (other_objects, "the content of objects=library: sha256 "),
        (lighter_object, "the content of objects=library: sha256 "),
    ],
)
def test_an_evaluation_whose_inputs_have_changed_is_refused_and_stays(change, message, here, capsys):
    before = {path: path.read_bytes() for path in (here / "run").iterdir() if path.is_file() and path.name != ".lock"}
    change(here)
    assert main(line()) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert message in error and " then, " in error and "give force=true, which moves the old run aside" in error
    assert {path: path.read_bytes() for path in before} == before
    assert main(line("force=true")) == 0
    assert json.loads((here / "run/diagnostics.json").read_text())["trials_simulated"] == 2
    assert (here / "run.replaced-1/trials.jsonl").read_bytes() == before[here / "run/trials.jsonl"]


@pytest.mark.parametrize("package", ["dexgrasp", "onnxruntime"])
def test_another_version_of_a_package_is_refused(package, here, monkeypatch, capsys):
    versions = run_directory.versions() | {package: "0.0.1"}
    monkeypatch.setattr(run_directory, "versions", lambda packages=(): dict(versions))
    assert main(line("trials=4")) == 2
    assert f"{package}: {run_directory.read_facts(here / 'run')['versions'][package]} then, 0.0.1 now" in (
        capsys.readouterr().err
    )


def test_trials_of_several_commits_are_counted_by_commit_and_said(here, capsys):
    assert main(line("trials=4")) == 0
    screen = " ".join(capsys.readouterr().out.split())
    said = "the trials were run by 2 versions of the code (aaaaaaaaaaaa: 2 trials, bbbbbbbbbbbb with local changes: 2"
    assert said in screen
    result = json.loads((here / "run/result.json").read_text())
    assert [(one["git"]["hash"][0], one["trials"]) for one in result["code"]] == [("a", 2), ("b", 2)]
    assert result["git"] == {"hash": "b" * 40, "dirty": True}
    assert "by 2 versions of the code" in (here / "run/report.html").read_text()
    assert main(["report", "run"]) == 0
    assert "by 2 versions of the code" in (here / "run/report.html").read_text()


def test_a_repeated_command_leaves_the_code_of_the_trials_as_it_was(here):
    assert main(line()) == 0
    result = json.loads((here / "run/result.json").read_text())
    assert result["git"] == {"hash": "a" * 40, "dirty": False} and len(result["code"]) == 1
    assert len(run_directory.read_facts(here / "run")["starts"]) == 2


def test_a_run_of_a_version_that_recorded_no_inputs_goes_on_and_says_so(here, capsys):
    facts = run_directory.read_facts(here / "run")
    facts = {key: facts[key] for key in ("git", "versions", "machine", "seed", "command", "kind")}
    (here / "run/run.json").write_text(json.dumps(facts | {"starts": ["2026-01-02T03:04:05Z"]}))
    (here / "run/blocks.jsonl").unlink()
    assert code_of_trials(here / "run", run_directory.read_facts(here / "run"), []) == []
    assert main(line("trials=3")) == 0
    assert "which did not record its inputs: they are not compared" in capsys.readouterr().err
    code = json.loads((here / "run/result.json").read_text())["code"]
    assert [(one["git"] and one["git"]["hash"][0], one["trials"]) for one in code] == [(None, 2), ("b", 1)]


@pytest.mark.parametrize("damage", [{}, {"versions": {}}, 5, None])
def test_trials_of_a_start_that_is_damaged_are_of_unknown_code(here, damage):
    facts, trials = run_directory.read_facts(here / "run"), JsonLinesStore(here / "run/trials.jsonl").read()
    whole = code_of_trials(here / "run", facts | {"starts": [*facts["starts"], damage]}, trials)
    assert [(one["git"]["hash"][0], one["trials"]) for one in whole] == [("a", 2)]
    (lost,) = code_of_trials(here / "run", facts | {"starts": [damage, *facts["starts"]]}, trials)
    assert lost == {"git": None, "versions": {}, "trials": 2}


def test_objects_that_a_policy_was_trained_on_are_said(here, capsys):
    data = read_checkpoint(here / "policy/best.zip")
    shutil.copytree(here / "library", here / "meshes")  # the training named another folder
    manifest = json.loads((here / "library/manifest.json").read_text())
    for entry in manifest["objects"]:
        entry["split"] = "imported"
        file = here / "library" / entry["file"]
        replace(ObjectModel.load(file), split="imported").save(file)
        entry["sha256"] = hashlib.sha256(file.read_bytes()).hexdigest()
    (here / "library/manifest.json").write_text(json.dumps(manifest))
    config = data.manifest["config"] | {"objects": "meshes"}
    write_checkpoint(here / "policy/best.zip", replace(data, manifest=data.manifest | {"config": config}))
    assert main(line("force=true")) == 0
    assert "Careful: 2 of 2 objects are of the training split, or the policy was trained on them" in " ".join(
        capsys.readouterr().out.split()
    )


def test_an_input_that_changes_while_the_command_runs_is_an_error(here):
    cfg = EvaluateCfg(policy="policy", objects="library", out="other")
    with Run.claim("other", EvaluateCfg) as run:
        run.record(cfg, inputs=identify_inputs(cfg))
        run.check_inputs()
        other_weights(here)
        with pytest.raises(ValueError, match=r"the content of policy=policy: .* was changed while this command ran"):
            run.check_inputs()


def test_every_input_of_a_training_is_identified_by_content(here, tmp_path):
    shutil.copytree("library", "others")
    shutil.copytree("policy", "teacher")
    shutil.copytree("policy", "start")
    (here / "plugin.py").write_text("a = 1\n")
    from dexgrasp.sim.robots.models.model_sources import find_hand

    shutil.copytree(find_hand("allegro").parent, "hand")
    cfg = TrainCfg(
        objects="library",
        validation_objects="others",
        teacher="teacher",
        init_checkpoint="start",
        hand="hand",
        plugins=("plugin.py",),
    )
    before = {key: item.sha256 for key, item in identify_inputs(cfg).items()}
    assert before.keys() == {"objects", "validation_objects", "teacher", "init_checkpoint", "hand", "plugins"}
    assert before == {key: item.sha256 for key, item in identify_inputs(cfg).items()}
    for key, change in {
        "plugins": lambda: (here / "plugin.py").write_text("a = 2\n"),
        "hand": lambda: (here / "hand/hand.xml").write_text((here / "hand/hand.xml").read_text() + "<!-- -->"),
        "teacher": lambda: shutil.copy("teacher/best.zip", "x") and other_weights_of(here / "teacher"),
        "validation_objects": lambda: (here / "others/manifest.json").write_text(
            (here / "others/manifest.json").read_text().replace("box_train", "cube_train")
        ),
    }.items():
        change()
        now = {name: item.sha256 for name, item in identify_inputs(cfg).items()}
        assert [name for name in now if now[name] != before[name]] == [key]
        before = now


def hand_in_parts(folder):
    """Write a hand whose MJCF, include, mesh and texture lie outside of its folder."""
    from dexgrasp.sim.robots.models.model_sources import find_hand

    allegro = find_hand("allegro").parent
    for name in ("hand", "mjcf/parts", "stl", "png"):
        (folder / name).mkdir(parents=True)
    (folder / "hand/hand.yaml").write_text(
        (allegro / "hand.yaml").read_text().replace("model: hand.xml", "model: ../mjcf/hand.xml")
    )
    (folder / "mjcf/parts/assets.xml").write_text(
        '<mujoco><asset><mesh name="m" file="m.stl"/><texture name="t" type="2d" file="t.png"/></asset></mujoco>'
    )
    (folder / "mjcf/hand.xml").write_text(
        (allegro / "hand.xml")
        .read_text()
        .replace(
            "<worldbody>",
            '<compiler meshdir="../stl" texturedir="../png"/><include file="parts/assets.xml"/><worldbody>',
            1,
        )
    )
    Image.new("RGB", (4, 4)).save(folder / "png/t.png")
    trimesh.creation.box((0.01, 0.01, 0.01)).export(folder / "stl/m.stl")
    return folder


@pytest.mark.parametrize("file", ["hand/hand.yaml", "mjcf/hand.xml", "mjcf/parts/assets.xml", "stl/m.stl", "png/t.png"])
def test_every_file_that_a_hand_reads_is_identified_wherever_it_lies(file, tmp_path):
    from dexgrasp.sim.robots.hand import HandSpec

    folder = hand_in_parts(tmp_path)
    assert HandSpec.load(folder / "hand").joint_names
    before = hand_sha256(str(folder / "hand"))
    (folder / "hand/notes.txt").write_text("no part of the hand")
    (folder / "hand/run").mkdir()
    assert hand_sha256(str(folder / "hand")) == before
    content = (folder / file).read_bytes()
    (folder / file).write_bytes(content + b" ")
    assert hand_sha256(str(folder / "hand")) != before
    (folder / file).write_bytes(content)
    assert hand_sha256(str(folder / "hand")) == before


@pytest.mark.parametrize(
    ("plugin", "changed"),
    [
        ("plug.py", "plug.py"),
        ("plug.py", "helper.py"),
        ("plug.py", "late.py"),
        ("plug.py", "parts/deep/inner.py"),
        ("plug.py", "lib/below.py"),
        ("parts.deep", "parts/deep/inner.py"),
        ("parts.deep", "helper.py"),
        ("plug.py", ""),
        ("parts.deep", ""),
    ],
)
def test_modules_beside_a_plugin_are_part_of_it(plugin, changed, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(sys, "modules", {k: v for k, v in sys.modules.items() if k.partition(".")[0] != "parts"})
    for name in ("parts/deep", "lib"):
        (tmp_path / name).mkdir(parents=True)
    texts = {
        "plug.py": "import json\nimport helper\nfrom parts.deep import inner\nimport below\n",
        "helper.py": "def f():\n    import importlib\n    return importlib.import_module('late')\n",
        "late.py": "import plug\n",
        "lib/below.py": "",
        "parts/__init__.py": "",
        "parts/deep/__init__.py": "from . import inner\n",
        "parts/deep/inner.py": "import helper\n",
        "other.py": "",
    }
    for name, text in texts.items():
        (tmp_path / name).write_text(text)
    before = plugins_sha256(plugin)
    (tmp_path / (changed or "other.py")).write_text(texts[changed or "other.py"] + "a = 2\n")
    assert (plugins_sha256(plugin) != before) is bool(changed)


def other_weights_of(folder):
    data = read_checkpoint(folder / "best.zip")
    write_checkpoint(folder / "best.zip", replace(data, tensors={k: 2 * v for k, v in data.tensors.items()}))


def test_blocks_keep_the_start_that_ran_them_last_whatever_a_kill_has_torn(tmp_path):
    path = tmp_path / "blocks.jsonl"
    BlockLog(path, 0).append([TrialBlock("none", range(2))])
    BlockLog(path, 0).append([TrialBlock("none", range(2, 4))])
    path.write_bytes(path.read_bytes()[:-7])
    again = BlockLog(path, 1)
    again.resume()
    again.append([TrialBlock("none", range(2, 4))])
    assert starts_of_trials(path) == {("none", 0): 0, ("none", 1): 0, ("none", 2): 1, ("none", 3): 1}
    assert starts_of_trials(tmp_path / "none") == {}
