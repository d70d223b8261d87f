"""The empty hand: the rule by hand, and that simulator, bundle on the robot and plain numbers decide alike."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from dexgrasp.policies.deploy.hand_state import is_hand_empty
from dexgrasp.policies.evaluation.episodes import RegraspRunner
from dexgrasp.sim.task.grasp_task import TaskCfg
from dexgrasp.sim.task.regrasp import (
    GRIP_THRESHOLD_HOLD,
    GRIP_THRESHOLD_UNSEEN,
    MIN_RISE_FRACTION,
    MIN_VISIBLE_FRACTION,
)
from tests.helpers.fake_robot import Wild, World

LIMITS = {
    "lift_m": 0.5,
    "min_rise_fraction": 0.25,
    "min_visible_fraction": 0.125,
    "grip_threshold_unseen": 0.75,
    "grip_threshold_hold": 0.25,
}
"""Binary fractions: what equals a threshold equals it in every type."""
BELOW = 2**-20
CASES = (  # lift_ends, holding, grip, rise [m], visible fraction: empty
    (True, False, 1.0, 0.125 - BELOW, 1.0, True),  # left behind, although something is confidence
    (True, False, 1.0, 0.125, 1.0, False),  # rose by just a quarter of the lift
    (True, False, 0.0, 0.5, 0.125, False),  # seen to rise, nothing confidence
    (True, False, 0.75 - BELOW, 0.5, 0.125 - BELOW, True),  # not seen, not surely confidence
    (True, False, 0.75, 0.5, 0.125 - BELOW, False),  # not seen, surely confidence
    (True, False, 0.75 - BELOW, 0.5, 0.125, False),  # just visible
    (False, True, 0.25 - BELOW, 0.5, 1.0, True),  # lost in the hold, although seen
    (False, True, 0.25, 0.0, 0.0, False),  # in the hold the grip alone decides
    (False, False, 0.0, 0.0, 0.0, False),  # neither the end of the lift nor the hold
    (True, False, 1.0, float("nan"), 1.0, False),  # an unknown rise is no sign of an empty hand
)


def columns(convert):
    return [convert(column) for column in zip(*CASES, strict=True)]


@pytest.mark.parametrize("kind", ["float", "numpy", "numpy32", "torch", "torch32"])
def test_the_rule_by_hand_at_its_thresholds_for_every_kind_of_number(kind):
    if kind == "float":
        found = [
            is_hand_empty(grip, rise_m, fraction, lift_ends=ends, holding=holding, **LIMITS)
            for ends, holding, grip, rise_m, fraction, _ in CASES
        ]
        assert all(type(one) is bool for one in found)
    else:
        single = kind.endswith("32")

        def convert(column):
            made = np.array(column) if kind.startswith("numpy") else torch.tensor(column, dtype=None)
            if made.dtype in (np.bool_, torch.bool):
                return made
            if kind.startswith("numpy"):
                return made.astype(np.float32 if single else np.float64)
            return torch.tensor(column, dtype=torch.float32 if single else torch.float64)

        ends, holding, grip, rise_m, fraction, _ = columns(convert)
        found = is_hand_empty(grip, rise_m, fraction, lift_ends=ends, holding=holding, **LIMITS).tolist()
    assert found == [case[-1] for case in CASES]


def test_simulator_robot_and_plain_numbers_decide_alike():
    """10,000 random readings at the end of the lift and 10,000 in the hold, by the thresholds of the shipped bundle."""
    rng = np.random.default_rng(0)
    machine = World(Wild()).machine
    lift_m, count = TaskCfg().lift_m, 10_000  # of the shipped bundle as well
    grip, fraction = rng.uniform(0, 1, (2, count))
    fraction[::2] *= 2 * MIN_VISIBLE_FRACTION
    rise_m = rng.uniform(-0.1, 1.0, count) * lift_m
    points_w = torch.zeros(count, 4, 3, dtype=torch.float64)
    points_w[:, 1:] = 10.0  # the lowest quarter is one point
    task = SimpleNamespace(
        num_envs=count,
        device=torch.device("cpu"),
        steps_since_pregrasp=torch.full((count,), 20),
        grasp_steps=20,
        lift_steps=10,
        episode_steps=60,
        cfg=SimpleNamespace(lift_m=lift_m, camera=SimpleNamespace(live=True)),
        object_camera=SimpleNamespace(points_w=points_w, visible_fraction=torch.from_numpy(fraction)),
    )
    attempts = RegraspRunner(task, None, attempts=3)
    confidence = torch.from_numpy(grip)
    assert not attempts._empty(confidence).any()  # the lift begins, at height 0
    machine._object_bottom_m = 0.0
    for clock, ends in ((30, True), (31, False), (58, False)):
        task.steps_since_pregrasp[:] = clock
        points_w[:, 0, 2] = torch.from_numpy(rise_m)
        simulator = attempts._empty(confidence).tolist()
        readings = list(zip(grip, rise_m, fraction.tolist(), strict=True))
        robot = [
            machine._is_hand_empty(SimpleNamespace(grip=g, object_bottom_m=z), f, ends=ends) for g, z, f in readings
        ]
        by_hand = [
            (z < MIN_RISE_FRACTION * lift_m or (f < MIN_VISIBLE_FRACTION and g < GRIP_THRESHOLD_UNSEEN))
            if ends
            else g < GRIP_THRESHOLD_HOLD
            for g, z, f in readings
        ]
        assert simulator == robot == by_hand
        assert 0.2 * count < sum(by_hand) < 0.8 * count
    task.steps_since_pregrasp[:] = 59  # too late for another attempt
    assert not attempts._empty(confidence).any()
