"""Draws of an episode: within their ranges, decided by seed and trial alone."""

from dataclasses import fields, replace

import numpy as np
import pytest
import torch

from dexgrasp.sim.randomization.episode_draws import EpisodeDraws, RandomizationCfg, ResetCfg, draw_episode, draw_object
from dexgrasp.sim.randomization.trial_rng import TrialRandom

CFG = RandomizationCfg(friction=(0.4, 1.2), mass_scale=(0.5, 2.0))
STILL = ResetCfg(
    object_xy_range_m=0, camera_m=0, tilt_sd_rad=0, standoff_range_m=0, palm_xy_range_m=0, finger_range_rad=0
)
RESET = ResetCfg()
TRIALS = 400


def trials(seed, numbers):
    numbers = torch.tensor(numbers)
    return TrialRandom.of_trials(torch.full_like(numbers, seed), numbers)


@pytest.fixture(scope="module")
def draws():
    return draw_episode(trials(0, range(TRIALS)), RESET, CFG, 16)


@pytest.mark.parametrize(
    ("name", "low", "high"),
    [
        ("object_xy", -0.05, 0.05),
        ("rest", 0.0, 1.0),
        ("yaw", -np.pi, np.pi),
        ("standoff", -0.02, 0.02),
        ("palm_offset", -0.012, 0.012),
        ("finger_offset", -0.05, 0.05),
        ("friction", 0.4, 1.2),
        ("mass_scale", 0.5, 2.0),
    ],
)
def test_uniform_draws_fill_their_range_and_keep_to_it(draws, name, low, high):
    value = getattr(draws, name)
    assert low <= value.min() < low + 0.02 * (high - low)
    assert high - 0.02 * (high - low) < value.max() <= high
    assert abs(value.mean() - (low + high) / 2) < 0.1 * (high - low)  # 7 standard errors of 400 draws


def test_the_camera_hangs_at_its_height_over_a_square_about_the_object(draws):
    assert (draws.camera_offset[:, 2] == 0.76).all()
    assert 0.19 < draws.camera_offset[:, :2].abs().max() <= 0.2


def test_the_tilt_has_its_standard_deviation(draws):
    assert float(draws.tilt.std()) == pytest.approx(0.06, rel=0.15)  # 6 standard errors of 800 draws


def test_the_roll_chooses_either_side_and_a_start_within_one_sixteenth(draws):
    side = (draws.roll >= np.pi).double()
    assert 0.4 < side.mean() < 0.6
    start = draws.roll - side * np.pi
    assert 0 <= start.min() <= start.max() <= np.pi / 16


def test_displacements_fill_the_unit_disc_evenly(draws):
    radius = draws.shift.norm(dim=-1)
    assert radius.max() <= 1
    assert float((radius < 0.5).double().mean()) == pytest.approx(0.25, abs=0.04)  # a quarter of the area; 6 errors


def test_forces_are_unit_vectors_in_all_directions(draws):
    torch.testing.assert_close(draws.force.norm(dim=-1), torch.ones_like(draws.force[..., 0]))
    assert draws.force.mean(dim=(0, 1)).abs().max() < 0.06  # 6 standard errors of 3,200 directions


def test_a_trial_is_decided_by_its_seed_and_number_alone(draws):
    alone = draw_episode(trials(0, [17]), RESET, CFG, 16)
    for item in fields(EpisodeDraws):
        assert torch.equal(getattr(alone, item.name)[0], getattr(draws, item.name)[17]), item.name
    yaws = [float(draw_episode(trials(seed, [number]), RESET, CFG, 16).yaw) for seed, number in ((3, 17), (17, 3))]
    assert len({*draws.yaw.tolist(), *yaws}) == TRIALS + 2


def test_wider_ranges_leave_the_other_draws_as_they_were(draws):
    wide = draw_episode(
        trials(0, range(TRIALS)), replace(RESET, object_xy_range_m=0.1), replace(CFG, friction=(0.8, 0.8)), 16
    )
    torch.testing.assert_close(wide.object_xy, 2 * draws.object_xy)
    assert (wide.friction == 0.8).all()
    for name in {item.name for item in fields(EpisodeDraws)} - {"object_xy", "friction"}:
        assert torch.equal(getattr(wide, name), getattr(draws, name)), name


def test_ranges_of_zero_width_draw_their_middle():
    still = draw_episode(trials(0, [1]), STILL, RandomizationCfg(), 16)
    for name in ("object_xy", "tilt", "standoff", "palm_offset", "finger_offset"):
        assert not getattr(still, name).any(), name
    assert still.camera_offset.tolist() == [[0, 0, 0.76]]


def test_quantities_are_drawn_independently_of_one_another(draws):
    values = torch.stack([draws.yaw, draws.rest, draws.friction, *draws.object_xy.T, *draws.finger_offset.T[:4]])
    apart = torch.corrcoef(values) - torch.eye(len(values))
    assert apart.abs().max() < 0.2  # 4 standard errors of 400 draws


def test_rows_are_copies(draws):
    part = draws.rows(torch.tensor([2, 5]))
    assert torch.equal(part.yaw, draws.yaw[[2, 5]])
    before = draws.friction[2].item()
    part.friction[:] = 9.0
    assert draws.friction[2].item() == before


def test_objects_are_drawn_evenly_or_by_weight():
    random = trials(0, range(TRIALS))
    assert (draw_object(random, 4).bincount() - TRIALS / 4).abs().max() < 50  # 6 standard deviations
    weighted = draw_object(random, 4, torch.tensor([0.0, 0.75, 0.0, 0.25])).bincount(minlength=4)
    assert weighted[[0, 2]].tolist() == [0, 0]
    assert abs(int(weighted[1]) - 300) < 50


@pytest.mark.parametrize("name", ["friction", "mass_scale"])
@pytest.mark.parametrize("value", [(0.0, 1.0), (2.0, 1.0), (-1.0, 1.0)])
def test_impossible_ranges_are_refused_by_name(name, value):
    with pytest.raises(ValueError, match=rf"RandomizationCfg.{name} must (satisfy low <= high|lie in 0\.01)"):
        RandomizationCfg(**{name: value})
