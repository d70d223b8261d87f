"""Lifecycle node around the grasp state machine; it sends commands only while active.

A tick makes inputs from the newest messages, runs the state machine and sends its command. Ticks come at the rate of
the policy, each right after new points where there are some, else by a timer.
"""

import re
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from diagnostic_msgs.msg import DiagnosticArray
from geometry_msgs.msg import PoseStamped
from rclpy.callback_groups import ReentrantCallbackGroup
from rclpy.clock import Clock
from rclpy.clock_type import ClockType
from rclpy.context import Context
from rclpy.lifecycle import LifecycleNode, LifecycleState, TransitionCallbackReturn
from rclpy.parameter import Parameter
from rclpy.qos import QoSProfile
from rclpy.timer import Timer
from std_msgs.msg import String
from std_srvs.srv import Trigger

from dexgrasp.policies.deploy.bundle import refuse_unknown_hand
from dexgrasp.policies.deploy.policy import Policy
from dexgrasp.utils.rotations import Pose
from dexgrasp.utils.timers import Timing
from dexgrasp_ros import message_conversions
from dexgrasp_ros.clock_watch import ClockAge, clock_missing
from dexgrasp_ros.frame_tree import FrameListener
from dexgrasp_ros.grasping.actions import GraspActions
from dexgrasp_ros.grasping.config import GraspNodeCfg
from dexgrasp_ros.grasping.diagnostics import inputs_report, shadow_report, state_report, timing_report
from dexgrasp_ros.grasping.input_buffer import InputBuffer
from dexgrasp_ros.grasping.robot_interface import RobotInterface
from dexgrasp_ros.grasping.state_machine import GraspStateMachine
from dexgrasp_ros.grasping.target_choice import TargetChoice
from dexgrasp_ros.grasping.tick_schedule import TickSchedule
from dexgrasp_ros.grasping.types import REQUESTS, Inputs, Output
from dexgrasp_ros.joint_test.record import check_record, record_path
from dexgrasp_ros.latency_marks import LatencyMarks
from dexgrasp_ros.node_process import ACKNOWLEDGED_S, run
from dexgrasp_ros.parameters import check_changes, declare, names, read
from dexgrasp_ros.qos import LATCHED
from dexgrasp_ros.recording.decision_topic import decision_log
from dexgrasp_ros.recording.logged_grasp import LoggedGraspStateMachine
from dexgrasp_ros.typed_messages import TypedPublisher

DONE, REFUSED = TransitionCallbackReturn.SUCCESS, TransitionCallbackReturn.FAILURE
START_S, REPORT_S = 0.1, 1.0
CHECK_S = 0.02
"""Period of the checks of emergency stop and clock, in wall time [s]."""
MOST_QUESTIONS = 4
"""Questions to planner and perception before a request is refused because the plan keeps changing."""
MODES = {(False, False): "live", (True, False): "dry run", (False, True): "shadow", (True, True): "shadow"}


@dataclass(frozen=True)
class _Configured:
    """Parts of the node that exist from configure to cleanup."""

    machine: GraspStateMachine
    robot: RobotInterface
    inputs: InputBuffer
    schedule: TickSchedule
    clock_age: ClockAge
    timer: Timer
    """Ticks that no new points start."""


class GraspNode(LifecycleNode):
    """Grasps the object that perception publishes, with the policy of a bundle."""

    def __init__(self, context: Context | None = None, **options: Any) -> None:
        super().__init__("grasp", context=context, **options)
        self.cfg = declare(self, GraspNodeCfg, changeable=names(GraspNodeCfg))
        check_changes(self, GraspNodeCfg, self._change_refused)
        self.add_post_set_parameters_callback(self._take_changes)
        self.timing = Timing()
        """Durations [s]: camera_age, wait_for_tick, policy, command (tick to sent), camera_to_command, period."""
        self._mode = MODES[self.cfg.dry_run, self.cfg.shadow]
        self._refusal, self._published_state, self._published_active = "", "", False
        self._stopped = ""  # emergency stop that no reset has cleared, kept while the node is configured again
        self._configured: _Configured | None = None
        self._timers_of_configured: list[Timer] = []
        self._last_timed_s = self._points_arrived_s = np.nan  # monotonic time
        self._ticked_s = np.nan  # time of the last tick, by the clock of stamps
        self._output = Output("idle", "", None)
        self._state_topic = self.create_publisher(String, "~/state", LATCHED)
        self._status_topic = TypedPublisher(self, "GraspState", "~/status", LATCHED)
        self._palm_topic = self.create_publisher(PoseStamped, "~/palm", QoSProfile(depth=1))
        self._report_topic = self.create_publisher(DiagnosticArray, "diagnostics", QoSProfile(depth=10))
        services = {name: self._request_service(name) for name in REQUESTS}
        group = ReentrantCallbackGroup()  # while perception is asked, the ticks go on
        for name, callback in services.items():
            self.create_service(Trigger, f"~/{name}", callback, callback_group=group)
        self._marks, self._log = LatencyMarks(self), decision_log(self)
        self._target = TargetChoice(self, self.cfg.begin_service, self._plan_since)
        self._actions = GraspActions(self, services, self._place, self._limit_attempts, self._choose, self._log.write)
        self._frames = FrameListener(self)
        self._steady = Clock(clock_type=ClockType.STEADY_TIME)  # simulated time may stand still or not have started
        self.create_timer(REPORT_S, self._report, clock=self._steady)
        if self.cfg.autostart:
            if self.trigger_configure() != DONE:
                raise ValueError(self._refusal)
            self._autostart_after_s = time.monotonic() + self.cfg.settle_s
            self._autostart_timer = self.create_timer(START_S, self._autostart, clock=self._steady)

    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Load the bundle and the drivers of hand and arm; refuse with the reason."""
        done = self._configure()
        return super().on_configure(state) if done == DONE else done

    def _configure(self) -> TransitionCallbackReturn:
        try:
            self.cfg = read(self, GraspNodeCfg)
            self._mode = MODES[self.cfg.dry_run, self.cfg.shadow]
            hand_file = self.cfg.hand_file or None
            policy = Policy.load(self.cfg.bundle, public_key=self.cfg.public_key, hand_file=hand_file)
            if self.cfg.robot == "real" and not hand_file:
                refuse_unknown_hand(policy.contract, self.cfg.bundle)
            robot = RobotInterface(self, self.cfg, policy.contract, 1.0 / policy.rate_hz)
        except (ValueError, OSError, ImportError) as error:
            return self._refuse(f"not configured: {error}")
        if reason := self._joint_test_missing(policy, robot):
            robot.destroy()
            return self._refuse(f"not configured: {reason}")
        home = None if robot.kinematics is None else robot.kinematics.palm(robot.kinematics.home)
        grasp = replace(self.cfg.grasp, attempts=1) if self.cfg.dry_run else self.cfg.grasp  # a dry run holds nothing
        with ExitStack() as undo:  # where this fails, no publisher of commands stays
            undo.callback(robot.destroy)
            machine = LoggedGraspStateMachine(
                policy,
                grasp,
                self.cfg.safety,
                home,
                self.cfg.shadow,
                planned_approach=self.cfg.approach == "moveit",
                write=self._log.write,
                settings=replace(self.cfg, grasp=grasp),
            )
            inputs = InputBuffer(self, self.cfg, robot, on_stop=self._on_emergency_stop, on_points=self._on_new_points)
            undo.pop_all()
        if self._stopped:
            inputs.estop.level.stop(self._stopped)
        machine.slow_down(self.cfg.speed_scale)
        self._configured = _Configured(
            machine=machine,
            robot=robot,
            inputs=inputs,
            schedule=TickSchedule(machine.period_s),
            clock_age=ClockAge(CHECK_S),
            timer=self.create_timer(machine.period_s, self._tick),
        )
        self._timers_of_configured = [
            self._configured.timer,
            self.create_timer(CHECK_S, self._check, clock=self._steady),
        ]
        self._publish_state(Output("idle", "", None))
        self.get_logger().info(f"configured: {self.cfg.bundle} at {policy.rate_hz:g} Hz, {self._mode}")
        return DONE

    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Start to send commands, from the measured position of the robot."""
        if self._configured is None and self._configure() != DONE:  # refused after a change of a parameter
            return REFUSED
        assert self._configured is not None
        machine, robot = self._configured.machine, self._configured.robot
        robot.clear_failures()  # of an earlier activation; what is still wrong fails again
        if reason := self._surroundings() or machine.activate(self._inputs()) or robot.reset():
            machine.deactivate()
            return self._refuse(f"not activated: {reason}")
        self._log.write("arm_start", goal=robot.arm_goal)
        done = super().on_activate(state)
        self._configured.inputs.estop.start()
        self.timing.clear()
        self._last_timed_s = np.nan
        self._tick()
        self.get_logger().info("active")
        return done

    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Hold the robot and stop sending."""
        self._hold()
        return super().on_deactivate(state)

    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Release bundle, drivers and subscriptions."""
        self._release()
        return super().on_cleanup(state)

    def on_shutdown(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Hold the robot, then release everything."""
        self._hold()
        self._release()
        return super().on_shutdown(state)

    def close(self) -> None:
        """Hold the robot and wait until the commands have arrived; may be called again."""
        if self._configured is not None and self._hold() and not self._configured.robot.acknowledged(ACKNOWLEDGED_S):
            self.get_logger().warning("the drivers did not acknowledge the last commands")

    def destroy_node(self) -> None:
        """Release the drivers, which may have threads, and destroy the node."""
        self._release()
        super().destroy_node()

    def _autostart(self) -> None:
        """Activate once all readings are valid; log the missing one when it changes."""
        if self._configured is None or time.monotonic() < self._autostart_after_s:
            return
        if reason := clock_missing(self):
            self._refusal = reason  # ClockWatch logs it
            return
        reason = self._surroundings() or self._configured.machine.not_ready(self._inputs())
        if not reason and self.trigger_activate() == DONE:
            self._autostart_timer.cancel()
        elif _without_numbers(reason) != _without_numbers(self._refusal):
            self._refusal = reason
            self.get_logger().info(f"waiting to activate: {reason}")

    def _surroundings(self) -> str:
        """Return what beside the readings forbids to send commands, or an empty text."""
        assert self._configured is not None
        return clock_missing(self) or self._configured.inputs.estop.missing() or self._configured.robot.not_ready()

    def _joint_test_missing(self, policy: Policy, robot: RobotInterface) -> str:
        """Return why the joint test of the hand does not allow the policy to run, or an empty text."""
        if self.cfg.robot == "sim" or self.cfg.preview or not self.cfg.require_wave_test:
            return ""
        path = self.cfg.wave_test or record_path(self.cfg.hand)
        return check_record(path, robot.hand_cfg, policy.motor_names)

    def _request_service(self, name: str) -> Callable[[Trigger.Request, Trigger.Response], Any]:
        """Return the service callback of a request, a coroutine function: perception may be asked meanwhile."""

        async def answer(_: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
            reason = "the node is not configured"
            if self._configured is not None and name == "reset_fault":
                reason = self._reset_fault(self._configured)
            elif self._configured is not None:
                self._configured.inputs.forget_answers()  # each request asks anew
                reason = self._configured.machine.request(name, self._inputs())
            for _try in range(MOST_QUESTIONS):  # the planner, then perception; again where the plan has changed
                asked = None if self._configured is None else self._configured.inputs.ask(reason)
                if asked is None:
                    break
                await asked
                reason = "the node is not configured"
                if self._configured is not None:  # it may have been cleaned up meanwhile
                    reason = self._configured.machine.request(name, self._inputs())
            accepted = "accepted"
            if name == "grasp" and self._configured is not None:
                accepted = f"accepted, plan {self._configured.inputs.plan_id}"
            response.success, response.message = not reason, reason or f"{name}: {accepted}"
            self.get_logger().info(f"{name}: {reason or accepted}")
            return response

        return answer

    def _change_refused(self, name: str, value: Any) -> str:
        """Return why a parameter may not be changed now, or an empty text."""
        if self._configured is None or not self._configured.machine.active:
            return ""
        if name == "speed_scale" and value <= self.get_parameter(name).value:
            return ""
        return (
            f"{name} changes while the node is not active: deactivate it first; speed_scale may be lowered at any time"
        )

    def _take_changes(self, _: list[Parameter]) -> None:
        """Slow an active robot down; configure an inactive one again."""
        cfg = read(self, GraspNodeCfg)
        if self._configured is None or cfg == self.cfg:
            return
        if self._configured.machine.active:
            self.cfg = cfg
            self._configured.machine.slow_down(cfg.speed_scale)
        else:
            self._release()
            self._configure()

    def _place(self, target: PoseStamped) -> str:
        """Begin to place the held object at a palm pose; return why not, or an empty text."""
        if self._configured is None:
            return "the node is not configured"
        try:
            goal = Pose.of(*message_conversions.pose_from_message(target))
            if target.header.frame_id != self.cfg.base_frame:
                goal = self._frames.pose_in(self.cfg.base_frame, target.header.frame_id) @ goal
        except ValueError as error:
            return str(error)
        return self._configured.machine.place(goal, self._inputs())

    async def _choose(self, target: str) -> str:
        """Let perception plan for the target of a goal; return why not, or an empty text."""
        if self._configured is None or not self._configured.machine.active or self._configured.machine.state != "idle":
            return ""  # the request is refused with the reason, and perception keeps its target
        return await self._target.choose(target)

    def _plan_since(self, stamp_s: float) -> int | None:
        """Return the id of the newest plan; None where its frame is not newer than a stamp [s]."""
        return None if self._configured is None else self._configured.inputs.plan_since(stamp_s)

    def _limit_attempts(self, attempts: int) -> None:
        if self._configured is not None:
            self._configured.machine.limit_attempts(attempts)

    def _reset_fault(self, parts: _Configured) -> str:
        """Clear the emergency stop, then the fault; return why not, or an empty text."""
        estop = parts.inputs.estop
        estop.drain()
        was_stopped = estop.level.latched
        if reason := estop.level.reset():
            return reason
        if was_stopped and not parts.machine.active:  # there is nothing else to clear
            return ""
        parts.robot.clear_failures()  # before they are judged: a failure of the past must not keep itself
        reason = self._surroundings() or parts.machine.request("reset_fault", self._inputs()) or parts.robot.reset()
        if not reason:
            self._log.write("arm_start", goal=parts.robot.arm_goal)
        estop.start()
        return reason

    def _on_emergency_stop(self, reason: str) -> None:
        """Send the first command of the hold at once; called where the message is taken."""
        if self._configured is not None and self._configured.machine.active:
            self._configured.machine.fail(reason)
            self._tick()

    def _on_new_points(self) -> None:
        """Tick now if a tick is due; called where points of a new depth frame have arrived."""
        assert self._configured is not None
        self._points_arrived_s = time.monotonic()
        if self._configured.schedule.cloud_arrived(self._now_s()) and self._configured.machine.active:
            self._tick()

    def _tick(self) -> None:
        """Run one control period: read inputs, run the state machine, send its command."""
        assert self._configured is not None
        machine, robot = self._configured.machine, self._configured.robot
        start_s = time.monotonic()
        self._configured.inputs.estop.drain()  # a press that has arrived counts in this tick
        inputs = self._inputs()
        self._ticked_s = inputs.now_s
        self._restart_timer(inputs.now_s)
        palm, stamp_s = self._configured.inputs.palm()
        if palm is not None:
            self._palm_topic.publish(
                message_conversions.pose_message(palm.pos_m, palm.quat, stamp_s, self.cfg.base_frame)
            )
        if machine.awaits_plan(inputs):
            self._configured.inputs.ask_now_and_then()
        output = machine.tick(inputs)
        if output.safe is None:
            return
        palm_is_fresh = inputs.now_s - stamp_s <= self.cfg.safety.joints_timeout_s
        try:
            robot.send(output.safe, palm if palm_is_fresh else None)
        except Exception as error:  # any error of the inverse kinematics: without a solution nothing is sent
            machine.fail(f"arm: {error}")
        else:
            self._log.write("arm", goal=robot.arm_goal)
        if reason := robot.failure():
            machine.fail(reason)
        self._record_timing(start_s, inputs, output)
        self._publish_state(output)

    def _restart_timer(self, now_s: float) -> None:
        """Let the timer tick when no new points have started a tick in time."""
        assert self._configured is not None
        wait_s, timer = self._configured.schedule.ticked(now_s), self._configured.timer
        timer.timer_period_ns = round(wait_s * 1e9)
        timer.reset()

    def _check(self) -> None:
        """Fail where the drivers or the emergency stop are gone, or simulated time stands still."""
        assert self._configured is not None
        parts, machine = self._configured, self._configured.machine
        parts.clock_age.look(time.monotonic(), self.get_clock().now().nanoseconds)
        if not machine.active:
            return
        parts.inputs.estop.check()
        before = machine.state, machine.warning
        if parts.clock_age.still_s > self.cfg.clock_timeout_s:
            machine.pause(f"the clock stands still: no new time for {parts.clock_age.still_s:.2f} s")
        elif reason := clock_missing(self) or parts.robot.not_ready():
            machine.fail(reason)
        if (machine.state, bool(machine.warning)) != (before[0], bool(before[1])):
            now = {"state": machine.state, "fault": machine.fault, "warning": machine.warning}
            self._publish_state(replace(self._output, **now))  # a dry run goes on from the commands that it assumed

    def _record_timing(self, start_s: float, inputs: Inputs, output: Output) -> None:
        end_s = time.monotonic()
        if output.proposal is not None and inputs.estimate is not None:
            self.timing.add("wait_for_tick", start_s - self._points_arrived_s)
            self._marks.publish(inputs.estimate.stamp_s, self._points_arrived_s, start_s, end_s)
        self.timing.add("period", start_s - self._last_timed_s)
        self.timing.add("command", end_s - start_s)
        self.timing.add("policy", output.policy_s)
        self.timing.add("camera_age", output.camera_age_s)
        self.timing.add("camera_to_command", output.camera_age_s + end_s - start_s)
        self._last_timed_s = start_s

    def _inputs(self) -> Inputs:
        assert self._configured is not None
        return self._configured.inputs.inputs(self._now_s(), self._output.safe if self.cfg.dry_run else None)

    def _now_s(self) -> float:
        return self.get_clock().now().nanoseconds * 1e-9

    def _hold(self) -> bool:
        """Send the last commands, which hold the measured position; return whether any were sent."""
        if self._configured is None or not self._configured.machine.active:
            return False
        machine, robot = self._configured.machine, self._configured.robot
        inputs, palm = self._inputs(), self._configured.inputs.palm()[0]
        fresh = inputs.now_s - inputs.joints_stamp_s <= self.cfg.safety.joints_timeout_s
        measured = None if inputs.joint_pos is None else robot.motors.positions(np.asarray(inputs.joint_pos))
        fingers = measured if fresh and measured is not None else machine.last_sent()[0]
        machine.deactivate()
        fingers = np.clip(fingers, machine.gate.joints.lower, machine.gate.joints.upper)
        robot.hold(fingers, palm if fresh else None)
        self._log.write("hold", fingers=fingers, arm=robot.held_arm)
        self._publish_state(Output("idle", "", None))
        return True

    def _release(self) -> None:
        if self._configured is not None:
            level = self._configured.inputs.estop.level
            self._stopped = level.reason if level.latched else ""
            self._configured.robot.destroy()
            self._configured.inputs.destroy()
        for timer in self._timers_of_configured:
            self.destroy_timer(timer)
        self._configured, self._timers_of_configured = None, []

    def _refuse(self, reason: str) -> TransitionCallbackReturn:
        self._refusal = reason
        self.get_logger().error(reason)
        return REFUSED

    def _publish_state(self, output: Output) -> None:
        """Publish and log the state where it has changed."""
        said, self._output, before = self._output.warning, output, self._published_state
        if output.warning and not said:
            self.get_logger().warning(f"{output.state}, standing still: {output.warning}")
        palm = None if self._configured is None else self._configured.inputs.palm()[0]
        self._actions.update(output, palm, self._ticked_s)
        active = self._configured is not None and self._configured.machine.active
        if (output.state, active) != (before, self._published_active):
            now_s = self.get_clock().now().nanoseconds * 1e-9
            self._status_topic.publish(now_s, state=output.state, reason=output.fault, active=active, mode=self._mode)
        self._published_active = active
        if output.state == before:
            return
        self._published_state = output.state
        if self._configured is not None:
            self._configured.inputs.forget_answers()
        self._state_topic.publish(String(data=output.state))
        if output.fault:  # rclpy allows one severity per line of code
            self.get_logger().error(f"fault: {output.fault}")
        elif (before, output.state) == ("retreat", "idle") and active:
            self.get_logger().warning(f"regrasp given up: no plan within {self.cfg.grasp.look_timeout_s:g} s, idle")
        else:
            self.get_logger().info(output.state)

    def _report(self) -> None:
        if self._configured is None:
            statuses = [state_report(self._output, False, self._refusal or self._mode)]
            now_s = self._now_s()
        else:
            inputs = self._inputs()
            now_s = inputs.now_s
            refused = {"joints": self._configured.robot.refused, **self._configured.inputs.refused}
            statuses = [
                state_report(self._output, self._configured.machine.active, self._mode),
                inputs_report(inputs, refused, clock_missing(self)),
                timing_report(self.timing),
            ]
            if self.cfg.shadow:
                statuses.append(shadow_report(self._output, inputs, self._configured.robot.motors))
        self._report_topic.publish(message_conversions.diagnostics_message(statuses, now_s))


def _without_numbers(reason: str) -> str:
    """Return a reason without ages and positions, which change with every check."""
    return re.sub(r"-?[0-9.]+", "", reason)


def main() -> int:
    """Run the node until a signal; return the exit code."""
    return run(GraspNode)


if __name__ == "__main__":
    raise SystemExit(main())
