"""The log of blocks: which start of a run made which trials."""

from dexgrasp.policies.evaluation.trial_store import BlockLog, TrialBlock, starts_of_trials


def test_each_trial_belongs_to_the_start_that_ran_its_block_last(tmp_path):
    path = tmp_path / "blocks.jsonl"
    assert starts_of_trials(path) == {}
    BlockLog(path, 0).append([TrialBlock("none", range(2)), TrialBlock("heavy", range(2, 4))])
    BlockLog(path, 3).append([TrialBlock("none", range(2))])
    assert path.read_text() == (
        '{"disturbance": "none", "first": 0, "trials": 2, "start": 0}\n'
        '{"disturbance": "heavy", "first": 2, "trials": 2, "start": 0}\n'
        '{"disturbance": "none", "first": 0, "trials": 2, "start": 3}\n'
    )
    expected = {("none", 0): 3, ("none", 1): 3, ("heavy", 2): 0, ("heavy", 3): 0}
    assert starts_of_trials(path) == expected


def test_a_torn_last_line_is_left_out_and_deleted_when_the_run_goes_on(tmp_path):
    log = BlockLog(tmp_path / "blocks.jsonl", 0)
    log.resume()
    assert not log.path.exists()
    for first in (0, 2):
        log.append([TrialBlock("none", range(first, first + 2))])
    whole = log.path.read_text()
    log.resume()
    assert log.path.read_text() == whole
    log.path.write_text(whole + '{"disturbance": "no')
    assert starts_of_trials(log.path) == {("none", trial): 0 for trial in range(4)}
    log.resume()
    assert log.path.read_text() == whole
