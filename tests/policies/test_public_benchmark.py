"""Benchmark on public object sets: which folder is the set, one row, its check, and how a run goes on."""

import json
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from subprocess import PIPE

import pytest

from dexgrasp.policies.cli.main import main
from dexgrasp.policies.evaluation.statistics import success_summary
from dexgrasp.policies.public_benchmark import object_sets as sets
from dexgrasp.policies.public_benchmark.rows import check_row, parts, read_rows, table, to_line

ROOT = Path(__file__).resolve().parents[2]
CUBE = """v 0 0 0\nv {0} 0 0\nv 0 {0} 0\nv {0} {0} 0\nv 0 0 0.06\nv {0} 0 0.06\nv 0 {0} 0.06\nv {0} {0} 0.06
f 1 3 4 2\nf 5 6 8 7\nf 1 2 6 5\nf 3 7 8 4\nf 1 5 7 3\nf 2 4 8 6\n"""


HOLD = """
import sys
from dexgrasp.policies.run_directory import Run
class PublicBenchmarkCfg: pass
with Run.claim(sys.argv[1], PublicBenchmarkCfg):
    print("held", flush=True)
    sys.stdin.read(1)
"""
"""Program that holds the run directory of a benchmark."""


def make_ycb(folder):
    """A folder with the names of YCB: boxes of 4 to 5.5 cm."""
    for i, name in enumerate(sets.object_sets()["ycb"].names):
        (folder / name).mkdir(parents=True)
        (folder / name / "textured.obj").write_text(CUBE.format(0.04 + 0.0002 * i))
    return folder


def test_the_sets_have_the_objects_that_their_sources_have():
    counts = {name: one.count(quick=False) for name, one in sets.object_sets().items()}
    assert counts == {"random_urdfs": 1000, "dexgraspnet75": 75, "ycb": 78, "contactdb": 51}
    assert sets.find_set("random_urdfs").names[::999] == ("000", "999")
    assert all(len(set(one.names)) == len(one.names) for one in sets.object_sets().values())
    with pytest.raises(ValueError, match=r"'ycbb'\. Did you mean 'ycb'"):
        sets.find_set("ycbb")


def test_a_folder_that_is_not_the_set_is_refused_with_what_is_missing(tmp_path):
    chosen, folder = sets.find_set("ycb"), make_ycb(tmp_path / "ycb")
    meshes = chosen.meshes(folder)
    assert len(meshes) == 78 and meshes["mug"] == Path("mug/textured.obj")
    (folder / "mug/textured.obj").unlink()
    with pytest.raises(FileNotFoundError, match=r"is not ycb: 1 mesh of 78 missing, as mug/textured\.obj; expected gi"):
        chosen.meshes(folder)


def test_a_set_with_an_object_of_unknown_name_needs_exactly_that_many(tmp_path):
    chosen = replace(sets.find_set("dexgraspnet75"), names=("a", "b"), unnamed=1)
    for name in ("a", "b", "other"):
        (tmp_path / name / "coacd").mkdir(parents=True)
        (tmp_path / name / "coacd/decomposed.obj").write_text(name)
        if name == "b":
            with pytest.raises(FileNotFoundError, match="2 objects, expected 3"):
                chosen.meshes(tmp_path)
    assert list(chosen.meshes(tmp_path)) == ["a", "b", "other"]


def test_meshes_are_identified_by_their_bytes_wherever_they_lie(tmp_path):
    here, there = make_ycb(tmp_path / "here"), make_ycb(tmp_path / "there")
    meshes = sets.find_set("ycb").meshes(here)
    assert sets.meshes_sha256(here, meshes) == sets.meshes_sha256(there, meshes)
    (there / "mug/textured.obj").write_text(CUBE.format(0.05))
    assert sets.meshes_sha256(here, meshes) != sets.meshes_sha256(there, meshes)


@pytest.mark.parametrize(
    "change", [{"scales": (0.9,)}, {"trials_per_object": 9}, {"mass_kg": (0.1, 0.1)}, {"names": ("mug",)}]
)
def test_another_protocol_of_the_same_name_is_another_one(change):
    chosen = sets.find_set("ycb")
    assert replace(chosen, **change).protocol_sha256(False) != chosen.protocol_sha256(False)
    assert replace(chosen, source="a mirror").protocol_sha256(False) == chosen.protocol_sha256(False)
    assert chosen.protocol_sha256(True) != chosen.protocol_sha256(False)


def test_a_quick_run_takes_objects_from_all_over_the_names():
    meshes = {f"{i:02d}": Path(f"{i:02d}") for i in range(10)}
    assert list(sets.spread(meshes, 4)) == ["00", "02", "05", "07"]


def good_row():
    """A row of a whole benchmark on YCB, of 780 trials in each part."""
    chosen = sets.find_set("ycb")
    counts = {"first_attempt": success_summary(700, 780), "success": success_summary(750, 780)}
    return {
        "benchmark": "ycb",
        "quick": False,
        "policy": "allegro/student",
        "hand": "allegro",
        "mount": "floating",
        "attempts": 3,
        "objects": 78,
        "refused": 0,
        "results": [{"scale": s, "disturbance": d} | counts for s, d in parts(chosen, False)],
        "protocol_sha256": chosen.protocol_sha256(False),
        "policy_sha256": "0" * 64,
        "objects_sha256": "1" * 64,
        "configuration_sha256": "2" * 64,
        "version": "0.1.0",
        "commit": "a" * 40,
        "local_changes": False,
    }


def changed(path, value):
    """`good_row` as plain JSON with one value changed; None removes it."""
    row = json.loads(to_line(good_row()))
    place = row
    for key in path[:-1]:
        place = place[key]
    if value is None:
        del place[path[-1]]
    else:
        place[path[-1]] = value
    return row


WRONG = [
    (("hand",), None, "missing or unknown: hand"),
    (("colour",), "red", "missing or unknown: colour"),
    (("objects",), 78.0, "objects must be int, got 78.0"),
    (("quick",), 1, "quick must be bool"),
    (("benchmark",), "scans", "benchmark must be one of random_urdfs"),
    (("policy_sha256",), "0" * 63, "policy_sha256 must have 64 hexadecimal digits"),
    (("objects_sha256",), "G" * 64, "objects_sha256 must have 64"),
    (("protocol_sha256",), "0" * 64, "the protocol is not that of this version: 000000000000, expected"),
    (("quick",), True, "the protocol is not that of this version"),
    (("attempts",), 5, "attempts must be 3"),
    (("objects",), 77, "must be 78 together, got 77 and 0"),
    (("policy",), "", "policy is empty"),
    (("commit",), "main", "commit must have 40"),
    (("local_changes",), True, "code with local changes"),
    (("results",), [], "results must be of 1.0-none, 1.0-shift5, 1.0-force"),
    (("results", 0, "disturbance"), "slippery", "results must be of"),
    (("results", 0, "extra"), 1, "results must be of"),
    (("results", 1, "success", "trials"), 779, "success must have 0 to 780 successes of 780 trials"),
    (("results", 1, "success", "successes"), 781, "success must have 0 to 780"),
    (("results", 1, "success", "successes"), 751, "rate and interval of success must be"),
    (("results", 2, "first_attempt", "success_rate"), 0.9, "rate and interval of first_attempt must be"),
    (("results", 2, "success", "wilson95"), [0.9, 0.98], "rate and interval of success must be"),
    (("results", 2, "success", "wilson95"), [], "rate and interval of success must be"),
    (("results", 0, "success"), success_summary(699, 780), "more successes at the first attempt"),
]


def test_a_row_as_the_command_prints_it_is_valid():
    assert check_row(json.loads(to_line(good_row()))) == ""


@pytest.mark.parametrize(("path", "value", "message"), WRONG, ids=[message for *_, message in WRONG])
def test_a_wrong_row_is_refused_with_the_value(path, value, message):
    assert message in check_row(changed(path, value))


def test_a_file_is_refused_with_the_line_of_a_wrong_or_repeated_row(tmp_path, capsys):
    file, line = tmp_path / "rows.jsonl", to_line(good_row())
    other = to_line(good_row() | {"policy_sha256": "3" * 64})
    file.write_text(f"{line}\n{other}\n")
    assert main(["benchmark", "validate", str(file)]) == 0
    assert capsys.readouterr().out == f"{file}: 2 rows, all valid\n"
    for text, message in (
        (f"{line}\n{line}\n", "line 2: repeats line 1"),
        (f"{line}\n{{\n", "line 2"),
        (line.replace('"hand"', '"policy": "x", "hand"') + "\n", "policy"),
        ("[]\n", "line 1: expected a JSON object"),
    ):
        file.write_text(text)
        assert main(["benchmark", "validate", str(file)]) == 2
        assert message in capsys.readouterr().err


@pytest.fixture
def measured(tmp_path, monkeypatch, capsys):
    """Words of a quick run of two objects, and the row that it printed."""
    monkeypatch.setattr(sets, "QUICK_OBJECTS", 2)
    words = ["benchmark", "ycb", str(make_ycb(tmp_path / "ycb")), "quick=true", "num_threads=1"]
    words += [f"out={tmp_path / 'run'}"]
    assert main(words) == 0
    return words, row_of(capsys)


def row_of(capsys):
    """The row on the standard output, which holds nothing else."""
    (line,) = capsys.readouterr().out.splitlines()
    return json.loads(line)


def test_a_run_prints_one_valid_row_goes_on_and_refuses_what_has_changed(measured, tmp_path, capsys):
    words, row = measured
    run = tmp_path / "run"
    assert check_row(row | {"local_changes": False}) == ""
    assert [one["success"]["trials"] for one in row["results"]] == [2, 2]
    assert json.loads((run / "row.json").read_text()) == row
    first = run / "1.0-none/trials.jsonl"
    trials = first.read_text()
    (run / "1.0-shift5/trials.jsonl").unlink()  # as if it had been interrupted there
    assert main(words) == 0
    assert row_of(capsys) == row
    assert first.read_text() == trials
    assert json.loads((run / "1.0-none/diagnostics.json").read_text())["trials_simulated"] == 0
    with subprocess.Popen([sys.executable, "-c", HOLD, str(run)], stdin=PIPE, stdout=PIPE, cwd=ROOT) as other:
        assert other.stdout.readline() == b"held\n"
        assert main(words) == 2
        other.communicate(b"\n")
    assert f"{run} is in use by process {other.pid}" in capsys.readouterr().err
    assert main([*words, "policy=zero"]) == 2
    assert "policy: 'synergy' then, 'zero' now" in capsys.readouterr().err
    facts = json.loads((run / "run.json").read_text())
    (run / "run.json").write_text(json.dumps(facts | {"git": {"hash": "b" * 40, "dirty": False}}))
    assert main(words) == 2
    assert re.search(r"was begun by other code \(commit bbbbbbbbbbbb then, .* now\)", capsys.readouterr().err)
    (run / "run.json").write_text(json.dumps(facts))
    mesh = tmp_path / "ycb/mug/textured.obj"
    mesh.write_text(CUBE.format(0.03))
    assert main(words) == 2
    assert re.search(r"the content of folder=.*: sha256 \w{12} then, \w{12} now", capsys.readouterr().err)


def test_the_page_of_results_lists_the_rows_of_the_file():
    page = (ROOT / "docs/results/benchmark.md").read_text(encoding="utf-8")
    rows = read_rows(ROOT / "docs/results/benchmark.jsonl")
    assert page.endswith("\n".join(table(rows)) + "\n")
