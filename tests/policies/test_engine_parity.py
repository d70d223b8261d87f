"""How far Warp may be from the CPU engine and from itself: bands by hand, and kept on Warp's CPU backend."""

from dataclasses import replace

import pytest

from dexgrasp.policies.benchmarks.engine_parity import EngineComparison, RepeatedComparison, rate_band, repeats
from dexgrasp.policies.evaluation.config import EvaluateCfg
from dexgrasp.policies.evaluation.statistics import success_summary
from dexgrasp.sim.engine.config import WarpCfg
from dexgrasp.sim.task.grasp_task import TaskCfg


def test_the_band_is_three_deviations_of_what_the_trials_that_differ_add_up_to():
    # 5 of 100 trials end otherwise, each moves the difference by 0.01 up or down: 3 * 0.01 * sqrt(5)
    assert rate_band(100) == pytest.approx(0.0670820)


def seed_with(warp, agree):
    return EngineComparison(success_summary(85, 100), success_summary(warp, 100), agree)


def test_one_seed_that_leaves_the_band_is_enough():
    good = RepeatedComparison({0: seed_with(86, 0.97), 1: seed_with(91, 0.95)}, again=1.0, exact=False)
    assert good.kept and good.lines()[-1] == "band: at least 95 % alike, rates not over 6.7 points apart: kept"
    assert not replace(good, again=0.94).kept
    assert not replace(good, seeds=good.seeds | {2: seed_with(85, 0.94)}).kept
    far = replace(good, seeds=good.seeds | {2: seed_with(92, 0.96)})  # 7 points
    assert not far.kept and far.lines()[-1].endswith("LEFT")


@pytest.mark.slow
def test_with_three_seeds_warp_keeps_to_the_band_and_its_cpu_backend_repeats_itself(allegro, household, balanced):
    """Short grasps of a box and a mug, of which some succeed."""
    pytest.importorskip("mujoco_warp", reason="needs the extra `gpu`")
    short = TaskCfg(rate_hz=10.0, grasp_s=0.7, lift_s=0.2, hold_s=0.1)
    cfg = EvaluateCfg(trials=2, num_envs=2, num_threads=1, task=short, physics=balanced, warp=WarpCfg(128, 400))
    found = repeats(cfg, allegro, household)
    assert list(found.seeds) == [0, 1, 2]
    assert found.kept and found.exact, found.lines()
    assert 0 < sum(one.warp["successes"] for one in found.seeds.values()) < 6, found.lines()
