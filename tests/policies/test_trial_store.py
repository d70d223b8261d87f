"""Plans and stores of trials: which blocks remain, what a torn or foreign file does."""

import json
import math
from dataclasses import asdict, replace

import pytest

from dexgrasp.policies.evaluation.trial_store import (
    FIELDS,
    OF_CLUTTER,
    JsonLinesStore,
    TrialBlock,
    TrialPlan,
    has_trials,
    in_order,
    select,
)
from dexgrasp.sim.task.outcomes import Outcome

PLAN = TrialPlan(disturbances=["none", "heavy"], trials=5, rows=2, objects=["box", "mug", "cup"])


def outcome(disturbance, trial, name=None, **measured):
    values = {"lift_m": 0.125, "slip_m": 0.0, "penetration_m": 0.001} | measured
    return Outcome(
        trial=trial,
        object=name or PLAN.objects[trial % 3],
        disturbance=disturbance,
        success=trial % 2 == 0,
        failure="" if trial % 2 == 0 else "missed",
        **values,
    )


def outcomes(disturbance, *trials):
    return [outcome(disturbance, trial) for trial in trials]


def names(blocks):
    return [(block.disturbance, list(block.trials)) for block in blocks]


def test_a_plan_of_blocks_worked_by_hand():
    blocks = PLAN.blocks()
    assert names(blocks) == [(name, [i, i + 1]) for name in ("none", "heavy") for i in (0, 2, 4)]
    assert [PLAN.object_of(trial) for trial in range(5)] == ["box", "mug", "cup", "box", "mug"]
    assert PLAN.requested(blocks[2]) == [("none", 4)]  # trial 5 fills the block only
    assert PLAN.requested(blocks[3]) == [("heavy", 0), ("heavy", 1)]


@pytest.mark.parametrize(
    ("stored", "remaining"),
    [
        ([], [("none", 0), ("none", 2), ("none", 4), ("heavy", 0), ("heavy", 2), ("heavy", 4)]),
        (outcomes("none", 0, 1, 2, 4), [("none", 2), ("heavy", 0), ("heavy", 2), ("heavy", 4)]),
        (outcomes("none", 0, 1, 2, 3, 4) + outcomes("heavy", 0, 1, 2, 3, 4), []),
        (outcomes("heavy", 0, 1, 2, 3, 4, 5), [("none", 0), ("none", 2), ("none", 4)]),
    ],
)
def test_what_remains_are_blocks_with_a_requested_trial_that_is_not_stored(stored, remaining):
    assert [(block.disturbance, block.trials.start) for block in PLAN.remaining(stored)] == remaining


def test_selected_trials_come_in_the_order_of_the_plan():
    stored = [*outcomes("heavy", 5, 4, 0), *outcomes("force", 0), *outcomes("none", 3, 1)]
    expected = [("none", 1), ("none", 3), ("heavy", 0), ("heavy", 4)]
    assert [(o.disturbance, o.trial) for o in PLAN.select(stored)] == expected
    assert [(o.disturbance, o.trial) for o in select(stored, ["heavy"], 1)] == [("heavy", 0)]


@pytest.mark.parametrize("trials", [1, 3, 5, 8])
@pytest.mark.parametrize("rows", [1, 2, 3, 8])
@pytest.mark.parametrize(("none", "heavy"), [(0, 0), (3, 0), (4, 1), (5, 2), (7, 7)])
def test_every_stored_trial_is_kept_and_the_others_are_run_once_whatever_the_blocks(trials, rows, none, heavy):
    plan = TrialPlan(disturbances=["none", "heavy"], trials=trials, rows=rows, objects=["box", "mug", "cup"])
    stored = outcomes("none", *range(none)) + outcomes("heavy", *range(heavy))
    kept = in_order([*stored[none:], *stored[:none]], plan)
    assert kept == stored
    added = [plan.missing(block, kept) for block in plan.remaining(kept)]
    assert all(added)  # no block is run for nothing
    run = [(part.disturbance, trial) for parts in added for part in parts for trial in part.trials]
    expected = [("none", i) for i in range(none, trials)] + [("heavy", i) for i in range(heavy, trials)]
    assert run == expected


def test_the_missing_trials_of_a_block_are_parts_without_a_stored_trial_between():
    plan = TrialPlan(disturbances=["none"], trials=9, rows=8, objects=["box", "mug", "cup"])
    stored = [*outcomes("none", 2, 5, 6), *outcomes("heavy", 0)]
    assert names(plan.missing(plan.blocks()[0], stored)) == [("none", [0, 1]), ("none", [3, 4]), ("none", [7])]
    assert names(plan.missing(plan.blocks()[1], stored)) == [("none", [8])]


@pytest.mark.parametrize(
    ("stored", "text"),
    [
        (outcomes("none", 1), "stored trial 1 with 'mug' stands where trial 0 with 'box' belongs"),
        (outcomes("none", 0, 2), "stored trial 2 with 'cup' stands where trial 1 with 'mug' belongs"),
        ([outcome("heavy", 0, "jar")], "stored trial 0 with 'jar' stands where trial 0 with 'box' belongs"),
    ],
)
def test_trials_of_other_objects_or_out_of_order_are_refused(stored, text):
    with pytest.raises(ValueError, match=text + r".*choose another out="):
        in_order(stored, PLAN)


def test_a_line_holds_the_fields_of_a_trial_and_no_more(tmp_path):
    store = JsonLinesStore(tmp_path / "trials.jsonl")
    assert store.read() == []
    rows = [asdict(outcome("größer", 0)) | {"worker": "w", "seed": 3}, asdict(outcome("none", 1, lift_m=-math.inf))]
    store.append(rows)
    store.append([asdict(outcome("none", 2))])
    lines = store.path.read_text(encoding="utf-8").splitlines()
    assert [list(json.loads(line)) for line in lines] == [[key for key in FIELDS if key not in OF_CLUTTER]] * 3
    assert lines[0] == (
        '{"trial": 0, "object": "box", "disturbance": "größer", "success": true, "failure": "", "lift_m": 0.125, '
        '"slip_m": 0.0, "penetration_m": 0.001, "attempts": 1, "opposed_share": null}'
    )
    assert json.loads(lines[1])["lift_m"] is None
    found = store.read()
    assert found[0] == outcome("größer", 0) and math.isnan(found[1].lift_m) and found[2] == outcome("none", 2)


def test_a_trial_among_other_objects_comes_back_with_its_counts(tmp_path):
    store = JsonLinesStore(tmp_path / "trials.jsonl")
    among = outcome("none", 0, contact="stacked", neighbours=4, neighbours_moved=2, neighbours_fallen=1)
    store.append([asdict(among)])
    assert list(json.loads(store.path.read_text(encoding="utf-8"))) == list(FIELDS)
    assert [replace(one, opposed_share=0.0) for one in store.read()] == [replace(among, opposed_share=0.0)]


def test_a_torn_last_line_is_left_out_and_deleted_when_the_run_goes_on(tmp_path):
    store = JsonLinesStore(tmp_path / "trials.jsonl")
    store.append([asdict(one) for one in outcomes("none", 0, 1, 2, 3)])
    whole = store.path.read_bytes()
    store.path.write_bytes(whole[:-20])
    assert store.read() == outcomes("none", 0, 1, 2)
    assert store.resume(PLAN) == outcomes("none", 0, 1, 2)
    assert store.path.read_bytes() == b"".join(whole.splitlines(keepends=True)[:3])
    assert names(PLAN.remaining(store.read()))[0] == ("none", [2, 3])  # with the same trials beside it as before
    assert PLAN.missing(PLAN.blocks()[1], store.read()) == [TrialBlock("none", range(3, 4))]


def test_a_damaged_line_and_one_of_an_older_version_are_refused(tmp_path):
    store = JsonLinesStore(tmp_path / "trials.jsonl")
    store.append([asdict(one) for one in outcomes("none", 0, 1)])
    text = store.path.read_text()
    store.path.write_text("{" + text)
    with pytest.raises(ValueError, match=r"trials\.jsonl.*damaged"):
        store.read()
    store.path.write_text(text.replace(', "attempts": 1', "", 1))
    with pytest.raises(ValueError, match="choose another out="):
        store.read()


def test_trials_of_a_version_without_the_touch_of_thumb_and_finger_stay_readable(tmp_path):
    store = JsonLinesStore(tmp_path / "trials.jsonl")
    store.append([asdict(one) for one in outcomes("none", 0, 1)])
    store.path.write_text(store.path.read_text().replace(', "opposed_share": null', ""))
    assert store.read() == outcomes("none", 0, 1)


def test_a_run_has_trials_where_one_of_its_files_is_not_empty(tmp_path):
    assert not has_trials(tmp_path)
    (tmp_path / "trials.jsonl").touch()
    (tmp_path / "trials").mkdir()
    (tmp_path / "trials/none-000000000.parquet").touch()
    (tmp_path / "trials/folder.parquet").mkdir()
    (tmp_path / "trials/other.txt").write_text("1")
    assert not has_trials(tmp_path)
    (tmp_path / "trials/none-000000002.parquet").write_bytes(b"P")
    assert has_trials(tmp_path)
    (tmp_path / "trials/none-000000002.parquet").unlink()
    (tmp_path / "trials.jsonl").write_text("{}\n")
    assert has_trials(tmp_path)
