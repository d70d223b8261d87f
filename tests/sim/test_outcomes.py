"""Outcomes of hand-made episodes: eight steps of grasp, lift and hold, one cause of failure each."""

import math
from dataclasses import fields

import pytest
import torch

from dexgrasp.sim.engine.base import State
from dexgrasp.sim.robots.hand import HandSpec
from dexgrasp.sim.task.outcomes import FAILURES, Outcome, OutcomeTracker

ALLEGRO = HandSpec.load("allegro")
STEP_S = 0.05
GRASP, LIFT, HOLD = 2, 2, 4
STEPS = GRASP + LIFT + HOLD
NORMAL = [0.0, 0.0, 0.05, 0.15, 0.15, 0.15, 0.15, 0.15]
"""Height of palm and object over their start, step by step, in an episode that goes well [m]."""


def world(envs=1):
    """A state of zeros; the object starts at (0.1, 0, 0.05), the palm 0.1 m above it, turned by 90 degrees about z."""
    sizes = {"quat": (4,), "pos": (3,)}
    state = State(**{f.name: torch.zeros(envs, *_size(f.name, sizes), dtype=torch.float64) for f in fields(State)})
    state.object_contact = torch.ones(envs, 13, dtype=torch.bool)
    state.object_pos_w[:] = torch.tensor([0.1, 0.0, 0.05])
    state.palm_pos_w[:] = torch.tensor([0.1, 0.0, 0.15])
    state.palm_quat_w[:] = torch.tensor([0.5, 0.0, 0.0, 0.5], dtype=torch.float64) * 2**0.5
    return state


def _size(name, sizes):
    return next((size for word, size in sizes.items() if word in name), ())


def run(change=lambda step, state: None, heights=NORMAL, strayed=(), unstable=(), steps=STEPS, shift_xy_w=(0.0, 0.0)):
    """Tracker of one episode; `change` edits the state of each step."""
    tracker, state = OutcomeTracker(1, STEP_S, ALLEGRO), world()
    tracker.reset(torch.tensor([0]), state)
    return play(tracker, change, heights, strayed, unstable, steps, shift_xy_w)


def play(
    tracker,
    change=lambda step, state: None,
    heights=NORMAL,
    strayed=(),
    unstable=(),
    steps=STEPS,
    shift_xy_w=(0.0, 0.0),
):
    """Run one more grasp, lift and hold through a tracker."""
    for step in range(steps):
        state = world()
        state.object_pos_w[:, 2] += heights[step]
        state.palm_pos_w[:, 2] += NORMAL[step]
        change(step, state)
        tracker.update(
            state,
            lifting=torch.tensor([GRASP <= step < GRASP + LIFT]),
            lift_ends=torch.tensor([step == GRASP + LIFT - 1]),
            holding=torch.tensor([step >= GRASP + LIFT]),
            unstable=torch.tensor([step in unstable]),
            strayed=torch.tensor([step in strayed]),
            shift_xy_w=torch.tensor([shift_xy_w], dtype=torch.float64),
        )
    return tracker


def failure(*args, **options):
    return run(*args, **options).failure(0)


def test_an_object_held_high_to_the_end_is_a_success():
    (outcome,) = run().outcomes([0], [7], ["mug"], "none")
    assert (outcome.trial, outcome.object, outcome.disturbance) == (7, "mug", "none")
    assert outcome.success
    assert outcome.failure == ""
    assert outcome.lift_m == pytest.approx(0.15)
    assert outcome.slip_m == pytest.approx(0.0, abs=1e-12)


def test_an_object_left_on_the_table_was_missed():
    assert failure(heights=[0.0] * STEPS) == "missed"


def test_an_object_that_was_moved_across_the_table_was_pushed_away():
    def push(step, state):
        state.object_pos_w[:, 1] += 0.09 * (step > 0)

    assert failure(push, heights=[0.0] * STEPS) == "pushed_away"


def test_a_push_of_less_than_eight_centimetres_counts_as_missed():
    def push(step, state):
        state.object_pos_w[:, 1] += 0.079 * (step > 0)

    assert failure(push, heights=[0.0] * STEPS) == "missed"


def test_an_object_that_falls_before_the_lift_ends_was_dropped_in_the_lift():
    assert failure(heights=[0, 0, 0.05, 0.02, 0, 0, 0, 0]) == "dropped_in_lift"


def test_an_object_that_falls_later_was_dropped_in_the_hold():
    assert failure(heights=[0, 0, 0.05, 0.15, 0.15, 0.15, 0.05, 0]) == "dropped_in_hold"


@pytest.mark.parametrize(("height", "expected"), [(0.1001, ""), (0.0999, "dropped_in_hold")])
def test_ten_centimetres_must_be_kept_throughout_the_hold(height, expected):
    assert failure(heights=[*NORMAL[:5], height, 0.15, 0.15]) == expected


@pytest.mark.parametrize(("slip", "expected"), [(0.079, ""), (0.081, "dropped_in_hold")])
def test_an_object_that_slides_in_the_hand_is_no_success_though_it_is_high(slip, expected):
    def slide(step, state):
        state.object_pos_w[:, 0] += slip * (step == STEPS - 1)

    tracker = run(slide)
    assert tracker.failure(0) == expected
    assert float(tracker.slip_m) == pytest.approx(slip)


def test_the_furthest_slip_of_the_hold_counts_though_the_object_slides_back():
    def slide(step, state):
        state.object_pos_w[:, 0] += {5: 0.05, 6: 0.02}.get(step, 0.0)

    (outcome,) = run(slide).outcomes([0], [0], ["mug"], "none")
    assert outcome.success and outcome.slip_m == pytest.approx(0.05)


def test_what_slips_before_the_lift_ends_is_no_slip():
    def slide(step, state):
        state.object_pos_w[:, 0] += 0.2 * (step < GRASP + LIFT - 1)

    assert float(run(slide).slip_m) == pytest.approx(0.0, abs=1e-12)


def test_slip_is_measured_in_the_frame_of_the_palm():
    """Palm and object turn together by 90 degrees about the palm: nothing slips though the object moves."""

    def turn(step, state):
        state.object_pos_w[:] += torch.tensor([0.1, 0.0, 0.1])  # from here: 0.1 m beside the palm, along +x
        if step == STEPS - 1:
            state.object_pos_w[:] += torch.tensor([-0.1, 0.1, 0.0])  # along +y
            state.palm_quat_w[:] = torch.tensor([0.0, 0.0, 0.0, 1.0])  # from 90 to 180 degrees about z

    tracker = run(turn)
    assert tracker.failure(0) == ""
    assert float(tracker.slip_m) == pytest.approx(0.0, abs=1e-12)


@pytest.mark.parametrize(("gap", "expected"), [([5], ""), ([5, 7], ""), ([5, 6], "dropped_in_hold")])
def test_contact_may_flicker_for_one_step_but_not_for_a_tenth_of_a_second(gap, expected):
    def let_go(step, state):
        state.object_contact[:] = step not in gap

    assert failure(let_go) == expected


@pytest.mark.parametrize(("step_s", "grace"), [(0.05, 2), (0.04, 2), (0.03, 3), (0.02, 5), (0.2, 1)])
def test_the_time_without_contact_is_counted_in_whole_control_steps(step_s, grace):
    """A tenth of a second, rounded, but at least one step: so many steps without contact are too many."""
    for gap in (grace - 1, grace):
        tracker, state = OutcomeTracker(1, step_s, ALLEGRO), world()
        tracker.reset(torch.tensor([0]), state)
        update(tracker, state, "lift_ends")
        state.object_pos_w[:, 2] += 0.2
        state.palm_pos_w[:, 2] += 0.2
        state.object_contact[:] = False
        for _ in range(gap):
            update(tracker, state, "holding")
        assert bool(tracker.held) == (gap < grace)


def test_a_touch_of_any_body_is_a_contact():
    def with_one_finger(step, state):
        state.object_contact[:, 1:] = False

    assert failure(with_one_finger) == ""


def update(tracker, state, *phases):
    """One step in the named phases."""
    envs = len(tracker.attempts)
    masks = {
        name: torch.full((envs,), name in phases) for name in ("lifting", "lift_ends", "holding", "unstable", "strayed")
    }
    tracker.update(state, **masks, shift_xy_w=torch.zeros(envs, 2))


def episode(heights, beside=0.0):
    """Failure of an object that starts at the origin and has these heights in grasp, lift, its last step and hold."""
    tracker, state = OutcomeTracker(1, STEP_S, ALLEGRO), world()
    state.object_pos_w[:] = 0.0
    tracker.reset(torch.tensor([0]), state)
    for phases, height in zip(((), ("lifting",), ("lifting", "lift_ends"), ("holding",)), heights, strict=True):
        state.object_pos_w[:] = torch.tensor([beside, 0.0, height], dtype=torch.float64)
        state.palm_pos_w[:] = state.object_pos_w
        update(tracker, state, *phases)
    return tracker.failure(0)


@pytest.mark.parametrize(
    ("heights", "beside", "expected"),
    [
        ((0.0, 0.0, 0.1, 0.1), 0.0, ""),  # ten centimetres are enough
        ((0.0, 0.02, 0.0, 0.0), 0.0, "dropped_in_lift"),  # two left the table
        ((0.0, 0.019, 0.0, 0.0), 0.0, "missed"),
        ((0.0, 0.0, 0.0, 0.0), 0.08, "missed"),  # eight are not yet pushed away
        ((0.0, 0.0, 0.0, 0.0), 0.081, "pushed_away"),
        ((0.2, 0.0, 0.0, 0.0), 0.05, "missed"),  # height is no push
        ((0.0, 0.0, 0.1, 0.0), 0.0, "dropped_in_hold"),  # ten at the end of the lift
        ((0.0, 0.15, 0.099, 0.0), 0.0, "dropped_in_lift"),
    ],
)
def test_limits_belong_to_the_better_side(heights, beside, expected):
    assert episode(heights, beside) == expected


def test_a_push_after_the_grasp_phase_is_none():
    """An object that is pushed while the empty hand rises was missed before."""
    for phase in (GRASP, GRASP + LIFT):

        def push(step, state, phase=phase):
            state.object_pos_w[:, 1] += 0.3 * (step >= phase)

        assert failure(push, heights=[0.0] * STEPS) == "missed"


@pytest.mark.parametrize(("slip_m", "held"), [(0.08, False), (0.0799, True)])
def test_eight_centimetres_of_slip_are_too_many(slip_m, held):
    tracker, state = OutcomeTracker(1, STEP_S, ALLEGRO), world()
    state.object_pos_w[:], state.palm_pos_w[:] = 0.0, 0.0
    state.palm_quat_w[:] = torch.tensor([1.0, 0.0, 0.0, 0.0])
    tracker.reset(torch.tensor([0]), state)
    state.object_pos_w[:, 2] = state.palm_pos_w[:, 2] = 0.5
    update(tracker, state, "lifting", "lift_ends")
    state.object_pos_w[:, 0] = slip_m
    update(tracker, state, "holding")
    assert bool(tracker.held) == held


def test_a_reset_forgets_how_long_the_object_was_not_touched():
    tracker, state = OutcomeTracker(1, STEP_S, ALLEGRO), world()
    tracker.reset(torch.tensor([0]), state)
    state.object_contact[:] = False
    for _ in range(10):
        update(tracker, state)
    state = world()
    tracker.reset(torch.tensor([0]), state)
    state.object_contact[:] = False
    state.object_pos_w[:, 2] += 0.2
    state.palm_pos_w[:, 2] += 0.2
    update(tracker, state, "lifting", "lift_ends", "holding")
    assert tracker.held.tolist() == [True]


def test_a_new_attempt_starts_without_an_object_in_the_hand():
    tracker = run()
    assert tracker.failure(0) == ""
    tracker.restart_attempt(torch.tensor([0]))
    assert tracker.held.tolist() == [False] and tracker.slip_m.tolist() == [0.0]
    play(tracker, steps=GRASP)
    assert tracker.failure(0) == "missed"


def test_outcomes_of_chosen_rows_come_in_their_order():
    tracker, state = OutcomeTracker(3, STEP_S, ALLEGRO), world(3)
    tracker.reset(torch.arange(3), state)
    state.penetration_m[:] = torch.tensor([0.001, 0.002, 0.003], dtype=torch.float64)
    update(tracker, state)
    found = tracker.outcomes([2, 0], [12, 10], ["cup", "box"], "heavy")
    assert [(o.trial, o.object, o.disturbance, o.penetration_m) for o in found] == [
        (12, "cup", "heavy", 0.003),
        (10, "box", "heavy", 0.001),
    ]
    assert tracker.outcomes([], [], [], "none") == []


def test_physics_that_fails_once_makes_the_trial_unstable_however_well_it_ends():
    assert failure(unstable=[1]) == "unstable"


def test_an_object_that_left_the_workspace_is_no_success_even_if_it_is_lifted_later():
    assert failure(strayed=[1]) != ""


@pytest.mark.parametrize(("pushed", "expected"), [(0.0, "missed"), (0.07, "missed"), (0.09, "pushed_away")])
def test_a_shift_of_the_disturbance_is_no_push(pushed, expected):
    """The object was shifted by 9 cm, on purpose; what the hand adds decides."""

    def move(step, state):
        state.object_pos_w[:, 1] += (0.09 + pushed) * (step > 0)

    assert failure(move, heights=[0.0] * STEPS, shift_xy_w=(0.0, 0.09)) == expected


@pytest.mark.parametrize(
    ("touching", "share"),
    [
        (ALLEGRO.thumb_mask | ALLEGRO.finger_mask, 0.75),
        (ALLEGRO.thumb_mask, 0.0),
        (ALLEGRO.finger_mask, 0.0),
    ],
)
def test_the_share_of_the_hold_with_thumb_and_finger_is_of_its_steps(touching, share):
    """Thumb and finger touch in three of the four steps of the hold; before it nothing counts."""

    def touch(step, state):
        state.object_contact[:] = torch.from_numpy(touching) & torch.tensor(step != STEPS - 1)

    (outcome,) = run(touch).outcomes([0], [0], ["mug"], "none")
    assert outcome.opposed_share == share


def test_the_share_is_that_of_the_last_attempt_and_unknown_before_its_hold():
    tracker = run()
    assert tracker.outcomes([0], [0], ["mug"], "none")[0].opposed_share == 1.0
    tracker.restart_attempt(torch.tensor([0]))
    assert math.isnan(tracker.outcomes([0], [0], ["mug"], "none")[0].opposed_share)


@pytest.mark.parametrize("steps", range(GRASP + LIFT))
def test_an_episode_that_ends_before_the_hold_is_no_success(steps):
    """Episodes end early where the object leaves the workspace."""
    assert failure(steps=steps) in FAILURES


def test_penetration_is_the_deepest_of_the_trial():
    def dig(step, state):
        state.penetration_m[:] = 0.001 * (step + 1) if step < 4 else 0.0

    assert float(run(dig).penetration_m) == pytest.approx(0.004)


def test_the_last_attempt_decides_and_says_how_it_failed():
    """A drop in the first one, an object that was not lifted in the second."""
    dropped = [0.0, 0.0, 0.05, 0.15, 0.15, 0.0, 0.0, 0.0]
    tracker = run(heights=dropped)
    assert tracker.failure(0) == "dropped_in_hold"
    tracker.restart_attempt(torch.tensor([0]))
    play(tracker, heights=[0.0] * STEPS)
    (outcome,) = tracker.outcomes([0], [0], ["mug"], "none")
    assert (outcome.failure, outcome.attempts) == ("missed", 2)
    tracker.restart_attempt(torch.tensor([0]))
    play(tracker)
    (outcome,) = tracker.outcomes([0], [0], ["mug"], "none")
    assert outcome.success and outcome.attempts == 3


def test_outcomes_in_words():
    def verdict(failure):
        measured = {"lift_m": 0.0, "slip_m": 0.0, "penetration_m": 0.0}
        return Outcome(7, object="box", disturbance="none", success=not failure, failure=failure, **measured).verdict

    expected = ["success", "missed", "dropped in lift", "dropped in hold", "pushed away", "unstable"]
    assert [verdict(failure) for failure in ("", *FAILURES)] == expected


def test_a_reset_forgets_the_given_rows_only():
    tracker, state = OutcomeTracker(2, STEP_S, ALLEGRO), world(2)
    tracker.reset(torch.tensor([0, 1]), state)
    state.penetration_m[:] = 0.003
    no, yes = torch.zeros(2, dtype=torch.bool), torch.ones(2, dtype=torch.bool)
    still = torch.zeros(2, 2)
    tracker.update(state, lifting=no, lift_ends=no, holding=no, unstable=yes, strayed=no, shift_xy_w=still)
    state.object_pos_w[:] += 1.0
    tracker.reset(torch.tensor([1]), state)
    assert tracker.unstable.tolist() == [True, False]
    assert tracker.penetration_m.tolist() == [0.003, 0.0]
    tracker.restart_attempt(torch.tensor([0, 1]))
    tracker.reset(torch.tensor([1]), state)
    assert tracker.attempts.tolist() == [2, 1]
    assert tracker.start_pos_w[:, 0].tolist() == pytest.approx([0.1, 1.1])
