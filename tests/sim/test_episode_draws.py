"""Draws of an episode: within their ranges, decided by seed and trial alone."""

import math
from dataclasses import fields, replace

import numpy as np
import pytest
import torch

from dexgrasp.sim.randomization.episode_draws import EpisodeDraws, RandomizationCfg, ResetCfg, draw_episode, draw_object
from dexgrasp.sim.randomization.trial_rng import TrialRandom
from tests.helpers import trial_numbers

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


WILD = RandomizationCfg(
    friction=(0.4, 1.2),
    table_friction=(0.3, 0.9),
    mass_scale=(0.5, 2.0),
    com_range_m=0.01,
    size_scales=(0.9, 1.0, 1.1),
    kp_scale=(0.8, 1.3),
    kd_scale=(0.7, 1.2),
    damping_scale=(0.6, 1.5),
    effort_scale=(0.5, 0.9),
    palm_stiffness=(0.25, 4.0),
    gravity_rad=0.05,
    joint_bias_rad=0.03,
    action_delay=3,
    observation_delay=2,
    max_push_n=2.5,
    camera_bias_m=0.004,
)


def unit(values):
    return [value / math.dist(values, [0, 0, 0]) for value in values]


def by_hand(key, joints, placement):
    """All draws of one episode with the default reset and WILD, number by number."""

    def within(name, low, high, count=1):
        return [low + (high - low) * u for u in trial_numbers.uniform(key, name, count)]

    def one(name, low=0.0, high=1.0):
        return within(name, low, high)[0]

    def whole(name, count):
        return math.floor(count * one(name))

    azimuth, elevation = (
        math.radians(one(name, *ends))
        for name, ends in (("aside_azimuth_deg", (-180, 180)), ("aside_elevation_deg", (30, 60)))
    )
    far = one("aside_distance_m", 0.55, 0.85)
    level = far * math.cos(elevation)
    beside = [level * math.cos(azimuth), level * math.sin(azimuth), far * math.sin(elevation)]
    above = [*within("camera", -0.2, 0.2, 2), 0.76]
    share = {"overhead": 0.0, "side": 1.0, "mixed": 0.5}[placement]
    radius, angle = trial_numbers.uniform(key, "shift, radius", 12), within("shift, angle", 0, 2 * math.pi, 12)
    forces = trial_numbers.normal(key, "force", 24)
    tilt = [math.sin(angle) for angle in within("gravity", -0.05, 0.05, 2)]
    return {
        "object_xy": within("object_xy", -0.05, 0.05, 2),
        "rest": one("rest"),
        "yaw": one("yaw", -math.pi, math.pi),
        "camera_offset": beside if one("aside") < share else above,
        "approach_offset": above,
        "tilt": [0.06 * number for number in trial_numbers.normal(key, "tilt", 2)],
        "standoff": one("standoff", -0.02, 0.02),
        "palm_offset": within("palm_offset", -0.012, 0.012, 2),
        "roll": float(np.float32(np.pi)) * whole("side", 2) + one("roll", 0, math.pi / 16),
        "finger_offset": within("finger_offset", -0.05, 0.05, joints),
        "shift": [[math.sqrt(r) * math.cos(a), math.sqrt(r) * math.sin(a)] for r, a in zip(radius, angle, strict=True)],
        "force": [unit(forces[i : i + 3]) for i in range(0, 24, 3)],
        "friction": one("friction", 0.4, 1.2),
        "table_friction": one("table_friction", 0.3, 0.9),
        "mass_scale": one("mass_scale", 0.5, 2.0),
        "com_offset": within("com_offset", -0.01, 0.01, 3),
        "size": (0.9, 1.0, 1.1)[whole("size", 3)],
        "kp_scale": within("kp_scale", 0.8, 1.3, joints),
        "kd_scale": within("kd_scale", 0.7, 1.2, joints),
        "damping_scale": within("damping_scale", 0.6, 1.5, joints),
        "effort_scale": within("effort_scale", 0.5, 0.9, joints),
        "palm_stiffness": 4.0 ** (2 * one("palm_stiffness") - 1),  # evenly in its logarithm
        "gravity": [9.81 * tilt[0], 9.81 * tilt[1], -9.81 * math.sqrt(1 - tilt[0] ** 2 - tilt[1] ** 2)],
        "joint_bias": within("joint_bias", -0.03, 0.03, joints),
        "action_delay": whole("action_delay", 4),  # 0, 1, 2 or 3
        "observation_delay": whole("observation_delay", 3),
        "push": [one("push", 0, 2.5) * part for part in unit(trial_numbers.normal(key, "push, direction", 3))],
        "push_at": one("push_at"),
        "camera_bias": within("camera_bias", -0.004, 0.004, 3),
        "disturbance": trial_numbers.uniform(key, "mishap", 2),
    }


@pytest.mark.parametrize("placement", ["overhead", "side", "mixed"])
def test_every_draw_is_the_one_of_its_definition(placement):
    """Trials keep their numbers from version to version, so that stored results stay comparable."""
    numbers = range(20)
    found = draw_episode(trials(5, numbers), ResetCfg(camera_placement=placement), WILD, 4)
    expected = [by_hand(trial_numbers.key(5, number), 4, placement) for number in numbers]
    assert set(expected[0]) | {"key"} == {item.name for item in fields(EpisodeDraws)}
    for name in expected[0]:
        want = torch.tensor([row[name] for row in expected], dtype=torch.float64)
        torch.testing.assert_close(
            getattr(found, name), want, rtol=1e-12, atol=1e-14, msg=lambda text, n=name: n + text
        )
    assert set(found.action_delay.tolist()) == {0, 1, 2, 3}
    assert set(found.observation_delay.tolist()) == {0, 1, 2}


def test_storage_is_empty_and_takes_rows(draws):
    empty = EpisodeDraws.empty(3, 16)
    part = draws.rows(torch.tensor([7]))
    for item in fields(EpisodeDraws):
        value = getattr(empty, item.name)
        assert value.shape == (3, *getattr(draws, item.name).shape[1:]) and not value.any(), item.name
    empty.write(torch.tensor([1]), part)
    for item in fields(EpisodeDraws):
        value = getattr(empty, item.name)
        assert torch.equal(value[1], getattr(draws, item.name)[7]) and not value[[0, 2]].any(), item.name


def test_an_object_by_weight_is_the_one_whose_share_holds_the_number():
    """Shares [0, 0.25), [0.25, 0.25), [0.25, 1): against the number in plain Python; rounding never leaves the list."""
    random = trials(2, range(50))
    numbers = [trial_numbers.uniform(trial_numbers.key(2, trial), "object")[0] for trial in range(50)]
    weights = torch.tensor([0.25, 0.0, 0.75], dtype=torch.float64)
    assert draw_object(random, 3, weights).tolist() == [0 if number < 0.25 else 2 for number in numbers]
    edge = torch.tensor([numbers[0], 1 - numbers[0]], dtype=torch.float64)
    assert draw_object(trials(2, [0]), 2, edge).tolist() == [1]  # a share holds its lower end
    assert draw_object(random, 3).tolist() == [math.floor(3 * number) for number in numbers]
    assert draw_object(random, 3, torch.tensor([0.0, 0.0, 1e-9])).tolist() == [2] * 50


@pytest.mark.parametrize(
    ("given", "error"),
    [
        ({"aside_azimuth_deg": (10.0, 5.0)}, "aside_azimuth_deg must satisfy low <= high"),
        ({"aside_distance_m": (0.9, 0.5)}, "aside_distance_m must satisfy low <= high"),
        ({"aside_elevation_deg": (0.0, 60.0)}, "aside_elevation_deg must lie in 1..90"),
        ({"aside_elevation_deg": (30.0, 90.1)}, "aside_elevation_deg must lie in 1..90"),
        ({"aside_distance_m": (0.0, 0.5)}, "aside_distance_m must lie in 0.1..5"),
    ],
)
def test_impossible_cameras_are_refused_by_name(given, error):
    with pytest.raises(ValueError, match=error):
        ResetCfg(**given)


def test_ranges_may_be_as_narrow_and_as_wide_as_their_limits():
    ResetCfg(aside_azimuth_deg=(5.0, 5.0), aside_elevation_deg=(90.0, 90.0), aside_distance_m=(0.5, 0.5))
    RandomizationCfg(mass_scale=(0.01, 0.01), late_action_probability=1.0, points_dropout=0.99, size_scales=(0.1,))


@pytest.mark.parametrize(
    "given",
    [{"points_dropout": 1.0}, {"late_action_probability": 1.01}, {"size_scales": (1.0, 0.0)}, {"action_delay": -1}],
)
def test_impossible_shares_factors_and_delays_are_refused_by_name(given):
    with pytest.raises(ValueError, match=next(iter(given))):
        RandomizationCfg(**given)
