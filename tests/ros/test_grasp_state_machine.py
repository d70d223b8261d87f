"""The grasp machine: the whole sequence with the shipped policy, and every way into fault."""

import math
import re
from dataclasses import replace

import numpy as np
import pytest

from dexgrasp.utils.rotations import Pose
from dexgrasp.utils.timers import Timing
from dexgrasp_ros.grasping.input_checks import ESTOP
from dexgrasp_ros.grasping.scripted_motions import (
    MotionCfg,
    MotionStage,
    ScriptedMotion,
    approach,
    back_off,
    go_home,
    release,
)
from dexgrasp_ros.grasping.types import REQUESTS, STATES, GraspCfg
from dexgrasp_ros.object_estimate import ObjectEstimate
from tests.helpers.fake_robot import (
    DOWN,
    DT,
    GOAL,
    HOME,
    Wild,
    World,
    a_plan,
    contract,
    in_state,
    open_pose,
    points,
    student,
)


def test_the_whole_sequence_with_the_shipped_policy():
    world = World(student(), attempts=1).begin()
    first = world.tick()
    np.testing.assert_allclose(first.safe.joint_target, open_pose() * 0.8, atol=1e-12)
    np.testing.assert_allclose(first.safe.palm_pos_w, HOME.pos_m, atol=1e-12)
    assert world.ask("grasp") == ""
    world.run_until("grasp")
    assert world.palm.distance_m(GOAL) < 0.02
    begun = len(world.outputs)
    world.run_until("lift")
    assert len(world.outputs) - begun == contract().control.grasp_steps
    low_m = world.outputs[-2].safe.palm_pos_w[2]
    world.run_until("hold")
    for _ in range(10):
        world.tick()
    assert world.palm.pos_m[2] - low_m == pytest.approx(contract().control.lift_m, abs=0.01)
    assert world.outputs[-1].policy_s > 0
    assert world.outputs[-1].camera_age_s == pytest.approx(0.0)
    assert world.ask("release") == ""
    world.run_until("idle")
    np.testing.assert_allclose(world.joints, open_pose(), atol=0.03)  # the margin to the joint limits
    assert world.states() == ["idle", "pregrasp", "grasp", "lift", "hold", "release", "idle"]
    assert world.ask("home") == ""
    world.run_until("idle")
    assert world.palm.distance_m(HOME) < 0.011


def test_the_shipped_policy_notices_that_nothing_rose_and_tries_again():
    """In this world there is no object but in the camera's eye; the last attempt holds, whatever it feels."""
    world = World(student(), attempts=2).begin()
    assert world.ask("grasp") == ""
    world.run_until("hold")
    assert world.states() == ["pregrasp", "grasp", "lift", "retreat", "pregrasp", "grasp", "lift", "hold"]


@pytest.mark.parametrize(
    ("rise_m", "fraction", "grip", "empty"),
    [
        (0.0, 1.0, 1.0, True),  # seen where it was
        (0.15, 1.0, 0.0, False),
        (0.15, 0.05, 0.6, True),  # the hand hides it, or it is not there
        (0.15, 0.05, 0.8, False),
    ],
)
def test_what_is_seen_to_rise_is_held_and_what_is_not_seen_must_be_felt(rise_m, fraction, grip, empty):
    policy = Wild()
    world = World(policy, attempts=2).begin()
    assert world.ask("grasp") == ""
    world.run_until("lift")
    policy.object_bottom_m, policy.grip = policy.object_bottom_m + rise_m, grip
    world.changes = {"estimate": replace(world.inputs().estimate, visible_fraction=fraction)}
    while world.tick().state == "lift":
        world.changes["estimate"] = replace(world.changes["estimate"], stamp_s=world.now_s + DT)
    assert world.machine.state == ("retreat" if empty else "hold")


def test_an_object_that_is_lost_in_the_hold_is_grasped_again():
    policy = Wild()
    world = World(policy, attempts=2).begin()
    assert world.ask("grasp") == ""
    world.run_until("lift")
    policy.object_bottom_m += contract().control.lift_m
    world.run_until("hold")
    assert [world.tick().state for _ in range(5)] == ["hold"] * 5
    policy.grip = contract().control.grip_threshold_hold - 0.01
    assert world.tick().state == "retreat"


def test_an_empty_hand_goes_home_and_waits_for_a_plan_made_from_there():
    policy = Wild()
    world = World(policy, attempts=2).begin()
    assert world.ask("grasp") == ""
    world.run_until("retreat")
    assert world.states() == ["pregrasp", "grasp", "lift", "retreat"]
    stale_s = world.now_s
    while not world.machine._script.done:
        world.tick(plan_stamp_s=stale_s)
    for _ in range(20):
        assert world.tick(plan_stamp_s=stale_s).state == "retreat"
    assert world.palm.distance_m(HOME) < 0.011
    np.testing.assert_allclose(world.joints, open_pose(), atol=0.03)
    assert world.tick(plan_stamp_s=stale_s, plan=a_plan(HOME)).state == "retreat"
    assert world.tick().state == "pregrasp"
    world.run_until("hold")
    assert world.states()[-4:] == ["pregrasp", "grasp", "lift", "hold"]


def test_a_policy_that_looked_once_lifts_whatever_it_feels():
    """Nothing that it knows of the object rises with the palm, and it could not look for another place."""
    policy = Wild()
    policy.contract = replace(contract(), camera=replace(contract().camera, mode="first_frame"))
    policy.grip = 0.0
    world = World(policy, attempts=3).begin()
    assert world.ask("grasp") == ""
    world.run_until("hold")
    assert world.states() == ["pregrasp", "grasp", "lift", "hold"]


def test_an_empty_hand_that_sees_nothing_gives_up():
    world = in_state("retreat")
    stale_s, cfg = world.now_s, world.machine.cfg
    while world.tick(plan_stamp_s=stale_s).state == "retreat":
        assert world.now_s < stale_s + cfg.timeout_s
    assert world.machine.state == "idle" and world.machine.fault == ""
    assert world.now_s - stale_s > cfg.look_timeout_s
    assert world.ask("grasp") == ""


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
    assert lifted_m - heights[lowest] == pytest.approx(contract().control.lift_m - 0.005, abs=0.011)
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
    if state == "idle" and "joints_stamp_s" in changes:
        return  # the next test
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


def test_old_readings_in_idle_are_waited_for():
    world = in_state("idle")
    before, stamp_s = world.tick().safe, world.now_s
    for _ in range(100):
        output = world.tick(joints_stamp_s=stamp_s)
        np.testing.assert_array_equal(output.safe.joint_target, before.joint_target)
    assert (output.state, output.fault) == ("idle", "")
    assert output.warning.startswith("readings are 5 s old")
    output = world.tick()
    assert (output.state, output.warning) == ("idle", "")
    world.tick(joints_stamp_s=stamp_s)
    moved = world.joints + 1.0  # while nothing was heard of it
    assert "jumped" in world.tick(joint_pos=moved).fault


@pytest.mark.parametrize("late", ["estimate", "joints_stamp_s", "palm_stamp_s"])
def test_a_hold_waits_half_a_second_for_inputs_that_are_too_old(late):
    world = in_state("hold")
    before, stamp_s = world.tick().safe, world.now_s
    given = {late: stamp_s if late != "estimate" else ObjectEstimate(points(), stamp_s=stamp_s)}
    limit_s = {"estimate": 0.3}.get(late, 0.1)
    while (output := world.tick(**given)).state == "hold":
        age_s = world.now_s - stamp_s
        assert bool(output.warning) == (age_s > limit_s + 1e-6), output
        if output.warning:
            np.testing.assert_array_equal(output.safe.palm_pos_w, before.palm_pos_w)
    assert world.now_s - stamp_s == pytest.approx(limit_s + 0.5 + DT, abs=DT / 2)
    assert "s old, at most" in output.fault


@pytest.mark.parametrize("state", ["pregrasp", "grasp", "lift"])
def test_points_that_are_too_old_stop_the_policy(state):
    policy = Wild()
    world = in_state(state, policy)
    stamp_s, steps = world.now_s, policy.steps
    for _ in range(7):
        policy.steps = steps  # the phase does not end
        output = world.tick(estimate=ObjectEstimate(points(), stamp_s=stamp_s))
        assert (output.state == "fault") == (world.now_s - stamp_s > 0.3 + 1e-6)
    assert "points: 0.350 s old" in output.fault


@pytest.mark.parametrize("state", ["idle", "release", "home"])
def test_points_count_only_while_the_policy_watches(state):
    world = in_state(state)
    for _ in range(5):
        assert world.tick(estimate=None).state == state


@pytest.mark.parametrize(
    ("estimate", "reason"),
    [
        (None, "no object points"),
        (ObjectEstimate(np.zeros((7, 3)), stamp_s=math.inf), "points_w: expected shape"),
        (ObjectEstimate(np.full((256, 3), np.nan), stamp_s=math.inf), "points_w is not finite"),
    ],
)
def test_points_that_do_not_fit_stop_the_policy(estimate, reason):
    world = in_state("grasp", student())
    output = world.tick(estimate=estimate and replace(estimate, stamp_s=world.now_s + DT))
    assert output.state == "fault"
    assert reason in output.fault


def test_a_late_tick_is_a_fault():
    world = in_state("pregrasp")
    world.now_s += 3 * DT
    assert world.tick().fault == "missed ticks: 0.200 s since the last one"


@pytest.mark.parametrize("state", ["idle", "hold"])
def test_a_late_tick_while_the_robot_stands_still_repeats_the_last_command(state):
    world = in_state(state)
    before = world.outputs[-1].safe if world.outputs else None
    stamp_s, estimate = world.now_s, world.inputs().estimate
    late = {"joints_stamp_s": stamp_s, "palm_stamp_s": stamp_s, "estimate": estimate}
    world.now_s += 9 * DT
    output = world.tick(**late)  # nothing that waits for this process has been read yet
    assert (output.state, output.fault) == (state, "")
    assert output.warning == "missed ticks: 0.500 s since the last one"
    if before is not None:
        np.testing.assert_array_equal(output.safe.joint_target, before.joint_target)
        np.testing.assert_array_equal(output.safe.palm_pos_w, before.palm_pos_w)
    assert "old" in world.tick(**late).warning
    output = world.tick()
    assert (output.state, output.fault, output.warning) == (state, "", "")
    for _ in range(20):
        assert world.tick().state == state


def test_inputs_that_stay_old_after_a_late_tick_are_a_fault():
    world = in_state("hold")
    estimate = world.inputs().estimate
    world.now_s += 9 * DT
    states = [world.tick(estimate=estimate).state for _ in range(13)]
    assert states == ["hold"] * 11 + ["fault"] * 2  # the late tick, and half a second


def test_a_late_tick_is_no_excuse_for_an_emergency_stop_or_a_jump():
    for change, reason in (({"estop": True}, "emergency stop"), ({"palm_pos_w": [0.0, 0.0, 9.0]}, "jumped")):
        world = in_state("hold")
        world.now_s += 9 * DT
        assert reason in world.tick(**change).fault


def test_a_pause_is_a_fault_where_the_robot_moves():
    for state, fault in (("hold", ""), ("idle", ""), ("lift", "why"), ("pregrasp", "why")):
        world = in_state(state)
        world.machine.pause("why")
        assert world.machine.fault == fault
        assert world.machine.warning == ("" if fault else "why")


def test_a_grasp_begins_only_on_a_plan_that_perception_confirms():
    world = in_state("idle")
    assert world.ask("grasp", plan_refused="perception refuses: 3 of 12 frames agree") == (
        "perception refuses: 3 of 12 frames agree"
    )
    assert world.tick().state == "idle"
    assert world.ask("grasp", plan_refused="x", plan_stamp_s=world.now_s - 2.0).startswith("the plan is 2.0")
    assert world.ask("grasp") == ""


def test_a_regrasp_waits_for_the_confirmation_of_its_plan():
    world = in_state("retreat")
    while not world.machine.awaits_plan(world.inputs()):
        world.tick(plan_refused="not asked")
    for _ in range(10):
        assert world.tick(plan_refused="not asked").state == "retreat"
    assert world.tick().state == "pregrasp"


@pytest.mark.parametrize("state", ["idle", "hold", "release", "home", "pregrasp", "lift"])
def test_values_of_any_size_are_told_in_a_short_line(state):
    for changes in ({"joint_pos": [1e300] * 16}, {"palm_pos_w": [1e300, 0.0, 0.0]}, {"joints_stamp_s": -1e300}):
        world = in_state(state)
        assert len(world.tick(**changes).fault) < 200


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
    assert world.ask("reset_fault", estop=True) == ESTOP
    assert "s old" in world.ask("reset_fault", joints_stamp_s=0.0)
    assert "finite" in world.ask("reset_fault", joint_pos=[math.nan] * 16)
    assert world.ask("reset_fault", joint_pos=None, input_errors="unknown joints") == (
        "no joint states of the hand received: unknown joints"
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
    assert "joint mfj1 is measured at" in world.machine.activate(world.inputs(joint_pos=joints))
    assert "outside its workspace" in world.machine.activate(world.inputs(palm_pos_w=[0.0, 0.0, 1.2]))
    assert "no palm pose received" in world.machine.activate(world.inputs(palm_pos_w=None))
    output = world.tick()
    assert output.safe is None
    assert world.ask("grasp") == "the node is not active"


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"plan": None}, "no plan received"),
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
    assert "known: " in world.ask("dance")


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
    assert "pregrasp took longer than 5 s: " in output.fault
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
    assert world.ask("home") == "in shadow mode another controller moves the robot"


def test_a_stage_waits_for_the_robot_and_moves_no_faster_than_it_may():
    cfg = MotionCfg(palm_speed_m_s=0.2, joint_speed_rad_s=1.0)
    goal = Pose(np.array([0.35, 0.0, 0.45]), DOWN)
    script = ScriptedMotion([MotionStage("go", goal, np.full(2, 0.5))], HOME, np.zeros(2), cfg, DT)
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
        script = ScriptedMotion(
            [MotionStage("lower", goal, exact=exact)], HOME, np.zeros(2), MotionCfg(settle_s=0.5), DT
        )
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
    lower, opened, retreat = release(held, 0.15, open_pose(), 0.1)
    np.testing.assert_allclose([lower.palm.pos_m[2], retreat.palm.pos_m[2]], [0.155, 0.255])
    assert opened.palm is None
    assert [stage.name for stage in release(held, 0.0, open_pose(), 0.1)] == ["open", "retreat"]
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
