"""The grasp machine: the whole sequence with the shipped policy, every way into fault, no input that gets past it."""

import math
import re
from dataclasses import replace
from functools import cache
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import assets
from dexgrasp_ros.grasp_types import REQUESTS, STATES, GraspCfg, Inputs, View
from dexgrasp_ros.grasping import GraspMachine
from dexgrasp_ros.poses import Pose
from dexgrasp_ros.scripted import MotionCfg, Script, Stage, approach, back_off, go_home, let_go
from dexgrasp_ros.timing import Timing
from policies.runtime import Command, Plan, Policy
from policies.safety import SafetyCfg

DT = 0.05
DOWN = np.array(
    [math.sqrt(0.5), 0.0, math.sqrt(0.5), 0.0]
)  # x, the palm's normal, points down; z, the fingers, along x
HOME = Pose(np.array([0.05, 0.0, 0.45]), DOWN)
GOAL = Pose(np.array([-0.1, 0.1, 0.2]), DOWN)


@cache
def student():
    """The shipped policy."""
    return Policy.load(assets.path("policies/allegro/student/bundle"))


def contract():
    return student().contract


def open_pose():
    return np.array(contract()["grasp"]["power"]["open_pose"])


def a_plan(goal=GOAL):
    style = contract()["grasp"]["power"]
    return Plan(goal.pos_m, goal.quat, 0.1, style["closing"], style["floor_m"], style["open_pose"])


def points():
    return np.random.default_rng(0).uniform([-0.13, 0.07, 0.0], [-0.07, 0.13, 0.06], (256, 3))


class World:
    """A robot that is where it was told to be, a tick later, and a camera that always sees."""

    def __init__(self, policy, shadow=False, **cfg):
        self.machine = GraspMachine(policy, GraspCfg(**cfg), SafetyCfg(), shadow=shadow)
        self.now_s, self.joints, self.palm = 100.0, open_pose() * 0.8, HOME
        self.changes = {}
        self.outputs = []

    def inputs(self, **changes):
        given = Inputs(
            now_s=self.now_s,
            joint_pos=self.joints,
            joints_stamp_s=self.now_s,
            palm_pos_w=self.palm.pos_m,
            palm_quat_w=self.palm.quat,
            palm_stamp_s=self.now_s,
            view=View(points(), 1.0, True, self.now_s),
            plan=a_plan(),
            plan_stamp_s=self.now_s,
        )
        return replace(given, **(self.changes | changes))

    def begin(self):
        assert self.machine.begin(self.inputs()) == ""
        return self

    def ask(self, name, **changes):
        return self.machine.request(name, self.inputs(**changes))

    def tick(self, follow=True, **changes):
        self.now_s += DT
        output = self.machine.tick(self.inputs(**changes))
        self.outputs.append(output)
        if follow and output.safe is not None:
            self.joints = output.safe.joint_target
            self.palm = Pose(output.safe.palm_pos_w, output.safe.palm_quat_w)
        return output

    def run_until(self, state, limit=1200):
        for _ in range(limit):
            if self.tick().state == state:
                return self
        raise AssertionError(f"no {state}, but {self.outputs[-1].state}: {self.outputs[-1].fault}")

    def states(self):
        found = [output.state for output in self.outputs]
        return [state for state, before in zip(found, [None, *found], strict=False) if state != before]


def in_state(state, policy=None):
    """A world in which the machine is in that state; by default with a policy that stays where it is."""
    world = World(policy or Wild()).begin()
    if state == "idle":
        return world
    assert world.ask("home" if state == "home" else "grasp") == ""
    if state in ("pregrasp", "home"):
        world.tick()
        return world
    world.run_until("hold" if state == "release" else state)
    if state == "release":
        assert world.ask("release") == ""
        world.tick()
    return world


def test_the_whole_sequence_with_the_shipped_policy():
    world = World(student()).begin()
    first = world.tick()
    np.testing.assert_allclose(first.safe.joint_target, open_pose() * 0.8, atol=1e-12)
    np.testing.assert_allclose(first.safe.palm_pos_w, HOME.pos_m, atol=1e-12)
    assert world.ask("grasp") == ""
    world.run_until("grasp")
    assert world.palm.distance_m(GOAL) < 0.02
    begun = len(world.outputs)
    world.run_until("lift")
    assert len(world.outputs) - begun == contract()["control"]["grasp_steps"]
    low_m = world.outputs[-2].safe.palm_pos_w[2]
    world.run_until("hold")
    for _ in range(10):
        world.tick()
    assert world.palm.pos_m[2] - low_m == pytest.approx(contract()["control"]["lift_m"], abs=0.01)
    assert world.outputs[-1].policy_s > 0
    assert world.outputs[-1].camera_age_s == pytest.approx(0.0)
    assert world.ask("release") == ""
    world.run_until("idle")
    np.testing.assert_allclose(world.joints, open_pose(), atol=0.03)  # the margin to the joint limits
    assert world.states() == ["idle", "pregrasp", "grasp", "lift", "hold", "release", "idle"]
    assert world.ask("home") == ""
    world.run_until("idle")
    assert world.palm.distance_m(HOME) < 0.011


def test_a_release_lowers_before_it_opens_and_only_then_backs_off():
    world = in_state("hold", student())
    lifted_m, gripping = world.palm.pos_m[2], world.machine.gate.joints.value.copy()
    assert world.ask("release") == ""
    heights, opened = [], []
    while world.machine.state == "release":
        world.tick()
        heights.append(world.palm.pos_m[2])
        opened.append(np.abs(world.machine.gate.joints.value - gripping).max())
    lowest = int(np.argmin(heights))
    first_open = next(k for k, value in enumerate(opened) if value > 0.05)
    assert lifted_m - heights[lowest] == pytest.approx(contract()["control"]["lift_m"] - 0.005, abs=0.011)
    assert lowest <= first_open
    assert heights[-1] - heights[lowest] == pytest.approx(GraspCfg().retreat_m, abs=0.02)  # the palm looks down


@pytest.mark.parametrize("state", [state for state in STATES if state != "fault"])
@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"estop": True}, "emergency stop"),
        ({"joints_stamp_s": 0.0}, "readings: .* s old"),
        ({"palm_stamp_s": math.nan}, "readings: nan s old"),
        ({"joint_pos": None}, "not 16 finite values"),
        ({"joint_pos": [0.0] * 15}, "not 16 finite values"),
        ({"palm_quat_w": [0.0] * 4}, "not of unit length"),
        ({"palm_pos_w": [0.0, 0.0, 3.0]}, "the palm jumped by"),
        ({"joint_pos": [1.5] * 16}, "a joint jumped by"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_bad_inputs_end_in_a_latched_fault_within_one_tick(state, changes, reason):

    world = in_state(state)
    joints, palm = world.joints, world.palm
    output = world.tick(**changes)
    assert output.state == "fault"
    assert re.search(reason, output.fault), output.fault
    for _ in range(40):
        output = world.tick(follow=False)
        assert output.state == "fault"
        assert output.proposal is None
    # it holds where it was measured last, here or one tick before, give or take the margin to the joint limits
    np.testing.assert_allclose(output.safe.joint_target, joints, atol=0.021 if "estop" in changes else 0.06)
    held = Pose(output.safe.palm_pos_w, output.safe.palm_quat_w)
    assert palm.distance_m(held) <= (1e-9 if "estop" in changes else 0.01)
    assert [name for name in REQUESTS if not world.ask(name)] == ["stop", "reset_fault"]
    assert world.machine.state == "idle"


@pytest.mark.parametrize("state", ["grasp", "lift", "hold"])
def test_points_that_are_too_old_stop_the_policy(state):
    world = in_state(state)
    stamp_s = world.now_s
    for _ in range(5):
        assert world.tick(view=View(points(), 1.0, True, stamp_s)).state != "fault"
    world.tick(view=View(points(), 1.0, True, stamp_s))
    output = world.tick(view=View(points(), 1.0, True, stamp_s))
    assert output.state == "fault"
    assert "points: 0.350 s old" in output.fault


@pytest.mark.parametrize("state", ["idle", "pregrasp", "release", "home"])
def test_points_count_only_while_the_policy_watches(state):
    world = in_state(state)
    for _ in range(5):
        assert world.tick(view=None).state == state


@pytest.mark.parametrize(
    ("view", "reason"),
    [
        (None, "no points"),
        (View(np.zeros((7, 3)), 1.0, True, math.inf), "points_w: expected shape"),
        (View(np.full((256, 3), np.nan), 1.0, True, math.inf), "points_w is not finite"),
    ],
)
def test_points_that_do_not_fit_stop_the_policy(view, reason):
    world = in_state("grasp", student())
    output = world.tick(view=view and replace(view, stamp_s=world.now_s + DT))
    assert output.state == "fault"
    assert reason in output.fault


def test_a_late_tick_is_a_fault():
    world = in_state("pregrasp")
    world.now_s += 3 * DT
    assert world.tick().fault == "missed ticks: 0.200 s since the last one"


def test_a_clock_that_runs_back_is_a_fault():
    world = in_state("hold")
    world.now_s -= 1.0
    assert "clock" in world.tick().fault


def test_stop_acts_at_the_next_tick_and_brakes():
    world = in_state("lift")
    height_m = world.palm.pos_m[2]
    assert world.ask("stop") == ""
    assert world.tick().fault == "stopped by request"
    for _ in range(20):
        world.tick(follow=False)
    assert world.outputs[-1].safe.palm_pos_w[2] == pytest.approx(height_m, abs=0.02)


def test_a_hold_does_not_creep_after_a_robot_that_sags():
    world = in_state("idle")
    world.ask("stop")
    world.tick()
    held = world.palm
    for _ in range(40):  # 1 mm and 0.01 rad further down in each tick
        world.palm = Pose(world.palm.pos_m - np.array([0.0, 0.0, 0.001]), DOWN)
        world.joints = world.joints - 0.01
        output = world.tick(follow=False)
    assert held.distance_m(Pose(output.safe.palm_pos_w, DOWN)) < 1e-9
    np.testing.assert_allclose(output.safe.joint_target, open_pose() * 0.8, atol=0.021)


def test_a_fault_is_reset_only_when_all_is_well():
    world = in_state("grasp")
    world.tick(estop=True)
    assert world.ask("reset_fault", estop=True) == "the emergency stop is pressed"
    assert "s old" in world.ask("reset_fault", joints_stamp_s=0.0)
    assert "finite" in world.ask("reset_fault", joint_pos=[math.nan] * 16)
    assert world.ask("reset_fault", joint_pos=None, trouble="unknown joints") == (
        "no joint states of the hand yet: unknown joints"
    )
    assert world.machine.state == "fault"
    assert world.ask("reset_fault") == ""
    assert world.tick().state == "idle"
    assert world.ask("reset_fault") == "there is no fault"
    assert world.ask("grasp") == ""


def test_commands_do_not_begin_where_the_robot_cannot_be():
    world = World(Wild())
    joints = world.joints.copy()
    joints[5] += math.pi
    assert "joint mfj1 is measured at" in world.machine.begin(world.inputs(joint_pos=joints))
    assert "outside its workspace" in world.machine.begin(world.inputs(palm_pos_w=[0.0, 0.0, 1.2]))
    assert "no pose of the palm yet" in world.machine.begin(world.inputs(palm_pos_w=None))
    output = world.tick()
    assert output.safe is None
    assert world.ask("grasp") == "the node is not active"


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"plan": None}, "no plan yet"),
        ({"plan_stamp_s": 0.0}, "the plan is 100.00 s old"),
        ({"plan": a_plan(Pose(np.array([0.9, 0.0, 0.3]), DOWN))}, "outside the palm's workspace"),
        ({"plan": replace(a_plan(), closing=[0.0] * 3)}, "closing: expected shape"),
        ({"plan": replace(a_plan(), joint_pos=[math.nan] * 16)}, "16 finite"),
        ({"plan": replace(a_plan(), palm_quat_w=[0.0] * 4)}, "unit length"),
        ({"plan": replace(a_plan(), depth_m=math.inf)}, "depth_m is not finite"),
        ({"estop": True}, "emergency stop"),
    ],
)
def test_a_grasp_is_refused_with_the_reason(changes, reason):
    world = World(student()).begin()
    assert reason in world.ask("grasp", **changes)
    assert world.tick().state == "idle"


@pytest.mark.parametrize(
    ("state", "refused"),
    [
        ("idle", {"reset_fault"}),
        ("pregrasp", {"grasp", "release", "reset_fault"}),
        ("grasp", {"grasp", "home", "reset_fault"}),
        ("hold", {"grasp", "home", "reset_fault"}),
        ("release", {"grasp", "home", "release", "reset_fault"}),
        ("fault", {"grasp", "home", "release"}),
    ],
)
def test_what_may_be_asked_for_in_which_state(state, refused):
    for name in REQUESTS:
        world = in_state("idle" if state == "fault" else state)
        if state == "fault":
            world.tick(estop=True)
        assert bool(world.ask(name)) == (name in refused), (state, name)
    assert "there are" in world.ask("dance")


def test_an_arm_that_is_held_up_makes_the_palm_wait_and_then_time_out():
    world = World(Wild(), timeout_s=5.0).begin()
    assert world.ask("grasp") == ""
    for _ in range(20):
        world.tick()
    for _ in range(200):
        output = world.tick(follow=False)
        if output.state == "fault":
            break
        assert world.palm.distance_m(Pose(output.safe.palm_pos_w, DOWN)) < 0.07
    assert "pregrasp took longer than 5.0 s: " in output.fault
    assert "the palm is" in output.fault


def test_an_arm_that_stands_still_while_the_policy_moves_it_is_a_fault():
    world = in_state("grasp", student())
    while world.tick(follow=False).state != "fault":
        assert len(world.outputs) < 2000
    assert "the palm does not follow: 0.12" in world.outputs[-1].fault
    for _ in range(40):
        world.tick(follow=False)
    assert world.palm.distance_m(Pose(world.outputs[-1].safe.palm_pos_w, DOWN)) < 1e-9


def test_in_shadow_mode_the_policy_waits_for_the_operator_and_moves_nothing_itself():
    world = World(student(), shadow=True).begin()
    assert world.ask("grasp") == ""
    for k in range(60):  # the operator carries the palm to the pre-grasp
        share = min(k / 50, 1.0)
        world.palm = Pose(HOME.pos_m + share * (GOAL.pos_m - HOME.pos_m), DOWN)
        world.tick(follow=False)
    assert world.machine.state == "grasp"
    for _ in range(80):
        world.tick(follow=False)
    assert world.machine.state == "hold"
    assert world.outputs[-1].proposal is not None
    assert world.ask("release") == ""
    assert world.tick(follow=False).state == "idle"
    assert world.ask("home") == "somebody else moves the robot"


def test_a_stage_waits_for_the_robot_and_moves_no_faster_than_it_may():
    cfg = MotionCfg(palm_speed_m_s=0.2, joint_speed_rad_s=1.0)
    goal = Pose(np.array([0.35, 0.0, 0.45]), DOWN)
    script = Script([Stage("go", goal, np.full(2, 0.5))], HOME, np.zeros(2), cfg, DT)
    for k in range(1, 4):
        pose, fingers = script.step(HOME, np.zeros(2))
        assert pose.distance_m(HOME) == pytest.approx(0.01 * k)  # 0.2 m/s at 20 Hz
        assert fingers == pytest.approx([0.05 * k] * 2)
    for _ in range(50):
        pose, fingers = script.step(HOME, np.zeros(2))
    assert pose.distance_m(HOME) == pytest.approx(cfg.lead_m)
    for _ in range(200):
        pose, fingers = script.step(pose, fingers)
    assert script.done
    assert pose.distance_m(goal) < 1e-9


def test_what_is_in_the_way_of_a_release_is_given_time_but_a_pregrasp_must_be_reached():
    blocked, goal = HOME, Pose(HOME.pos_m - np.array([0.0, 0.0, 0.03]), DOWN)
    for exact in (False, True):
        script = Script([Stage("lower", goal, exact=exact)], HOME, np.zeros(2), MotionCfg(settle_s=0.5), DT)
        ticks = 0
        while not script.done and ticks < 100:
            script.step(blocked, np.zeros(2))
            ticks += 1
        assert ticks == (100 if exact else 4 + 9)  # 0.03 m at 0.15 m/s; half a second from when it is there


def test_the_way_to_a_pregrasp_goes_up_across_and_down_along_the_normal():
    tilted = Pose(np.array([0.1, 0.2, 0.2]), np.array([math.cos(0.6), 0.0, math.sin(0.6), 0.0]))
    start = Pose(np.array([-0.2, -0.2, 0.15]), DOWN)
    up, over, lower, down = approach(start, tilted, open_pose(), 0.4)
    np.testing.assert_allclose(up.palm.pos_m, [-0.2, -0.2, 0.4])
    assert over.palm.pos_m[2] == pytest.approx(0.4)
    np.testing.assert_allclose(lower.palm.pos_m, over.palm.pos_m)
    along = down.palm.pos_m - lower.palm.pos_m
    np.testing.assert_allclose(np.cross(along, tilted.normal), 0, atol=1e-12)
    assert along @ tilted.normal > 0
    assert down.exact


def test_a_palm_that_looks_sideways_comes_down_beside_the_object():
    side = Pose(np.array([0.1, 0.0, 0.1]), np.array([1.0, 0.0, 0.0, 0.0]))  # looks along x
    np.testing.assert_allclose(back_off(side, 0.4).pos_m, [0.0, 0.0, 0.1])
    _, over, lower, down = approach(HOME, side, open_pose(), 0.4)
    np.testing.assert_allclose(over.palm.pos_m, [0.0, 0.0, 0.45])
    np.testing.assert_allclose(lower.palm.pos_m, [0.0, 0.0, 0.1])
    np.testing.assert_allclose(down.palm.pos_m, [0.1, 0.0, 0.1])


def test_ways_out_and_home_by_hand():
    held = Pose(np.array([0.0, 0.0, 0.3]), DOWN)
    lower, opened, retreat = let_go(held, 0.15, open_pose(), 0.1)
    np.testing.assert_allclose([lower.palm.pos_m[2], retreat.palm.pos_m[2]], [0.155, 0.255])
    assert opened.palm is None
    assert [stage.name for stage in let_go(held, 0.0, open_pose(), 0.1)] == ["open", "retreat"]
    heights = [stage.palm.pos_m[2] for stage in go_home(held, HOME, open_pose(), 0.4)]
    assert heights == pytest.approx([0.45, 0.45, 0.45])


def test_percentiles_by_hand():
    timing = Timing(kept=100)
    for k in range(200):
        timing.add("policy", k / 1000)
    timing.add("policy", math.nan)
    # the last hundred are 100 to 199 ms
    assert timing.percentiles_ms()["policy"] == pytest.approx((149.5, 194.05, 198.01))
    timing.clear()
    assert timing.percentiles_ms() == {}


class Wild:
    """A policy that says anything and may throw."""

    rate_hz = 20.0

    def __init__(self):
        self.contract = contract()
        self.answer, self.steps = 0.0, 0

    @property
    def phase(self):
        return "grasp" if self.steps < 3 else "lift" if self.steps < 6 else "hold"

    def begin(self, plan):
        self.steps = 0

    def act(self, readings):
        self.steps += 1
        if isinstance(self.answer, Exception):
            raise self.answer
        scale = self.answer
        return Command(readings.joint_pos + scale, readings.palm_pos_w + scale, readings.palm_quat_w, np.zeros(22))


nasty = st.one_of(st.just(math.nan), st.just(math.inf), st.floats(-1e3, 1e3), st.floats(-0.2, 0.2))
change = st.one_of(
    st.just({}),
    st.fixed_dictionaries({"joints_stamp_s": nasty}),
    st.fixed_dictionaries({"palm_stamp_s": nasty}),
    st.fixed_dictionaries({"joint_pos": st.one_of(st.none(), st.lists(nasty, min_size=15, max_size=16))}),
    st.fixed_dictionaries({"palm_pos_w": st.one_of(st.none(), st.lists(nasty, min_size=3, max_size=3))}),
    st.fixed_dictionaries({"palm_quat_w": st.lists(nasty, min_size=4, max_size=4)}),
    st.fixed_dictionaries({"view": st.one_of(st.none(), st.builds(View, st.just("no"), nasty, st.booleans(), nasty))}),
    st.fixed_dictionaries({"plan": st.one_of(st.none(), st.builds(Plan, *[st.lists(nasty, max_size=4)] * 6))}),
    st.fixed_dictionaries({"estop": st.just(True)}),
)
event = st.tuples(
    st.one_of(st.just(DT), st.just(DT), st.just(DT), nasty),  # step of the clock
    st.one_of(st.none(), st.none(), st.sampled_from(REQUESTS)),
    st.one_of(st.just({}), st.just({}), change),
    st.one_of(st.just(0.0), nasty, st.just(RuntimeError("boom"))),  # of the policy
    st.booleans(),  # whether the robot follows
)


@settings(max_examples=60, deadline=None)
@given(start=st.sampled_from(["idle", "pregrasp", "grasp", "hold", "release"]), events=st.lists(event, max_size=40))
def test_no_sequence_of_inputs_gets_a_command_past_the_limits_or_an_exception_out(start, events):
    policy = Wild()
    world = in_state(start, policy)
    check = Limits(world)
    for step_s, name, changes, policy.answer, follow in events:
        world.now_s += step_s - DT
        before, faulty = world.machine.state, bool(world.machine.fault)
        accepted = name is not None and world.ask(name, **changes) == ""
        if accepted and name == "reset_fault":
            check.begin_again()
        output = world.tick(follow=follow, **changes)
        if not math.isfinite(world.now_s):
            world.now_s = check.now_s
        check(output)
        assert (output.state == "fault") == bool(output.fault)
        if before == "fault" and not (accepted and name == "reset_fault"):
            assert output.state == "fault" and faulty


class Limits:
    """What must hold of commands one after the other."""

    def __init__(self, world):
        gate = world.machine.gate
        self._lower, self._upper = gate.joints.lower, gate.joints.upper
        self._box = gate.palm.lower, gate.palm.upper
        self._step, self._reach = gate.joints.greatest, float(np.linalg.norm(gate.palm.greatest))
        self._world, self.now_s = world, world.now_s
        self.begin_again()

    def begin_again(self):
        """The robot starts anew from where it was measured."""
        gate = self._world.machine.gate
        self._last = SimpleNamespace(at=gate.joints.value.copy(), palm=gate.palm.value.copy())

    def __call__(self, output):
        safe = output.safe
        assert np.isfinite(np.concatenate([safe.joint_target, safe.palm_pos_w, safe.palm_quat_w])).all()
        assert (safe.joint_target >= self._lower).all() and (safe.joint_target <= self._upper).all()
        assert (safe.palm_pos_w >= self._box[0]).all() and (safe.palm_pos_w <= self._box[1]).all()
        assert (np.abs(safe.joint_target - self._last.at) <= self._step + 1e-9).all()
        assert np.linalg.norm(safe.palm_pos_w - self._last.palm) <= self._reach + 1e-9
        self._last = SimpleNamespace(at=safe.joint_target, palm=safe.palm_pos_w)
        self.now_s = self._world.now_s
