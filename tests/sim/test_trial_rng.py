"""Random numbers of trials, against the published generator and the distributions they claim."""

import math

import pytest
import torch
from scipy import stats

from dexgrasp.sim.randomization.trial_rng import GAMMA, TrialRandom, mix
from tests.helpers import trial_numbers

ROWS = 2000


@pytest.fixture
def random():
    return TrialRandom.of_trials(torch.full((ROWS,), 7), torch.arange(ROWS))


def test_the_mixer_is_splitmix64():
    """Its first outputs from seed 0, as its authors' C prints them."""
    published = 0xE220A8397B1DCDAF, 0x6E789E6AA1B965F4, 0x06C45D188009454F
    found = mix(GAMMA * torch.arange(1, 4))
    assert [value % (1 << 64) for value in found.tolist()] == list(published)


def test_uniform_numbers_are_uniform(random):
    found = random.uniform("x", 2.0, 5.0, (3,))
    assert found.shape == (ROWS, 3)
    assert stats.kstest(found.flatten().numpy(), stats.uniform(2.0, 3.0).cdf).pvalue > 0.01


def test_normal_numbers_are_normal(random):
    assert stats.kstest(random.normal("x", 0.5, (3,)).flatten().numpy(), stats.norm(0, 0.5).cdf).pvalue > 0.01


def test_integers_come_equally_often(random):
    assert stats.chisquare(random.integers("x", 8).bincount(minlength=8).numpy()).pvalue > 0.01


def test_directions_are_even_over_the_sphere(random):
    found = random.directions("x")
    torch.testing.assert_close(found.norm(dim=1), torch.ones(ROWS, dtype=torch.float64))
    assert stats.kstest(found[:, 2].numpy(), stats.uniform(-1, 2).cdf).pvalue > 0.01  # Archimedes: height is uniform


def test_rows_do_not_depend_on_one_another(random):
    alone = TrialRandom(random.key[5:6])
    assert torch.equal(alone.uniform("x", size=(4,))[0], random.uniform("x", size=(4,))[5])


def test_names_and_steps_are_streams_of_their_own(random):
    steps = [random.uniform("x", size=(2,), at=torch.full((ROWS,), step)) for step in (0, 1, 2)]
    assert torch.equal(steps[0], random.uniform("x", size=(2,)))
    assert torch.equal(torch.cat(steps[:2], dim=1), random.uniform("x", size=(4,)))  # step 1 goes on where 0 ended
    values = torch.cat([*steps, random.uniform("y", size=(2,))], dim=1).T
    assert (torch.corrcoef(values) - torch.eye(8)).abs().max() < 4 / math.sqrt(ROWS)


def test_neighbouring_seeds_and_trials_differ():
    seeds, trials = (grid.flatten() for grid in torch.meshgrid(torch.arange(40), torch.arange(40), indexing="ij"))
    keys = TrialRandom.of_trials(seeds, trials).key
    assert len(keys.unique()) == 1600
    bits = (keys[:, None] >> torch.arange(64)) & 1
    assert (bits.double().mean(dim=0) - 0.5).abs().max() < 4 * 0.5 / 40  # each bit is set in half of them


def test_every_number_is_the_one_of_the_definition():
    """Against plain Python with unbounded integers; keys and bits of both signs."""
    seeds, trials = [0, 3, 2**63 - 1], [0, 41, 10**12]
    random = TrialRandom.of_trials(torch.tensor(seeds), torch.tensor(trials))
    keys = [trial_numbers.key(seed, trial) for seed, trial in zip(seeds, trials, strict=True)]
    assert [value % (1 << 64) for value in random.key.tolist()] == keys
    later = torch.tensor([0, 1, 7])
    expected = [trial_numbers.uniform(k, "yaw", 6, at) for k, at in zip(keys, later.tolist(), strict=True)]
    found = (random.uniform("yaw", 2.0, 5.0, (2, 3), at=later) - 2.0) / 3.0
    torch.testing.assert_close(found.flatten(1), torch.tensor(expected, dtype=torch.float64), rtol=0, atol=1e-15)
    assert random.uniform("yaw").tolist() == [trial_numbers.uniform(k, "yaw")[0] for k in keys]
    assert random.integers("side", 5).tolist() == [int(5 * trial_numbers.uniform(k, "side")[0]) for k in keys]
    normal = torch.tensor([trial_numbers.normal(k, "tilt", 6) for k in keys], dtype=torch.float64).view(3, 2, 3)
    torch.testing.assert_close(random.normal("tilt", 0.5, (2, 3)), 0.5 * normal, rtol=1e-12, atol=1e-14)
    unit = normal / normal.square().sum(-1, keepdim=True).sqrt()
    torch.testing.assert_close(random.directions("tilt", (2,)), unit, rtol=1e-12, atol=1e-14)
