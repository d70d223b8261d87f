"""The grasp node: a lifecycle node around the grasp machine. Inactive it sends nothing.

The inbox stores what comes; a timer at the policy's rate makes inputs of it, asks the machine and sends its answer.
"""

import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
from diagnostic_msgs.msg import DiagnosticArray
from geometry_msgs.msg import PoseStamped
from rclpy.clock import Clock
from rclpy.clock_type import ClockType
from rclpy.context import Context
from rclpy.lifecycle import LifecycleNode, LifecycleState, TransitionCallbackReturn
from rclpy.qos import QoSProfile
from rclpy.timer import Timer
from std_msgs.msg import String
from std_srvs.srv import Trigger

from dexgrasp.utils.timers import Timing
from dexgrasp_ros import messages
from dexgrasp_ros.grasp_cfg import GraspNodeCfg
from dexgrasp_ros.grasp_inbox import LATCHED, Inbox
from dexgrasp_ros.grasp_report import inputs_report, shadow_report, state_report, timing_report
from dexgrasp_ros.grasp_robot import Robot
from dexgrasp_ros.grasp_types import REQUESTS, Inputs, Output
from dexgrasp_ros.grasping import GraspMachine
from dexgrasp_ros.parameters import declare
from dexgrasp_ros.process import acknowledged, run
from dexgrasp_ros.wave_stamp import check_stamp, stamp_path
from policies.runtime import Policy

DONE, REFUSED = TransitionCallbackReturn.SUCCESS, TransitionCallbackReturn.FAILURE
START_S, REPORT_S = 0.1, 1.0
WATCH_S = 0.02
"""How often this machine's clock is looked at [s]."""
MODES = {(False, False): "live", (True, False): "dry run", (False, True): "shadow", (True, True): "shadow"}


class GraspNode(LifecycleNode):
    """Grasps what perception sees."""

    def __init__(self, context: Context | None = None, **options: Any) -> None:
        super().__init__("grasp", context=context, **options)
        self.cfg = declare(self, GraspNodeCfg)
        self.timing = Timing()
        """camera_age, policy, command (tick to sent), camera_to_command, period; in seconds."""
        self._mode = MODES[self.cfg.dry_run, self.cfg.shadow]
        self._refusal, self._told, self._beat_s = "", "", np.nan
        self._parts: tuple[GraspMachine, Robot, Inbox] | None = None
        self._beats: list[Timer] = []
        self._ticked_s = np.inf  # on this machine's clock
        self._output = Output("idle", "", None)
        self._state_topic = self.create_publisher(String, "~/state", LATCHED)
        self._palm_topic = self.create_publisher(PoseStamped, "~/palm", QoSProfile(depth=1))
        self._report_topic = self.create_publisher(DiagnosticArray, "/diagnostics", QoSProfile(depth=10))
        for name in REQUESTS:
            self.create_service(Trigger, f"~/{name}", self._asked(name))
        self._steady = Clock(clock_type=ClockType.STEADY_TIME)  # the robot's time may stand still, or not have begun
        self.create_timer(REPORT_S, self._report, clock=self._steady)
        if self.cfg.autostart:
            if self.trigger_configure() != DONE:
                raise ValueError(self._refusal)
            self._start_from_s = time.monotonic() + self.cfg.settle_s
            self._starter = self.create_timer(START_S, self._start, clock=self._steady)

    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Loads the bundle and the descriptions of hand and arm; refuses with the reason."""
        try:
            policy = Policy.load(self.cfg.bundle)
            robot = Robot(self, self.cfg, policy.contract, 1.0 / policy.rate_hz)
        except (ValueError, OSError, ImportError) as error:
            return self._refuse(f"not configured: {error}")
        if reason := self._untested(policy, robot):
            robot.destroy()
            return self._refuse(f"not configured: {reason}")
        home = None if robot.kinematics is None else robot.kinematics.palm(robot.kinematics.home)
        once = replace(self.cfg.grasp, attempts=1)  # a hand that only believes to move is always empty
        grasp = once if self.cfg.dry_run else self.cfg.grasp
        machine = GraspMachine(policy, grasp, self.cfg.safety, home, self.cfg.shadow)
        self._parts = machine, robot, Inbox(self, self.cfg, robot)
        self._beats = [
            self.create_timer(machine.period_s, self._beat),
            self.create_timer(WATCH_S, self._watch_clock, clock=self._steady),
        ]
        self._tell(Output("idle", "", None))
        self.get_logger().info(f"configured: {self.cfg.bundle} at {policy.rate_hz:g} Hz, {self._mode}")
        return super().on_configure(state)

    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Starts to send: first where the robot is measured to be."""
        assert self._parts is not None
        machine, robot, _ = self._parts
        if reason := machine.begin(self._inputs()) or robot.begin():
            machine.end()
            return self._refuse(f"not activated: {reason}")
        done = super().on_activate(state)
        self.timing.clear()
        self._beat_s = np.nan
        self._beat()
        self.get_logger().info("active")
        return done

    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Holds and falls silent."""
        self._hold()
        return super().on_deactivate(state)

    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Forgets the bundle and the robot."""
        self._forget()
        return super().on_cleanup(state)

    def on_shutdown(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Holds, then forgets all."""
        self._hold()
        self._forget()
        return super().on_shutdown(state)

    def close(self) -> None:
        """Holds and waits until that has arrived; twice does no harm."""
        if self._parts is not None and self._hold() and not acknowledged(self._parts[1].publishers):
            self.get_logger().warning("the last commands were not acknowledged")

    def _start(self) -> None:
        """Activates as soon as all is ready; says what is missing when that changes."""
        if self._parts is None or time.monotonic() < self._start_from_s:
            return
        reason = self._parts[0].not_ready(self._inputs())
        if not reason and self.trigger_activate() == DONE:
            self._starter.cancel()
        elif reason.split(":")[0] != self._refusal.split(":")[0]:
            self._refusal = reason
            self.get_logger().info(f"waiting: {reason}")

    def _untested(self, policy: Policy, robot: Robot) -> str:
        """Why the wave test of the hand does not allow a policy to run, or nothing."""
        if self.cfg.robot == "sim" or self.cfg.preview or not self.cfg.require_wave_test:
            return ""
        path = self.cfg.wave_test or stamp_path(self.cfg.hand)
        return check_stamp(path, robot.hand_cfg, policy.joint_names)

    def _asked(self, name: str) -> Callable[[Trigger.Request, Trigger.Response], Trigger.Response]:
        """The service of a request."""

        def answer(_: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
            reason = "the node is not configured"
            if self._parts is not None:
                reason = self._parts[0].request(name, self._inputs())
                if name == "reset_fault" and not reason:
                    reason = self._parts[1].begin()
            response.success, response.message = not reason, reason or f"{name}: accepted"
            self.get_logger().info(f"{name}: {reason or 'accepted'}")
            return response

        return answer

    def _beat(self) -> None:
        """One control period."""
        assert self._parts is not None
        machine, robot, inbox = self._parts
        start_s = self._ticked_s = time.perf_counter()
        inputs = self._inputs()
        palm, stamp_s = inbox.palm()
        if palm is not None:
            self._palm_topic.publish(messages.pose_message(palm.pos_m, palm.quat, stamp_s, self.cfg.base_frame))
        output = machine.tick(inputs)
        if output.safe is None:
            return
        known = inputs.now_s - stamp_s <= self.cfg.safety.joints_timeout_s
        try:
            robot.send(output.safe, palm if known else None)
        except Exception as error:  # the solver's own classes: whatever it is, the arm must not be guessed at
            machine.fail(f"arm: {error}")
        self._time(start_s, inputs, output)
        self._tell(output)

    def _watch_clock(self) -> None:
        """Simulated time that stands still brings no ticks: whoever made it is gone."""
        assert self._parts is not None
        machine, still_s = self._parts[0], time.perf_counter() - self._ticked_s
        if still_s > self.cfg.clock_timeout_s and machine.begun and machine.state != "fault":
            machine.fail(f"the clock stands still: no tick for {still_s:.2f} s")
            self._tell(Output(machine.state, machine.fault, None))

    def _time(self, start_s: float, inputs: Inputs, output: Output) -> None:
        end_s = time.perf_counter()
        self.timing.add("period", start_s - self._beat_s)
        self.timing.add("command", end_s - start_s)
        self.timing.add("policy", output.policy_s)
        self.timing.add("camera_age", output.camera_age_s)
        self.timing.add("camera_to_command", output.camera_age_s + end_s - start_s)
        self._beat_s = start_s

    def _inputs(self) -> Inputs:
        assert self._parts is not None
        now_s = self.get_clock().now().nanoseconds * 1e-9
        return self._parts[2].inputs(now_s, self._output.safe if self.cfg.dry_run else None)

    def _hold(self) -> bool:
        """The last commands: stay where the robot was measured. Whether any were sent."""
        if self._parts is None or not self._parts[0].begun:
            return False
        machine, robot, inbox = self._parts
        inputs, palm = self._inputs(), inbox.palm()[0]
        fresh = inputs.now_s - inputs.joints_stamp_s <= self.cfg.safety.joints_timeout_s
        fingers = inputs.joint_pos if fresh and inputs.joint_pos is not None else machine.sent()[0]
        machine.end()
        robot.hold(np.clip(fingers, machine.gate.joints.lower, machine.gate.joints.upper), palm if fresh else None)
        self._tell(Output("idle", "", None))
        return True

    def _forget(self) -> None:
        if self._parts is not None:
            for part in self._parts[1:]:
                part.destroy()
        for timer in self._beats:
            self.destroy_timer(timer)
        self._parts, self._beats = None, []

    def _refuse(self, reason: str) -> TransitionCallbackReturn:
        self._refusal = reason
        self.get_logger().error(reason)
        return REFUSED

    def _tell(self, output: Output) -> None:
        """The state, where it has changed."""
        self._output, before = output, self._told
        if output.state == before:
            return
        self._told = output.state
        self._state_topic.publish(String(data=output.state))
        if output.fault:  # a logger keeps one severity per line of code
            self.get_logger().error(f"fault: {output.fault}")
        elif (before, output.state) == ("retreat", "idle") and self._parts and self._parts[0].begun:
            self.get_logger().warning(f"given up: no new plan within {self.cfg.grasp.look_timeout_s:g} s, idle")
        else:
            self.get_logger().info(output.state)

    def _report(self) -> None:
        if self._parts is None:
            statuses = [state_report(self._output, False, self._refusal or self._mode)]
            now_s = self.get_clock().now().nanoseconds * 1e-9
        else:
            machine, robot, inbox = self._parts
            inputs = self._inputs()
            now_s, refused = inputs.now_s, {"joints": robot.refused, **inbox.refused}
            statuses = [
                state_report(self._output, machine.begun, self._mode),
                inputs_report(inputs, refused),
                timing_report(self.timing),
            ]
            if self.cfg.shadow:
                statuses.append(shadow_report(self._output, inputs))
        self._report_topic.publish(messages.diagnostics_message(statuses, now_s))


def main() -> int:
    """Runs the node."""
    return run(GraspNode)


if __name__ == "__main__":
    raise SystemExit(main())
