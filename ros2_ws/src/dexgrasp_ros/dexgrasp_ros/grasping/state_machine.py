"""State machine of a grasp, without ROS: readings in, a safe command out, once per control period.

    idle -> pregrasp -> grasp -> lift -> hold -> release -> idle          home; fault from anywhere
               ^                           |
               +--------- retreat ---------+      the hand is empty, and attempts are left

`tick` and `request` never raise. Any error ends in `fault`: the safety gate brakes and holds the measured position,
and only `reset_fault` leaves the state. In `idle` and `hold`, where the robot stands still, missed ticks and old
inputs are a warning at first: the last command is repeated until inputs are recent again.
"""

from collections.abc import Callable
from time import perf_counter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dexgrasp.policies.deploy.hand_state import is_hand_empty
from dexgrasp.policies.deploy.policy import Command, Observation, PregraspPlan
from dexgrasp.policies.deploy.safety_gate import DesiredCommand, MeasuredState, SafeCommand, SafetyCfg, SafetyGate
from dexgrasp.utils.rotations import Pose
from dexgrasp_ros.approach.planned_path import NOT_PLANNED
from dexgrasp_ros.grasping.input_checks import (
    ESTOP,
    clip_fingers,
    jumped,
    measured_state,
    not_ready,
    oldest_stamp_s,
    palm_far_from_target,
    too_old,
)
from dexgrasp_ros.grasping.scripted_motions import (
    MotionStage,
    ScriptedMotion,
    approach,
    approach_along,
    clip_to_workspace,
    go_home,
    place,
    release,
)
from dexgrasp_ros.grasping.types import (
    POLICY_STATES,
    REQUESTS,
    WAITING_STATES,
    DeployedPolicy,
    GraspCfg,
    Inputs,
    Output,
)

Array = NDArray[np.float64]
SCALE_STEP = 0.1
"""Largest change of the fraction of all speeds per control period: less than the limits of acceleration allow."""
RECOVERY_S = 0.5
"""Time for which a hold waits for inputs that are too old, and after missed ticks for those of any age [s]."""


class GraspStateMachine:
    """Sequences one grasp of one robot: scripted motions, policy, regrasps, faults."""

    def __init__(
        self,
        policy: DeployedPolicy,
        cfg: GraspCfg,
        safety: SafetyCfg,
        home: Pose | None = None,
        shadow: bool = False,
        *,
        planned_approach: bool = False,
    ) -> None:
        """`home`: T_world_palm; None: the pose at activation.

        `shadow`: another controller moves the robot; the policy runs, unused, once the palm is at the pre-grasp.
        `planned_approach`: a grasp begins only with a planned path to its pre-grasp.
        """
        contract = policy.contract
        self.cfg, self.shadow, self._policy = cfg, shadow, policy
        self._planned_approach = planned_approach and not shadow
        self.gate = SafetyGate(contract.hand, policy.rate_hz, safety, palm_follows=not shadow)
        self._box, self._range = ((limit.lower, limit.upper) for limit in (self.gate.palm, self.gate.joints))
        self.period_s = 1.0 / policy.rate_hz
        self.uses_live_points = contract.camera.is_live
        """Whether points that are too old are a fault while the policy runs."""
        self._motors = contract.hand.motors
        self._open_pose = self._motors.positions(np.array(contract.grasp.power.open_pose, dtype=np.float64))
        self._joints = len(contract.hand.joint_names)
        self._home, self._home_given = home, home is not None
        self.state, self.fault = "idle", ""
        self.warning = ""
        """Why no new command was computed in the last control period, without a fault; empty where one was."""
        self.active = False
        """Whether commands are sent."""
        self._script: ScriptedMotion | None = None
        self._plan: PregraspPlan | None = None
        self._attempts_left, self._object_bottom_m = 0, np.nan
        self._hand_is_empty = False  # found in hold, with no attempts left
        self._lift_from_m: float | None = None
        self._state_since_s, self._last_tick_s, self._late_tick_s = -np.inf, -np.inf, -np.inf
        self._target: tuple[Array, Pose] | None = None
        self._measured: tuple[Array, Pose] | None = None  # at this tick
        self._last_measured: tuple[Array, Pose] | None = None  # at the last tick with valid readings
        self._proposal: Command | None = None
        self._blend_from: tuple[Array, Pose, float] | None = None  # last command before the policy, its first tick [s]
        self._policy_s = np.nan
        limiters: tuple[Any, ...] = self.gate.joints, self.gate.palm, self.gate.turn
        self._full_steps = [(limiter, limiter.max_step) for limiter in limiters]
        self.speed_scale, self._speed_goal = 1.0, 1.0
        """Fraction of all speeds; `slow_down` lowers it over some periods."""
        self._steps: dict[str, Callable[[Inputs, Array, Pose], None]] = {
            "pregrasp": self._step_pregrasp,
            **dict.fromkeys(POLICY_STATES, self._step_policy),
            "retreat": self._step_retreat,
            "release": self._step_to_idle,
            "home": self._step_to_idle,
        }

    def activate(self, inputs: Inputs) -> str:
        """Start to send commands from the measured position; return why that is refused, or an empty text."""
        if not (reason := self.not_ready(inputs)):
            self._set_speed_scale(self._speed_goal)
            self._start_from_measured(inputs)
            self.active = True
            self._forget_plan()
        return reason

    def deactivate(self) -> None:
        """Send no commands until `activate`."""
        self.active, self.state, self.fault = False, "idle", ""

    def tick(self, inputs: Inputs) -> Output:
        """Run one control period and return its command."""
        if not self.active:
            return Output(self.state, self.fault, None)
        self._proposal, self._policy_s, self.warning = None, np.nan, ""
        self._scale_speeds()
        try:
            self._advance(inputs)
        except Exception as error:  # an error of policy or readings must not stop the ticks
            self.fail(f"{self.state}: {error}")
        if self.warning and self.state != "fault":
            return Output(self.state, "", self._last_command(), warning=self.warning)
        safe = self._apply_gate(inputs)
        age_s = np.nan
        if self._proposal is not None and inputs.estimate is not None:
            age_s = inputs.now_s - inputs.estimate.stamp_s
        return Output(
            state=self.state,
            fault=self.fault,
            safe=safe,
            proposal=self._proposal,
            policy_s=self._policy_s,
            camera_age_s=age_s,
            hand_is_empty=self._hand_is_empty,
        )

    def request(self, name: str, inputs: Inputs) -> str:
        """Handle an operator's request from the next tick on; return why it is refused, or an empty text."""
        try:
            return self._request(name, inputs)
        except Exception as error:
            return f"{name}: {error}"

    def slow_down(self, speed_scale: float) -> None:
        """Bring all speeds to a fraction of those of the settings, as fast as SCALE_STEP allows."""
        self._speed_goal = speed_scale

    def _scale_speeds(self) -> None:
        """Move the fraction of all speeds one step towards its goal."""
        change = self._speed_goal - self.speed_scale
        if change:
            self._set_speed_scale(self.speed_scale + float(np.clip(change, -SCALE_STEP, SCALE_STEP)))

    def _set_speed_scale(self, speed_scale: float) -> None:
        self.speed_scale = speed_scale
        for limiter, full in self._full_steps:
            limiter.max_step = full * speed_scale

    def limit_attempts(self, attempts: int) -> None:
        """Allow at most so many grasps in all, of the grasp that has begun."""
        self._attempts_left = min(self._attempts_left, attempts - 1)

    def place(self, T_world_palm: Pose, inputs: Inputs) -> str:
        """Put the held object down at a palm pose, in state `release`; return why not, or an empty text."""
        if self.state != "hold":
            return f"an object is placed from hold, not from {self.state}"
        if (np.clip(T_world_palm.pos_m, *self._box) != T_world_palm.pos_m).any():
            return f"the palm pose at {np.round(T_world_palm.pos_m, 3).tolist()} m is outside the palm's workspace"
        if (reason := self.request("release", inputs)) or self.shadow:
            return reason
        fingers = clip_fingers(self._open_pose if self._plan is None else self._plan.joint_pos, *self._range)
        height_m = self.cfg.motion.transit_height_m
        self._start_script(
            "release", place(self.last_sent()[1], T_world_palm, fingers, height_m, self.cfg.retreat_m), inputs
        )
        return ""

    def fail(self, reason: str) -> None:
        """Enter the state `fault` with the next tick; a reason that is already set is kept."""
        if self.active and self.state != "fault":
            self.state, self.fault = "fault", reason
            self._script = None

    def pause(self, reason: str) -> None:
        """Keep the last command where the robot stands still (WAITING_STATES); fail in other states."""
        if self.state in WAITING_STATES:
            self.warning = reason
        else:
            self.fail(reason)

    def last_sent(self) -> tuple[Array, Pose]:
        """Return the last command of the safety gate: finger targets (motor,) [rad] and T_world_palm."""
        return self.gate.joints.value.copy(), Pose(self.gate.palm.value.copy(), self.gate.turn.quat.copy())

    def _last_command(self) -> SafeCommand:
        fingers, palm = self.last_sent()
        return SafeCommand(
            joint_target=fingers,
            palm_pos_w=palm.pos_m,
            palm_quat_w=palm.quat,
            effort_limit_nm=self.gate.effort_limit_nm.copy(),
            fault="",
        )

    def not_ready(self, inputs: Inputs) -> str:
        """Return why no command may be sent from these readings; empty where they are valid."""
        return not_ready(inputs, self._policy.contract.hand, self.gate, self.period_s, self.cfg.outside_rad)

    def _advance(self, inputs: Inputs) -> None:
        """Read the robot and run the step of the state; an error is a fault."""
        gap_s, self._last_tick_s = inputs.now_s - self._last_tick_s, inputs.now_s
        reason = self._read_robot(inputs, gap_s)
        if inputs.estop:
            reason = "emergency stop"
        elif gap_s > self.cfg.late_periods * self.period_s:
            late = f"missed ticks: {gap_s:.3f} s since the last one"
            if not reason and np.isfinite(gap_s) and self.state in WAITING_STATES:
                self._late_tick_s, self.warning = inputs.now_s, late
            reason = reason or ("" if self.warning else late)
        elif not reason and self.state in WAITING_STATES:
            self.warning = self._wait_for_inputs(inputs)
        if self.warning:
            return
        if reason:
            self.fail(reason)
        elif self._measured is not None and self.state in self._steps:
            joints, palm = self._measured
            self._steps[self.state](inputs, joints, palm)

    def _wait_for_inputs(self, inputs: Inputs) -> str:
        """Return which old input is waited for: any in idle; in hold for RECOVERY_S, also after missed ticks."""
        safety, points_s = self.gate.cfg, -np.inf
        if self.state in POLICY_STATES and self.uses_live_points and inputs.estimate is not None:
            points_s = inputs.now_s - inputs.estimate.stamp_s - safety.points_timeout_s
        joints_s = inputs.now_s - oldest_stamp_s(inputs) - safety.joints_timeout_s
        excess_s = max(points_s, joints_s)
        recovers = inputs.now_s - self._late_tick_s <= RECOVERY_S  # the others on this machine were late as well
        if not np.isfinite(joints_s) or not (self.state == "idle" or recovers or excess_s <= RECOVERY_S):
            return ""
        if points_s > 0.0:
            return f"points are {points_s + safety.points_timeout_s:.3f} s old"
        return too_old(inputs, self.period_s, safety.joints_timeout_s) if joints_s > 0.0 else ""

    def _read_robot(self, inputs: Inputs, gap_s: float) -> str:
        """Store the readings if they are valid; else return why not."""
        self._measured = None
        try:
            now = measured_state(inputs, self._joints)
        except ValueError as error:
            return str(error)
        before, periods = self._last_measured, max(1.0, gap_s / self.period_s)
        driven = self._motors.positions  # a coupled joint may move further
        if before is not None and (reason := jumped((driven(before[0]), before[1]), (driven(now[0]), now[1]), periods)):
            return reason
        self._measured, self._last_measured = now, now
        if self.shadow or self.state == "fault":
            return ""
        return palm_far_from_target(self.last_sent()[1], now[1], self.cfg.follow_m, self.cfg.follow_rad)

    def _apply_gate(self, inputs: Inputs) -> SafeCommand:
        """Pass the target through the safety gate; in a fault the measured position is the target."""
        stay = None if self._measured is None else (self._motors.positions(self._measured[0]), self._measured[1])
        fingers, palm = (stay if self.state == "fault" else self._target) or (None, None)
        desired = DesiredCommand(
            joint_target=fingers,
            palm_pos_w=None if palm is None else palm.pos_m,
            palm_quat_w=None if palm is None else palm.quat,
            stamp_s=inputs.now_s,
        )
        joints, palm = self._measured or (None, None)
        points_stamp_s = None
        if self.uses_live_points and self.state in ("pregrasp", *POLICY_STATES):
            points_stamp_s = np.nan if inputs.estimate is None else inputs.estimate.stamp_s
        else:
            self.gate.end_points()
        measured = MeasuredState(
            joint_pos=joints,
            palm_pos_w=None if palm is None else palm.pos_m,
            palm_quat_w=None if palm is None else palm.quat,
            stamp_s=oldest_stamp_s(inputs),
            points_stamp_s=points_stamp_s,
        )
        safe = self.gate(desired, measured, inputs.now_s)
        if self.gate.fault and self.state != "fault":
            self.fail(f"{self.state}: {self.gate.fault}. {inputs.input_errors}".rstrip(". "))
        if self.state == "fault":
            self.gate.stop(self.fault)
        return safe

    def _request(self, name: str, inputs: Inputs) -> str:
        if name not in REQUESTS:
            return f"unknown request '{name}'; known: {', '.join(REQUESTS)}"
        if not self.active:
            return "the node is not active"
        if name == "stop":
            self.fail("stopped by request")
            return ""
        if name == "reset_fault":
            return self._request_reset(inputs)
        if self.state == "fault":
            return f"in fault ({self.fault}): request reset_fault first"
        if inputs.estop:
            return ESTOP
        handlers = {"grasp": self._request_grasp, "release": self._request_release, "home": self._request_home}
        return handlers[name](inputs)

    def _request_reset(self, inputs: Inputs) -> str:
        if self.state != "fault":
            return "there is no fault"
        if not (reason := self.not_ready(inputs)):
            self._start_from_measured(inputs)
        return reason

    def _request_grasp(self, inputs: Inputs) -> str:
        if self.state != "idle":
            return f"a grasp starts in idle, not in {self.state}"
        plan, limit_s = inputs.plan, self.cfg.plan_timeout_s
        if plan is None:
            return "no plan received: does perception see the object?"
        age_s = inputs.now_s - inputs.plan_stamp_s
        if not -self.period_s <= age_s <= limit_s:
            return f"the plan is {age_s:.2f} s old, at most {limit_s} s are allowed"
        attempts = self.cfg.attempts if self.uses_live_points else 1  # a frozen view gives no new plan
        return self._start_pregrasp(plan, inputs, attempts)

    def awaits_plan(self, inputs: Inputs) -> bool:
        """Return whether a grasp after an empty one starts as soon as perception confirms the plan."""
        arrived = self.state == "retreat" and self._script is not None and self._script.done
        return arrived and inputs.plan is not None and inputs.plan_stamp_s > self._state_since_s

    def _start_pregrasp(self, plan: PregraspPlan, inputs: Inputs, attempts: int) -> str:
        """Start the motion to the pre-grasp, with so many attempts left.

        Return why it is refused, after which nothing has changed, or an empty text.
        """
        goal, fingers = Pose.of(plan.palm_pos_w, plan.palm_quat_w), clip_fingers(plan.joint_pos, *self._range)
        if (np.clip(goal.pos_m, *self._box) != goal.pos_m).any():
            return f"the pre-grasp at {np.round(goal.pos_m, 3).tolist()} m is outside the palm's workspace"
        self._policy.reset(plan)  # raises ValueError for a plan that does not match the contract
        if reason := self._path_refused(goal, inputs) or inputs.plan_refused:
            return reason
        self._plan, self._lift_from_m, self._attempts_left = plan, None, attempts - 1
        self._hand_is_empty = False
        stages = approach(self.last_sent()[1], goal, fingers, self.cfg.motion.transit_height_m)
        if self._planned_approach and inputs.path is not None:
            stages = approach_along(inputs.path.poses, goal, fingers)
        self._start_script("pregrasp", stages, inputs)
        return ""

    def _path_refused(self, goal: Pose, inputs: Inputs) -> str:
        """Return why the planned path must not be followed to a pre-grasp, or an empty text."""
        if not self._planned_approach:
            return ""
        if inputs.path is None:
            return inputs.path_refused or NOT_PLANNED
        return inputs.path.problem(self.last_sent()[1], goal, *self._box)

    def _request_release(self, inputs: Inputs) -> str:
        if self.state not in ("idle", *POLICY_STATES):
            return f"nothing to release in {self.state}"
        if self.shadow:
            self.state = "idle"
        else:
            self._start_script("release", self._release_stages(), inputs)
        return ""

    def _request_home(self, inputs: Inputs) -> str:
        if self.state not in ("idle", "pregrasp", "retreat"):
            return f"home starts in idle, pregrasp or retreat, not in {self.state}: request release first"
        if self.shadow or self._home is None:
            return "in shadow mode another controller moves the robot"
        self._start_script("home", self._home_stages(), inputs)
        return ""

    def _home_stages(self) -> list[MotionStage]:
        palm, fingers = self.last_sent()[1], clip_fingers(self._open_pose, *self._range)
        return go_home(palm, self._home or palm, fingers, self.cfg.motion.transit_height_m)

    def _release_stages(self) -> list[MotionStage]:
        """Lower the object by the lifted height, open the fingers, retreat."""
        palm, fingers = self.last_sent()[1], self._open_pose if self._plan is None else self._plan.joint_pos
        lowered_m = 0.0 if self._lift_from_m is None else max(palm.pos_m[2] - self._lift_from_m, 0.0)
        return release(palm, lowered_m, clip_fingers(fingers, *self._range), self.cfg.retreat_m)

    def _start_script(self, state: str, stages: list[MotionStage], inputs: Inputs) -> None:
        fingers, palm = self.last_sent()
        stages = clip_to_workspace(stages, *self._box)
        self._script = ScriptedMotion(stages, palm, fingers, self.cfg.motion, self.period_s)
        self.state, self._state_since_s = state, inputs.now_s

    def _step_pregrasp(self, inputs: Inputs, joints: Array, palm: Pose) -> None:
        assert self._plan is not None
        if self.shadow:
            goal = Pose.of(self._plan.palm_pos_w, self._plan.palm_quat_w)
            arrived = goal.distance_m(palm) <= self.cfg.shadow_m and goal.angle_rad(palm) <= self.cfg.shadow_rad
            self._target = self._motors.positions(joints), palm
        else:
            arrived = self._step_script(inputs, joints, palm)
        if arrived and self.state == "pregrasp":
            self._policy.reset(self._plan)
            self._blend_from = (*self.last_sent(), inputs.now_s)
            self._step_policy(inputs, joints, palm)

    def _step_retreat(self, inputs: Inputs, joints: Array, palm: Pose) -> None:
        """Move home, then start a grasp with the first plan from a frame taken after the palm arrived."""
        assert self._script is not None
        if not self._script.done:
            if self._step_script(inputs, joints, palm):
                self._state_since_s = inputs.now_s
            return
        plan = inputs.plan if self.awaits_plan(inputs) else None
        refused = plan is None or self._start_pregrasp(plan, inputs, self._attempts_left)
        if refused and inputs.now_s - self._state_since_s > self.cfg.look_timeout_s:
            self.state = "idle"
            self._forget_plan()

    def _step_to_idle(self, inputs: Inputs, joints: Array, palm: Pose) -> None:
        if self._step_script(inputs, joints, palm) and self.state != "fault":
            self.state = "idle"
            self._forget_plan()

    def _forget_plan(self) -> None:
        self._plan, self._lift_from_m = None, None

    def _step_script(self, inputs: Inputs, joints: Array, palm: Pose) -> bool:
        """Run one step of the scripted motion; return whether it is complete."""
        assert self._script is not None
        script, driven = self._script, self._motors.positions(joints)
        script.speed_scale = self.speed_scale
        pose, fingers = script.step(palm, driven)
        self._target = fingers, pose
        limit_s = self.cfg.timeout_s / self.speed_scale
        if inputs.now_s - self._state_since_s > limit_s:
            self.fail(f"{self.state} took longer than {limit_s:g} s: {script.remaining(palm, driven)}")
        return script.done

    def _step_policy(self, inputs: Inputs, joints: Array, palm: Pose) -> None:
        estimate = inputs.estimate
        if estimate is None:
            raise ValueError("no object points received")
        before, self.state = self.state, self._policy.phase
        start_s = perf_counter()
        observation = Observation(
            joint_pos=joints,
            palm_pos_w=palm.pos_m,
            palm_quat_w=palm.quat,
            points_w=estimate.points_w,
            visible_fraction=estimate.visible_fraction,
            view_fresh=estimate.view_fresh,
        )
        command = self._policy.act(observation)
        self._policy_s, self._proposal = perf_counter() - start_s, command
        holds = self.state == "hold" and not self.shadow
        if holds and self._is_hand_empty(command, estimate.visible_fraction, ends=before != "hold"):
            if self._attempts_left > 0:
                self._start_script("retreat", self._release_stages() + self._home_stages(), inputs)
                return
            self._hand_is_empty = True
        target = np.asarray(command.joint_target, dtype=float), Pose.of(command.palm_pos_w, command.palm_quat_w)
        self._target = self._blend_in(*target, inputs.now_s)
        if self.state == "grasp":
            self._lift_from_m, self._object_bottom_m = float(self._target[1].pos_m[2]), float(command.object_bottom_m)

    def _blend_in(self, fingers: Array, palm: Pose, now_s: float) -> tuple[Array, Pose]:
        """Return a target of the policy, in its first `blend_s` mixed with the last command before it."""
        if self._blend_from is None or self.cfg.blend_s <= 0.0:
            return fingers, palm
        first_fingers, first_palm, since_s = self._blend_from
        share = (now_s - since_s + self.period_s) / self.cfg.blend_s
        if not share < 1.0:
            self._blend_from = None
            return fingers, palm
        reached_m, reached_rad = share * first_palm.distance_m(palm), share * first_palm.angle_rad(palm)
        return (
            first_fingers + share * (fingers - first_fingers),
            first_palm.step_towards(palm, reached_m, reached_rad),
        )

    def _is_hand_empty(self, command: Command, visible_fraction: float, ends: bool) -> bool:
        """Return whether the hand is empty: at the end of the lift (`ends`), or because it lost the object later."""
        control = self._policy.contract.control
        return bool(
            is_hand_empty(
                command.grip,
                float(command.object_bottom_m) - self._object_bottom_m,
                visible_fraction,
                lift_ends=ends,
                holding=not ends,
                lift_m=control.lift_m,
                min_rise_fraction=control.min_rise_fraction,
                min_visible_fraction=control.min_visible_fraction,
                grip_threshold_unseen=control.grip_threshold_unseen,
                grip_threshold_hold=control.grip_threshold_hold,
            )
        )

    def _start_from_measured(self, inputs: Inputs) -> None:
        """Reset gate and targets to the measured position, in idle."""
        joints, palm = measured_state(inputs, self._joints)
        self.gate.reset(joints, palm.pos_m, palm.quat, inputs.now_s)
        self._home = self._home if self._home_given else palm
        self._measured, self._last_measured = (joints, palm), (joints, palm)
        self._last_tick_s, self._script = inputs.now_s, None
        self._target = self.last_sent()
        self.state, self.fault = "idle", ""
