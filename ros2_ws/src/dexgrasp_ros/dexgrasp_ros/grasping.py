"""The grasp as a state machine, without ROS: what is known goes in, what may be sent comes out, each control period.

    idle -> pregrasp -> grasp -> lift -> hold -> release -> idle          home; fault from anywhere
               ^                           |
               +--------- retreat ---------+      nothing came along or it was lost, and there are attempts left

`tick` and `request` never raise. Whatever goes wrong ends in `fault`: the gate brakes, holds where the robot was
measured, and nothing but `reset_fault` leads out of it.
"""

from collections.abc import Callable
from time import perf_counter

import numpy as np
from numpy.typing import NDArray

from dexgrasp.utils.rotations import Pose
from dexgrasp_ros.grasp_types import POLICY_STATES, REQUESTS, GraspCfg, GraspPolicy, Inputs, Output
from dexgrasp_ros.readiness import astray, fingers_within, jumped, measured, not_ready, parts, stamp_s
from dexgrasp_ros.scripted import Script, Stage, approach, go_home, let_go, within
from policies.hand_state import is_hand_empty
from policies.runtime import Command, Plan, Readings
from policies.safety import Safe, SafetyCfg, SafetyGate, Sensed, Wanted

Array = NDArray[np.float64]


class GraspMachine:
    """One robot's grasp."""

    def __init__(
        self, policy: GraspPolicy, cfg: GraspCfg, safety: SafetyCfg, home: Pose | None = None, shadow: bool = False
    ) -> None:
        """`home`: T_world_palm, None: where it began.

        `shadow`: somebody else moves the robot; the policy runs once the palm stands at the pre-grasp, and looks on.
        """
        contract = policy.contract
        self.cfg, self.shadow, self._policy = cfg, shadow, policy
        self.gate = SafetyGate(contract["hand"], policy.rate_hz, safety)
        self._box, self._range = ((limit.lower, limit.upper) for limit in (self.gate.palm, self.gate.joints))
        self.period_s = 1.0 / policy.rate_hz
        self.watches = contract["view"]["mode"] != "frozen"
        """Whether points that are too old are a fault while the policy runs."""
        self._open = np.array(contract["grasp"]["power"]["open_pose"], dtype=np.float64)
        self._joints = len(contract["hand"]["joint_names"])
        self._home, self._home_given = home, home is not None
        self.state, self.fault = "idle", ""
        self.begun = False
        """Whether commands are sent."""
        self._script: Script | None = None
        self._plan: Plan | None = None
        self._attempts_left, self._base_m = 0, np.nan
        self._lift_from_m: float | None = None
        self._since_s = self._last_s = -np.inf
        self._target: tuple[Array, Pose] | None = None
        self._sensed: tuple[Array, Pose] | None = None
        self._seen: tuple[Array, Pose] | None = None
        self._proposal: Command | None = None
        self._policy_s = np.nan
        self._steps: dict[str, Callable[[Inputs, Array, Pose], None]] = {
            "pregrasp": self._pregrasp,
            **dict.fromkeys(POLICY_STATES, self._run_policy),
            "retreat": self._retreat,
            "release": self._leave,
            "home": self._leave,
        }

    def begin(self, inputs: Inputs) -> str:
        """Start to send commands, from where the robot is measured to be. Returns why not, or nothing."""
        if not (reason := self.not_ready(inputs)):
            self._begin(inputs)
            self.begun, self._lift_from_m, self._plan = True, None, None
        return reason

    def end(self) -> None:
        """No more commands until `begin`."""
        self.begun, self.state, self.fault = False, "idle", ""

    def tick(self, inputs: Inputs) -> Output:
        """Once per control period."""
        if not self.begun:
            return Output(self.state, self.fault, None)
        self._proposal, self._policy_s = None, np.nan
        try:
            self._advance(inputs)
        except Exception as error:  # nothing that a policy or a reading does may stop the ticks
            self.fail(f"{self.state}: {error}")
        safe = self._pass(inputs)
        ran = self._proposal is not None and inputs.view is not None
        age_s = inputs.now_s - inputs.view.stamp_s if ran and inputs.view else np.nan
        return Output(self.state, self.fault, safe, self._proposal, self._policy_s, age_s)

    def request(self, name: str, inputs: Inputs) -> str:
        """A wish of the operator. Returns why it is refused, or nothing; what follows begins with the next tick."""
        try:
            return self._request(name, inputs)
        except Exception as error:
            return f"{name}: {error}"

    def fail(self, reason: str) -> None:
        """Into the state `fault` from the next tick on; the first reason stays."""
        if self.begun and self.state != "fault":
            self.state, self.fault = "fault", reason
            self._script = None

    def sent(self) -> tuple[Array, Pose]:
        """What the gate let through last: finger targets (joint,) [rad] and T_world_palm."""
        return self.gate.joints.value.copy(), Pose(self.gate.palm.value.copy(), self.gate.turn.quat.copy())

    def not_ready(self, inputs: Inputs) -> str:
        """Why commands must not begin now, or nothing."""
        return not_ready(inputs, self._policy.contract["hand"], self.gate, self.period_s, self.cfg.outside_rad)

    def _advance(self, inputs: Inputs) -> None:
        """The state's own work; what is wrong is a fault."""
        gap_s, self._last_s = inputs.now_s - self._last_s, inputs.now_s
        reason = self._look(inputs, gap_s)
        if inputs.estop:
            reason = "emergency stop"
        elif gap_s > self.cfg.late_periods * self.period_s:
            reason = f"missed ticks: {gap_s:.3f} s since the last one"
        if reason:
            self.fail(reason)
        elif self._sensed is not None and self.state in self._steps:
            self._steps[self.state](inputs, *self._sensed)

    def _look(self, inputs: Inputs, gap_s: float) -> str:
        """Takes the readings if they are of use; else says why not."""
        self._sensed = None
        try:
            now = measured(inputs, self._joints)
        except ValueError as error:
            return str(error)
        if self._seen is not None and (reason := jumped(self._seen, now, max(1.0, gap_s / self.period_s))):
            return reason
        self._sensed = self._seen = now
        if self.shadow or self.state == "fault":
            return ""
        return astray(self.sent()[1], now[1], self.cfg.follow_m, self.cfg.follow_rad)

    def _pass(self, inputs: Inputs) -> Safe:
        """The target of the state through the gate. In a fault it first brakes, and holds what was measured then."""
        target = self._sensed if self.state == "fault" else self._target
        watched = self.watches and self.state in POLICY_STATES
        points_stamp_s = (inputs.view.stamp_s if inputs.view else np.nan) if watched else None
        wanted = Wanted(*parts(target), inputs.now_s)
        safe = self.gate(wanted, Sensed(*parts(self._sensed), stamp_s(inputs), points_stamp_s), inputs.now_s)
        if self.gate.fault and self.state != "fault":
            self.fail(f"{self.state}: {self.gate.fault}. {inputs.trouble}".rstrip(". "))
        if self.state == "fault":
            self.gate.stop(self.fault)
        return safe

    def _request(self, name: str, inputs: Inputs) -> str:
        if name not in REQUESTS:
            return f"no request '{name}'; there are {', '.join(REQUESTS)}"
        if not self.begun:
            return "the node is not active"
        if name == "stop":
            self.fail("stopped by request")
            return ""
        if name == "reset_fault":
            return self._reset(inputs)
        if self.state == "fault":
            return f"in fault ({self.fault}): reset_fault first"
        if inputs.estop:
            return "the emergency stop is pressed"
        return {"grasp": self._ask_grasp, "release": self._ask_release, "home": self._ask_home}[name](inputs)

    def _reset(self, inputs: Inputs) -> str:
        if self.state != "fault":
            return "there is no fault"
        if not (reason := self.not_ready(inputs)):
            self._begin(inputs)
        return reason

    def _ask_grasp(self, inputs: Inputs) -> str:
        if self.state != "idle":
            return f"a grasp starts from idle, not from {self.state}"
        plan, limit_s = inputs.plan, self.cfg.plan_timeout_s
        if plan is None:
            return "no plan yet: does perception see the object?"
        age_s = inputs.now_s - inputs.plan_stamp_s
        if not -self.period_s <= age_s <= limit_s:
            return f"the plan is {age_s:.2f} s old, {limit_s} s are allowed"
        self._attempts_left = self.cfg.attempts if self.watches else 1  # one look shows no second place
        return self._approach(plan, inputs)

    def _approach(self, plan: Plan, inputs: Inputs) -> str:
        """Set out for the pre-grasp. Returns why not, or nothing."""
        goal, fingers = Pose.of(plan.palm_pos_w, plan.palm_quat_w), fingers_within(plan.joint_pos, *self._range)
        if (np.clip(goal.pos_m, *self._box) != goal.pos_m).any():
            return f"the pre-grasp at {np.round(goal.pos_m, 3).tolist()} m is outside the palm's workspace"
        self._policy.begin(plan)  # refuses a plan that does not fit
        self._plan, self._lift_from_m, self._attempts_left = plan, None, self._attempts_left - 1
        self._start("pregrasp", approach(self.sent()[1], goal, fingers, self.cfg.motion.transit_height_m), inputs)
        return ""

    def _ask_release(self, inputs: Inputs) -> str:
        if self.state not in ("idle", *POLICY_STATES):
            return f"nothing to release in {self.state}"
        if self.shadow:
            self.state = "idle"
        else:
            self._start("release", self._way_out(), inputs)
        return ""

    def _ask_home(self, inputs: Inputs) -> str:
        if self.state not in ("idle", "pregrasp", "retreat"):
            return f"home is reached from idle, pregrasp or retreat, not from {self.state}: release first"
        if self.shadow or self._home is None:
            return "somebody else moves the robot"
        self._start("home", self._way_home(), inputs)
        return ""

    def _way_home(self) -> list[Stage]:
        palm, fingers = self.sent()[1], fingers_within(self._open, *self._range)
        return go_home(palm, self._home or palm, fingers, self.cfg.motion.transit_height_m)

    def _way_out(self) -> list[Stage]:
        """Lower by what was lifted, open, back off."""
        palm, fingers = self.sent()[1], self._open if self._plan is None else self._plan.joint_pos
        lowered_m = 0.0 if self._lift_from_m is None else max(palm.pos_m[2] - self._lift_from_m, 0.0)
        return let_go(palm, lowered_m, fingers_within(fingers, *self._range), self.cfg.retreat_m)

    def _start(self, state: str, stages: list[Stage], inputs: Inputs) -> None:
        fingers, palm = self.sent()
        self._script = Script(within(stages, *self._box), palm, fingers, self.cfg.motion, self.period_s)
        self.state, self._since_s = state, inputs.now_s

    def _pregrasp(self, inputs: Inputs, joints: Array, palm: Pose) -> None:
        assert self._plan is not None
        if self.shadow:
            goal = Pose.of(self._plan.palm_pos_w, self._plan.palm_quat_w)
            there = goal.distance_m(palm) <= self.cfg.shadow_m and goal.angle_rad(palm) <= self.cfg.shadow_rad
            self._target = joints, palm
        else:
            there = self._scripted(inputs, joints, palm)
        if there and self.state == "pregrasp":
            self._policy.begin(self._plan)
            self._run_policy(inputs, joints, palm)

    def _retreat(self, inputs: Inputs, joints: Array, palm: Pose) -> None:
        """Home; then a plan is awaited whose frame was taken after the palm had arrived."""
        assert self._script is not None
        if not self._script.done:
            if self._scripted(inputs, joints, palm):
                self._since_s = inputs.now_s
            return
        plan = inputs.plan if inputs.plan_stamp_s > self._since_s else None
        refused = plan is None or self._approach(plan, inputs)
        if refused and inputs.now_s - self._since_s > self.cfg.look_timeout_s:
            self.state, self._plan, self._lift_from_m = "idle", None, None

    def _leave(self, inputs: Inputs, joints: Array, palm: Pose) -> None:
        if self._scripted(inputs, joints, palm) and self.state != "fault":
            self.state, self._plan, self._lift_from_m = "idle", None, None

    def _scripted(self, inputs: Inputs, joints: Array, palm: Pose) -> bool:
        """One step of the script; whether it is over."""
        assert self._script is not None
        script = self._script
        pose, fingers = script.step(palm, joints)
        self._target = fingers, pose
        if inputs.now_s - self._since_s > self.cfg.timeout_s:
            self.fail(f"{self.state} took longer than {self.cfg.timeout_s} s: {script.missing(palm, joints)}")
        return script.done

    def _run_policy(self, inputs: Inputs, joints: Array, palm: Pose) -> None:
        if inputs.view is None:
            raise ValueError("no points of the object")
        before, self.state = self.state, self._policy.phase
        view, start_s = inputs.view, perf_counter()
        readings = Readings(joints, palm.pos_m, palm.quat, view.points_w, view.visible_fraction, view.view_fresh)
        command = self._policy.act(readings)
        self._policy_s, self._proposal = perf_counter() - start_s, command
        may_retry = self.state == "hold" and self._attempts_left > 0 and not self.shadow
        if may_retry and self._empty(command, view.visible_fraction, ends=before != "hold"):
            self._start("retreat", self._way_out() + self._way_home(), inputs)
            return
        self._target = np.asarray(command.joint_target, dtype=float), Pose.of(command.palm_pos_w, command.palm_quat_w)
        if self.state == "grasp":
            self._lift_from_m, self._base_m = float(self._target[1].pos_m[2]), float(command.base_m)

    def _empty(self, command: Command, visible_fraction: float, ends: bool) -> bool:
        """Return whether the hand is empty: at the end of the lift (`ends`), or because it lost the object later."""
        control = self._policy.contract["control"]
        return bool(
            is_hand_empty(
                command.grip,
                float(command.base_m) - self._base_m,
                visible_fraction,
                lift_ends=ends,
                holding=not ends,
                lift_m=control["lift_m"],
                min_rise_fraction=control["left_share"],
                min_visible_fraction=control["unseen_share"],
                grip_threshold_unseen=control["sure_grip"],
                grip_threshold_hold=control["lost_grip"],
            )
        )

    def _begin(self, inputs: Inputs) -> None:
        """From where the robot is measured to be."""
        joints, palm = measured(inputs, self._joints)
        self.gate.begin(joints, palm.pos_m, palm.quat, inputs.now_s)
        self._home = self._home if self._home_given else palm
        self._seen = self._sensed = joints, palm
        self._last_s, self._script = inputs.now_s, None
        self._target = self.sent()
        self.state, self.fault = "idle", ""
