"""Reward terms: numbers worked out by hand."""

from dataclasses import fields, replace

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dexgrasp import configs
from dexgrasp.configs.loader import ConfigError
from dexgrasp.policies.evaluation.config import EvaluateCfg
from dexgrasp.sim.engine.base import State
from dexgrasp.sim.task import rewards
from dexgrasp.sim.task.actions import Phases
from dexgrasp.sim.task.grasp_task import GraspTask, TaskCfg
from dexgrasp.sim.task.rewards import RewardCfg, register_reward

WEIGHTS = torch.tensor([0.0, 1.0, 3.0])


def near(value, *want):
    torch.testing.assert_close(value.double(), torch.tensor(want, dtype=torch.float64), rtol=0, atol=1e-6)


def test_reach_is_the_weighted_mean_distance_with_a_cap():
    # (0 * 0.9 + 1 * 0.02 + 3 * 0.06) / 4 = 0.05; far away every keypoint counts 0.15
    near(rewards.reach(torch.tensor([[0.9, 0.02, 0.06], [1.0, 1.0, 1.0]]), WEIGHTS), 0.05, 0.15)


def test_contact_is_the_weighted_share_of_touching_bodies():
    touching = torch.tensor([[True, True, False], [False, True, True], [True, False, False]])
    near(rewards.contact(touching, WEIGHTS), 0.25, 1.0, 0.0)


def test_force_saturates_at_ten_newtons_per_body():
    # row 0: (1 * 0.2 + 3 * 0.4) / 4 = 0.35; row 1: both bodies saturate
    near(rewards.force(torch.tensor([[99.0, 2.0, 4.0], [0.0, 10.0, 500.0]]), WEIGHTS), 0.35, 1.0)


def test_opposition_needs_the_thumb_and_a_finger():
    thumb, fingers = torch.tensor([False, False, True]), torch.tensor([False, True, False])
    touching = torch.tensor([[True, True, True], [True, True, False], [True, False, True], [False, True, True]])
    near(rewards.opposition(touching, thumb, fingers), 1, 0, 0, 1)


def test_table_contact_counts_any_body_once():
    near(rewards.table_contact(torch.tensor([[False, False], [True, False], [True, True]])), 0, 1, 1)


def test_displacement_is_a_distance_over_the_table_with_a_cap():
    near(rewards.displacement(torch.tensor([[0.03, -0.04], [3.0, 4.0]])), 0.05, 0.2)


def test_object_speed_reaches_one_at_a_third_of_a_metre_per_second():
    near(rewards.object_speed(torch.tensor([[0.1, 0.0, 0.0], [0.0, 0.0, 1 / 3], [0.0, 9.0, 0.0]])), 0.09, 1.0, 1.0)


def test_object_spin_is_squared_and_capped_at_ten():
    near(rewards.object_spin(torch.tensor([[1.0, 0.0, 2.0], [4.0, 0.0, 0.0]])), 5.0, 10.0)


def test_palm_speed_costs_ten_times_as_much_when_fast():
    near(rewards.palm_speed(torch.tensor([[0.2, 0.0, 0.0], [0.0, 0.3, 0.0], [0.0, 0.0, 0.25]])), 0.04, 0.9, 0.0625)


def test_lift_is_the_share_of_the_commanded_rise():
    rise = torch.tensor([0.05, 0.2, -0.01, 0.005])
    commanded = torch.tensor([0.1, 0.15, 0.1, 0.0])
    near(rewards.lift(rise, commanded), 0.5, 1.0, 0.0, 0.5)  # the last: 5 mm of at least 10 mm


def test_action_is_its_mean_square():
    near(rewards.action(torch.tensor([[1.0, -2.0, 0.0, 1.0]])), 1.5)


@pytest.mark.parametrize("term", ["reach", "table_contact", "displacement", "object_speed", "palm_speed", "action"])
def test_what_is_to_be_avoided_costs(term):
    assert getattr(RewardCfg(), term) < 0


def test_the_task_gives_every_weight_a_term_and_sums_them(allegro, household, balanced):
    names = {field.name for field in fields(RewardCfg)} - {"floor", "extra"}
    weights = RewardCfg(**dict.fromkeys(names, 0.0) | {"reach": -2.0, "action": -0.5})
    task = GraspTask(TaskCfg(reward=weights), allegro, household, balanced, 2, num_threads=1)
    task.reset([0, 1])
    result = task.step(torch.ones(2, 22))
    assert set(result.info["terms"]) == names
    assert result.info["terms"]["action"] == pytest.approx(-0.5)  # actions of one: mean square 1
    assert -2.0 * 0.15 <= result.info["terms"]["reach"] < 0
    assert sum(result.info["terms"].values()) == pytest.approx(float(result.reward.mean()), abs=1e-6)
    silent = [name for name, value in result.info["terms"].items() if value != 0]
    assert sorted(silent) == ["action", "reach"]


def zero_state(hand, envs):
    """A state of zeros in double precision, without contacts."""
    joints, bodies = len(hand.joint_names), len(hand.contact_bodies)
    sizes = {"joint": (joints,), "keypoints": (len(hand.keypoint_names), 3), "quat": (4,), "force": (bodies, 3)}
    sizes |= {"contact": (bodies,), "pos": (3,), "vel": (3,)}
    state = {
        item.name: torch.zeros(envs, *next((size for word, size in sizes.items() if word in item.name), ()))
        for item in fields(State)
    }
    return State(**state | {name: state[name].bool() for name in ("object_contact", "table_contact")})


@pytest.fixture
def phased(allegro):
    """Four environments: first step of the grasp, its last, first step of the lift, and in the hold."""
    phases = Phases(torch.tensor([0, 9, 10, 17]), grasp_steps=10, lift_steps=5, episode_steps=20)
    everywhere = torch.tensor([0.1, -0.1, 0.0]).expand(4, 3)
    state = zero_state(allegro, 4)
    state.table_contact[:, 0] = True
    state.object_linvel_w[:], state.object_angvel_w[:] = everywhere, torch.tensor([0.0, 2.0, 1.0])
    return rewards.RewardContext(
        state=state,
        phases=phases,
        object_vectors_p=torch.tensor([0.0, 0.04, 0.03]).expand(4, len(allegro.keypoint_names), 3),
        palm_linvel_w=everywhere,
        object_offset_w=torch.tensor([0.06, 0.08, 0.016]).expand(4, 3),
        success=torch.tensor([False, False, False, True]),
        action=torch.tensor([1.0, -2.0]).expand(4, 2),
        hand=allegro,
        lift_m=0.2,
        step_s=0.05,
    )


@pytest.mark.parametrize(
    ("term", "values"),
    [
        ("reach", [0.05, 0.05, 0, 0]),
        ("table_contact", [1, 1, 0, 0]),  # lift and hold may touch the table, as when an object is put down
        ("displacement", [0.1, 0.1, 0, 0]),
        ("object_speed", [0.18, 0.18, 0, 0]),  # 9 * 0.02
        ("object_spin", [5, 5, 0, 0]),
        ("palm_speed", [0.02, 0.02, 0, 0]),
        # the first step of the lift commands 0.2 m / 5 = 0.04 m; from the fifth on 0.2 m
        ("lift", [0, 0, 0.4, 0.08]),
        ("success", [0, 0, 0, 1]),
        ("action", [2.5, 2.5, 2.5, 2.5]),
        ("contact", [0, 0, 0, 0]),
    ],
)
def test_terms_count_in_their_phases(allegro, phased, term, values):
    names = {field.name for field in fields(RewardCfg)} - {"floor", "extra"}
    weights = RewardCfg(**dict.fromkeys(names, 0.0) | {term: 2.0})
    given = rewards.Rewards(weights, allegro)
    total, means = given(phased)
    near(total, *(2.0 * value for value in values))
    near(given.weighted[term], *(2.0 * value for value in values))
    assert means == pytest.approx(dict.fromkeys(names, 0.0) | {term: 2.0 * sum(values) / 4}, abs=1e-6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_rewards_are_of_single_precision_whatever_the_state_is(allegro, phased, dtype):
    context = replace(phased, **{n: getattr(phased, n).to(dtype) for n in ("object_vectors_p", "action")})
    given = rewards.Rewards(RewardCfg(), allegro)
    total, _ = given(context)
    assert {total.dtype, *(term.dtype for term in given.weighted.values())} == {torch.float32}
    assert rewards.reach(context.object_vectors_p.norm(dim=-1), given._keypoint_weights).dtype == dtype


@pytest.mark.parametrize(("step", "share"), [(10, 1.0), (11, 0.75), (12, 0.5), (13, 0.375), (14, 0.3), (15, 0.3)])
def test_the_commanded_height_grows_from_the_first_step_of_the_lift_to_its_last(allegro, phased, step, share):
    """0.04 m more with each of five steps; the object rose by 0.06 m."""
    phases = replace(phased.phases, step=torch.full((4,), step))
    context = replace(phased, phases=phases, object_offset_w=torch.tensor([0.0, 0.0, 0.06]).expand(4, 3))
    given = rewards.Rewards(RewardCfg(lift=1.0), allegro)
    given(context)
    near(given.weighted["lift"], *[share] * 4)


def test_contacts_and_forces_are_weighted_by_the_hand(allegro, phased):
    weights = [float(weight) for weight in allegro.contact_weights]
    thumb, fingers = list(allegro.thumb_mask), list(allegro.finger_mask)
    for first in range(len(weights)):
        for second in (thumb.index(True), fingers.index(True)):
            phased.state.object_contact[:] = False
            phased.state.object_contact[:, [first, second]] = True
            phased.state.object_force_w[:] = 0.0
            phased.state.object_force_w[:, first] = torch.tensor([3.0, 0.0, -4.0])
            given = rewards.Rewards(RewardCfg(contact=1.0, force=1.0, opposition=1.0), allegro)
            given(phased)
            share = sum(weights[body] for body in {first, second}) / sum(weights)
            near(given.weighted["contact"], *[share] * 4)
            near(given.weighted["force"], *[0.5 * weights[first] / sum(weights)] * 4)
            opposed = float(any(thumb[b] for b in (first, second)) and any(fingers[b] for b in (first, second)))
            near(given.weighted["opposition"], *[opposed] * 4)


def test_no_step_earns_less_than_the_floor(allegro, household, balanced):
    task = GraspTask(
        TaskCfg(reward=RewardCfg(action=-100.0, floor=-1.5)), allegro, household, balanced, 2, num_threads=1
    )
    task.reset([0, 1])
    assert task.step(torch.ones(2, 22)).reward.tolist() == [-1.5, -1.5]


@pytest.fixture
def make(allegro, household, balanced, monkeypatch):
    """Makes a task with extra terms; what a test registers is forgotten after it."""
    monkeypatch.setattr(rewards._REGISTRY, "_entries", {})

    def build(**extra: float) -> GraspTask:
        cfg = TaskCfg(reward=RewardCfg(extra=extra))
        return GraspTask(cfg, allegro, household, balanced, 2, num_threads=1)

    return build


def palm_height(context: rewards.RewardContext) -> torch.Tensor:
    return context.state.palm_pos_w[:, 2]


def rollout(task: GraspTask, steps: int = 4) -> list[torch.Tensor]:
    task.reset([0, 1])
    noise = torch.randn(steps, 2, 22, generator=torch.manual_seed(0))
    return [task.step(action).reward for action in noise]


def test_a_registered_term_is_weighted_and_added(make):
    register_reward("palm_height", palm_height)
    register_reward("ones", lambda context: torch.ones_like(context.success))  # bool counts as 0 or 1
    plain, task = make(), make(palm_height=0.5, ones=2.0)
    for before in (plain, task):
        before.reset([0, 1])
    action = torch.full((2, 22), 0.1)
    without, with_it = plain.step(action), task.step(action)
    height_m = task.engine.state.palm_pos_w[:, 2]
    near(with_it.reward - without.reward, *(0.5 * height_m + 2.0).tolist())
    assert with_it.info["terms"]["palm_height"] == pytest.approx(0.5 * float(height_m.mean()))
    assert with_it.info["terms"]["ones"] == 2.0
    assert list(with_it.info["terms"])[:-2] == list(without.info["terms"])


def test_a_term_reads_the_step_that_was_just_taken(make):
    """Palm speed by finite differences, and the action as it was clipped."""
    seen = []
    register_reward("spy", lambda context: seen.append(context) or torch.zeros(2))
    task = make(spy=1.0)
    task.reset([0, 1])
    before_m = task.engine.state.palm_pos_w.clone()
    task.step(torch.full((2, 22), 9.0))
    (context,) = seen
    torch.testing.assert_close(context.palm_linvel_w, (task.engine.state.palm_pos_w - before_m) * 20.0)
    assert context.action.unique().tolist() == [3.0]
    assert context.phases.step.tolist() == [0, 0]
    assert (context.lift_m, context.step_s, context.hand.name) == (0.15, 0.05, "allegro")


@settings(max_examples=5, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(scale=st.floats(-1e30, 1e30))
def test_a_weight_of_zero_changes_no_bit_of_the_reward(make, scale):
    """Whatever finite values the term has."""
    rewards._REGISTRY._entries.clear()
    register_reward("loud", lambda context: scale * torch.linspace(-1.0, 1.0, 2))
    for without, with_it in zip(rollout(make()), rollout(make(loud=0.0)), strict=True):
        assert torch.equal(without, with_it)


@pytest.mark.parametrize(
    ("value", "error", "text"),
    [
        (torch.zeros(3), ValueError, r"'mine' must return a float or bool tensor \(2,\) on cpu, got \(3,\) on cpu"),
        (torch.zeros(2, 1), ValueError, r"got \(2, 1\) on cpu"),
        (torch.zeros(2, dtype=torch.int64), TypeError, r"must return a float or bool tensor.*got torch\.int64"),
        (1.0, TypeError, "got float"),
        (torch.tensor([0.0, float("nan")]), FloatingPointError, r"'mine' is not finite in environments \[1\]"),
        (torch.tensor([float("inf"), 0.0]), FloatingPointError, r"'mine' is not finite in environments \[0\]"),
    ],
)
def test_a_term_that_gives_something_else_is_named(make, value, error, text):
    register_reward("mine", lambda context: value)
    with pytest.raises(error, match=text):
        rollout(make(mine=0.5), 1)


def test_a_term_that_nobody_registered_is_named_with_the_remedy(make):
    """As when a saved run is opened without the module that was imported for training."""
    register_reward("other", palm_height)
    saved = configs.as_dict(TaskCfg(reward=RewardCfg(extra={"absent": 0.5})))
    assert saved["reward"]["extra"] == {"absent": 0.5}
    cfg = configs.from_dict(TaskCfg, saved, "config.yaml")
    message = (
        r"^reward term 'absent' is not registered\. Registered: other\. Register it with dexgrasp\.register_reward; .*"
        r"plugins=my_module$"
    )
    with pytest.raises(ValueError, match=message):
        make(**cfg.reward.extra)


def test_a_name_belongs_to_one_function(make):
    register_reward("mine", palm_height)
    register_reward("mine", palm_height)  # its module was imported again
    with pytest.raises(
        ValueError, match=r"reward term 'mine' is registered already, by tests\.sim\.test_rewards\.palm_height"
    ):
        register_reward("mine", rollout)
    for name in ("reach", "floor", "extra"):
        with pytest.raises(ValueError, match=f"reward term '{name}' is built in"):
            register_reward(name, palm_height)
    with pytest.raises(ValueError, match="must be a Python identifier, got 'my term'"):
        register_reward("my term", palm_height)
    with pytest.raises(TypeError, match=r"reward term 'mine' must be a function of a RewardContext, got 0\.5"):
        register_reward("mine", 0.5)


@pytest.mark.parametrize(
    "words",
    [
        ["task.reward.extra={a: 0.5, b: -1}"],
        ["task.reward.extra.a=0.5", "task.reward.extra.b=-1"],
        ["task.reward.extra={a: 3, b: -1}", "task.reward.extra.a=0.5"],
    ],
)
def test_extra_terms_are_given_on_the_command_line(words):
    assert configs.load(EvaluateCfg, "evaluate", words).task.reward.extra == {"a": 0.5, "b": -1.0}


@pytest.mark.parametrize(
    ("word", "text"),
    [
        ("task.reward.extra.a=fast", r"'task\.reward\.extra\[a\]' expects float, got 'fast'"),
        ("task.reward.extra={a}", r"'task\.reward\.extra\[a\]' expects float, got None"),
        ("task.reward.extra={1: 0.5}", r"'a key of task\.reward\.extra' expects str, got 1$"),
        ("task.reward.extra=0.5", r"'task\.reward\.extra' expects a mapping of str to float, got '0\.5'"),
        ("task.reward.extra.reach=0.5", r"reward\.extra\.reach is a built-in key: set reward\.reach instead"),
        ("task.reward.extra.a.b=0.5", r"'task\.reward\.extra\[a\]' expects float"),
    ],
)
def test_weights_that_are_none_are_refused(word, text):
    with pytest.raises(ConfigError, match=text):
        configs.load(EvaluateCfg, "evaluate", [word])


def test_a_function_that_cannot_be_a_term_is_refused_when_it_is_registered(make):
    with pytest.raises(TypeError, match="reward term 'two' must be a function of one argument, a RewardContext"):
        register_reward("two", lambda context, weight: context.step_s)
    register_reward("first", lambda context: context.success)
    with pytest.raises(ValueError, match="reward term 'first' is registered already"):
        register_reward("first", lambda context: ~context.success)


def test_an_error_in_a_term_names_the_term(make):
    register_reward("divides", lambda context: 1 / 0)
    with pytest.raises(ZeroDivisionError) as caught:
        rollout(make(divides=1.0))
    assert caught.value.__notes__ == ["raised in the reward term 'divides'"]
