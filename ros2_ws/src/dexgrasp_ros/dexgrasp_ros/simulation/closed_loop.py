"""Closed loop on one machine: simulated robot, perception and grasp node, and an operator.

    with ClosedLoop(bundle, logs) as loop:
        trial = loop.grasp("3", seed=0)          success is decided by the pose of the object in the simulator

ROS_DOMAIN_ID and the Fast DDS profile must be set in the environment, see `bench.set_local_transport`.
"""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import rclpy
from diagnostic_msgs.msg import DiagnosticArray
from geometry_msgs.msg import PoseStamped
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState
from rclpy.context import Context
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.parameter import Parameter
from rclpy.parameter_client import AsyncParameterClient
from rclpy.qos import DurabilityPolicy, QoSProfile
from rclpy.utilities import try_shutdown
from sensor_msgs.msg import JointState
from std_msgs.msg import Float64MultiArray, String
from std_srvs.srv import Trigger

from dexgrasp_ros import SIMULATED, config, hand_file, message_conversions
from dexgrasp_ros.simulation.latency_parts import NODES
from dexgrasp_ros.simulation.video import RATE_HZ, VideoFrameState

LIFTED_M = 0.1
"""Rise of the object at the end of the hold from which a trial is a success [m]."""
HOLD_S = 3.0
"""Duration of the hold that is observed [s, simulated]."""
REPORT_S = 3.0
"""Time limit for a report of a node that reports once per second [s, wall time]."""
START_S, ANSWER_S, PLAN_S, GRASP_S = 60.0, 30.0, 30.0, 150.0
"""Time limits of a process start, an answer, a plan, and a grasp with all attempts [s, wall time]."""
BUSY = "the machine may be busy: run it again when it is idle"
"""Advice where a node runs and is only late."""


class NotAnsweredError(TimeoutError):
    """Raised where a node does not react in time; the text says whether it runs and where its log is."""


@dataclass(frozen=True)
class Trial:
    """Result of one grasp with all its attempts."""

    object: str
    seed: int
    success: bool
    lifted_m: float
    """Rise of the object at the end of the hold [m]."""
    state: str
    """State of the grasp node at the end."""
    reason: str
    """Why the trial failed; empty for a success."""
    wall_s: float


def robot_parameters(hand: str, arm: str) -> dict[str, dict[str, Any]]:
    """Return the parameters, by node, of a hand and an arm given by name, folder or file."""
    drivers = {"hand": f"{SIMULATED}{hand}", "arm": f"{SIMULATED}{arm}"}
    file = hand_file(hand)
    own = {"hand_body": str(file.parent)} if file else {}
    return {
        "sim_robot": {"hand": hand, "arm": arm},
        "perception": drivers | own,
        "grasp": drivers | ({"hand_file": str(file)} if file else {}),
    }


class ClosedLoop:
    """Starts simulated robot, perception and grasp node as processes and operates them."""

    def __init__(
        self,
        bundle: str | Path,
        logs: Path,
        video: bool = False,
        start_timeout_s: float = START_S,
        **parameters: Mapping[str, Any],
    ) -> None:
        """`logs`: folder of node outputs. `video`: keep states for a video. `parameters`: by node name.

        `start_timeout_s`: time limit of the start of a node [s, wall time].
        """
        if unknown := sorted(set(parameters) - set(NODES)):
            raise ValueError(f"unknown nodes {unknown}; nodes: {list(NODES)}")
        folder = str(Path(bundle).resolve())
        own: dict[str, dict[str, Any]] = {
            "sim_robot": {"physics": "reference"},
            "perception": {
                "bundle": folder,
                "arm": "sim_ur5e",
                "camera_file": str(config("cameras/sim.yaml")),
                "use_sim_time": True,
            },
            "grasp": {"bundle": folder, "autostart": False, "use_sim_time": True},
        }
        self._logs, self._video, self._start_timeout_s = logs, video, start_timeout_s
        self._parameters = {name: own[name] | dict(parameters.get(name, {})) for name in NODES}
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        """Node processes by name."""
        self.state, self.lifted_m = "", np.nan
        """State of the grasp node; rise of the object since the last reset [m]."""
        self.timing: dict[str, str] = {}
        """Newest timing report of the grasp node, values by name."""
        self.status: dict[str, dict[str, str]] = {}
        """Newest reports of the nodes by name: message and values."""
        self.marks: dict[str, list[list[float]]] = {name: [] for name in NODES}
        """Marks of the nodes: stamp of the depth frame, then monotonic times [s]."""
        self.frames: list[VideoFrameState] = []
        """States since the last reset, kept only for a video."""
        self._joints: dict[str, float] = {}
        self._object_m: tuple[float, float] = np.nan, np.nan  # stamp, height
        self._start_m = self._plan_s = np.nan

    def __enter__(self) -> Self:
        self._logs.mkdir(parents=True, exist_ok=True)
        self._context = Context()
        rclpy.init(context=self._context)
        self._node = Node("operator", context=self._context)
        self._executor = SingleThreadedExecutor(context=self._context)
        self._executor.add_node(self._node)
        latched = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
        listen = self._node.create_subscription
        listen(String, "/grasp/state", self._on_state, latched)
        listen(PoseStamped, "/sim_robot/object_pose", self._on_object, QoSProfile(depth=1))
        if self._video:
            listen(JointState, "/joint_states", self._on_joints, QoSProfile(depth=1))
        listen(Float64MultiArray, "/perception/plan", self._on_plan, QoSProfile(depth=1))
        listen(DiagnosticArray, "/diagnostics", self._on_report, QoSProfile(depth=10))
        for name, rows in self.marks.items():
            keep = partial(_append_marks, rows)
            listen(Float64MultiArray, f"/{name}/marks", keep, QoSProfile(depth=100))
        try:
            for name in NODES:
                self.start(name)
            self.until(lambda: np.isfinite(self._object_m[0]), "sim_robot", "publishes the object pose", starts=True)
            self._active = False
            self.until(lambda: self._node.count_services("/grasp/change_state"), "grasp", "has started", starts=True)
            self.transition(Transition.TRANSITION_CONFIGURE, starts=True)
            self.until(lambda: self.state != "", "grasp", "publishes its state")
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def start(self, name: str) -> None:
        """Start a node process; also used after it was killed."""
        words = [word for item in self._parameters[name].items() for word in ("-p", "{}:={}".format(*_written(item)))]
        command = [sys.executable, "-m", f"dexgrasp_ros.nodes.{name}_node", "--ros-args", *words]
        with (self._logs / f"{name}.log").open("ab") as log:
            environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
            self.processes[name] = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, env=environment)

    def close(self) -> None:
        """Terminate the nodes, as a launch does."""
        for process in self.processes.values():
            process.terminate()
        for process in self.processes.values():
            try:
                process.wait(ANSWER_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        self._executor.shutdown(timeout_sec=0.0)
        self._node.destroy_node()
        try_shutdown(context=self._context)

    def grasp(self, name: str, seed: int = 0, during: Callable[[str], None] = lambda state: None) -> Trial:
        """Place an object, grasp it and return whether it is held.

        `during` is called repeatedly with the state of the grasp node.
        """
        start_s = time.monotonic()
        self.reset(name, seed)
        reason = self._request_grasp() or self._wait_for_hold(during)
        if not reason and not self.lifted_m > LIFTED_M:
            reason = f"not held: the object is {self.lifted_m:.3f} m up after the hold, {LIFTED_M:g} m are asked for"
        success = not reason
        return Trial(
            object=name,
            seed=seed,
            success=success,
            lifted_m=self.lifted_m,
            state=self.state,
            reason=reason,
            wall_s=time.monotonic() - start_s,
        )

    def reset(self, name: str, seed: int) -> None:
        """Reset the simulated robot with an object and activate the grasp node."""
        if self._active:
            self._active = not self.transition(Transition.TRANSITION_DEACTIVATE)
        client = AsyncParameterClient(self._node, "sim_robot")
        self.until(client.services_are_ready, "sim_robot", "offers its parameters")
        values = [Parameter("object", value=str(name)), Parameter("seed", value=seed)]
        answer = client.set_parameters(values)
        self.until(answer.done, "sim_robot", "sets its parameters")
        self.call("/sim_robot/reset")
        reset_s = self._object_m[0]
        self.until(lambda: self._object_m[0] > reset_s + 0.1, "sim_robot", "publishes the object pose")
        self._start_m = self._object_m[1]
        self.frames.clear()
        self.until(lambda: self.transition(Transition.TRANSITION_ACTIVATE), "grasp", "is active")
        self._active = True

    def transition(self, number: int, *, starts: bool = False) -> bool:
        """Request a lifecycle transition of the grasp node; return whether it succeeded.

        `starts`: the time limit is that of a start, for configuration reads policy and arm.
        """
        request = ChangeState.Request(transition=Transition(id=number))
        return bool(self._call(ChangeState, "/grasp/change_state", request, starts=starts).success)

    def call(self, service: str) -> Trigger.Response:
        """Call a Trigger service and return its answer."""
        return self._call(Trigger, service, Trigger.Request())

    def _call(self, kind: Any, service: str, request: Any, *, starts: bool = False) -> Any:
        client = self._node.create_client(kind, service)
        name = service.split("/")[1]
        try:
            self.until(client.service_is_ready, name, f"offers {service}", starts=starts)
            answer = client.call_async(request)
            self.until(answer.done, name, f"answers {service}", starts=starts)
            return answer.result()
        finally:
            self._node.destroy_client(client)

    def spin(self, time_s: float) -> None:
        """Process messages for a duration [s]."""
        end_s = time.monotonic() + time_s
        while time.monotonic() < end_s:
            self._executor.spin_once(timeout_sec=0.01)

    def until(
        self,
        condition: Callable[[], Any],
        name: str,
        what: str,
        patience_s: float = ANSWER_S,
        *,
        starts: bool = False,
    ) -> None:
        """Process messages until a condition holds; `starts`: the time limit is that of a start.

        Raises NotAnsweredError, which names node `name`, after the time limit or where its process has ended.
        """
        patience_s = self._start_timeout_s if starts else patience_s
        end_s = time.monotonic() + patience_s
        while not condition():
            code = self.processes[name].poll()
            if code is not None:
                cause = f"it has ended with exit code {code}"
            elif time.monotonic() > end_s:
                cause = f"it still runs; {BUSY}{', or with a greater start_timeout_s=' if starts else ''}"
            else:
                self._executor.spin_once(timeout_sec=0.01)
                continue
            raise NotAnsweredError(
                f"waited up to {patience_s:g} s until {name} {what}: {cause}; {_end_of(self._logs / f'{name}.log')}"
            )

    def _call_until_accepted(self, service: str, patience_s: float) -> str:
        """Call a service until it succeeds; return the last refusal, or an empty text."""
        end_s, answer = time.monotonic() + patience_s, self.call(service)
        while not answer.success and time.monotonic() < end_s:
            self._executor.spin_once(timeout_sec=0.05)
            answer = self.call(service)
        return "" if answer.success else str(answer.message)

    def _request_grasp(self) -> str:
        """Request a grasp once a plan has arrived; return why none started, or an empty text."""
        after_s = self._object_m[0]
        try:
            self.until(lambda: self._plan_s > after_s, "perception", "plans a grasp", PLAN_S)
        except NotAnsweredError as error:
            return str(error)
        if refusal := self._call_until_accepted("/grasp/grasp", ANSWER_S):
            return refusal
        self.until(lambda: self.state != "idle", "grasp", "starts")
        return ""

    def _wait_for_hold(self, during: Callable[[str], None]) -> str:
        """Wait until the hold is over; return why it ended early, or an empty text."""
        end_s, held_from_s = time.monotonic() + GRASP_S, np.inf
        while self._object_m[0] < held_from_s + HOLD_S:
            self._executor.spin_once(timeout_sec=0.01)
            during(self.state)
            if self.state == "hold" and np.isinf(held_from_s):
                held_from_s = self._object_m[0]
            if dead := [name for name, process in self.processes.items() if process.poll() is not None]:
                return f"{dead} ended in {self.state}"
            if self.state in ("fault", "idle"):
                return self._why_ended()
            if time.monotonic() > end_s:
                return f"not finished within {GRASP_S:.0f} s, in {self.state}"
        return ""

    def _why_ended(self) -> str:
        """Return why the grasp node is in fault or idle, as it reports once per second."""
        state, self.status = self.state, {}
        end_s = time.monotonic() + REPORT_S
        while self.status.get("grasp: state", {}).get("state") != state and time.monotonic() < end_s:
            self._executor.spin_once(timeout_sec=0.01)
        if state == "fault":
            return f"fault: {self.status.get('grasp: state', {}).get('fault') or 'no reason was reported'}"
        seen = self.status.get("perception: object", {}).get("message", "nothing was reported")
        return f"given up after an empty grasp: no new plan; perception: {seen}"

    def _on_state(self, message: String) -> None:
        self.state = str(message.data)

    def _on_object(self, message: PoseStamped) -> None:
        pos, quat = message_conversions.pose_from_message(message)
        stamp_s = message_conversions.seconds(message.header.stamp)
        self._object_m = stamp_s, float(pos[2])
        self.lifted_m = self._object_m[1] - self._start_m
        last_s = self.frames[-1].stamp_s if self.frames else -np.inf
        if self._joints and stamp_s >= last_s + 1 / RATE_HZ - 1e-6:
            self.frames.append(
                VideoFrameState(
                    stamp_s=stamp_s, joint_pos=self._joints, object_pos_w=pos, object_quat_w=quat, caption=self.state
                )
            )

    def _on_joints(self, message: JointState) -> None:
        self._joints = message_conversions.joints_from_message(message)

    def _on_plan(self, message: Float64MultiArray) -> None:
        self._plan_s = message_conversions.plan_from_message(message)[1]

    def _on_report(self, message: DiagnosticArray) -> None:
        for status in message.status:
            values = {item.key: item.value for item in status.values}
            self.status[status.name] = {"message": status.message, **values}
            if status.name == "grasp: timing":
                self.timing = values


def _append_marks(rows: list[list[float]], message: Float64MultiArray) -> None:
    rows.append(list(message.data))


def _end_of(log: Path) -> str:
    """Return the place of a node's log and its last lines in one line."""
    last = " | ".join(filter(None, map(str.strip, log.read_text(errors="replace").splitlines()[-5:])))
    return f"the last lines of {log}: {last}" if last else f"its log {log} is empty"


def _written(item: tuple[str, Any]) -> tuple[str, str]:
    """Return name and value of a parameter in command-line form."""
    name, value = item
    return name, str(value).lower() if isinstance(value, bool) else str(value)
