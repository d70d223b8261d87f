"""Interface of the grasp node to hand and arm drivers: joint readings, commands, palm pose."""

from contextlib import ExitStack

import numpy as np
from numpy.typing import NDArray
from rclpy.node import Node
from sensor_msgs.msg import JointState

from dexgrasp.policies.deploy.contract import Contract
from dexgrasp.policies.deploy.safety_gate import SafeCommand
from dexgrasp.utils.rotations import Pose
from dexgrasp_ros import message_conversions
from dexgrasp_ros.approach.moveit_planner import PlannedArm
from dexgrasp_ros.drivers.adapters import JointAdapter, PoseAdapter
from dexgrasp_ros.drivers.arm_kinematics import ArmKinematics
from dexgrasp_ros.drivers.config import JOINT_TYPES, AdapterError, load
from dexgrasp_ros.drivers.joint_states import JointStates
from dexgrasp_ros.drivers.publishers import ArmDriver, JointDriver, PoseDriver, subscribe_joint_states
from dexgrasp_ros.grasping.config import GraspNodeCfg
from dexgrasp_ros.grasping.robot_status import RobotStatus, watched_states

Array = NDArray[np.float64]


class RobotInterface:
    """Subscribes to joint states and publishes commands of one hand and one arm; one per configured node."""

    def __init__(self, node: Node, cfg: GraspNodeCfg, contract: Contract, period_s: float) -> None:
        """Raise AdapterError for drivers that do not match the contract, ImportError without kinematics.

        Then all that was created is destroyed.
        """
        hand = contract.hand
        self._node = node
        namespace = node.get_namespace()
        self.hand_cfg, arm_cfg = load("hands", cfg.hand, namespace), load("arms", cfg.arm, namespace)
        """Driver description of the hand."""
        if self.hand_cfg.hand != hand.name:
            raise AdapterError(
                f"{cfg.hand} is a driver of the hand {self.hand_cfg.hand}, the policy is for {hand.name}"
            )
        drivers = (self.hand_cfg, arm_cfg) if cfg.moves_real_robot else ()
        states = [state for driver in drivers for state in watched_states(driver.status)]
        self.motors = hand.motors
        """Motors of the hand."""
        base = arm_cfg.base and (arm_cfg.base.pos_w, arm_cfg.base.yaw_rad)
        adapters = {"hand": JointAdapter(self.hand_cfg, hand.joint_names, hand.coupled, cfg.hand)}
        needs_arm = arm_cfg.command.type in JOINT_TYPES or cfg.palm_pose_source == "arm"
        if needs_arm and (arm_cfg.arm is None or arm_cfg.state is None):
            raise AdapterError(f"{cfg.arm} names no arm with known kinematics: set palm_pose_source:=topic")
        self.kinematics = (
            ArmKinematics(arm_cfg.arm, hand, period_s, base, cfg.arm_speed) if needs_arm and arm_cfg.arm else None
        )
        """Kinematics of the arm; None where neither commands nor palm pose need them."""
        if self.kinematics is not None:
            adapters["arm"] = JointAdapter(arm_cfg, self.kinematics.joint_names, file=cfg.arm)
        self._adapters = adapters
        self._states = JointStates(adapters, others=self.kinematics is None)
        self.held_arm: Array | None = None
        """Joints of the arm (joint,) in the last hold [rad]; None where its last command was held."""
        self.refused = 0
        """Number of refused joint states."""
        self._errors: dict[str, str] = {}
        with ExitStack() as made:  # destroys what was created where the rest is refused
            self._hand = JointDriver(node, adapters["hand"], period_s, cfg.preview)
            made.callback(self._hand.destroy)
            if arm_cfg.command.type in JOINT_TYPES:
                assert self.kinematics is not None
                self._arm = ArmDriver(JointDriver(node, adapters["arm"], period_s, cfg.preview), self.kinematics)
            else:
                speed = cfg.safety.palm_speed_m_s, cfg.safety.palm_speed_rad_s
                flange_palm = Pose.of(hand.palm_pos_b, hand.palm_quat_b)
                self._arm = PoseDriver(node, PoseAdapter(arm_cfg, flange_palm), cfg.preview, speed)
            made.callback(self._arm.destroy)
            writers = {self.hand_cfg.command.topic: self._hand.writer, arm_cfg.command.topic: self._arm.writer}
            self.status = None if cfg.preview else RobotStatus(node, states, writers)
            """Whether the drivers execute commands; None where none are sent to them."""
            if self.status is not None:
                made.callback(self.status.destroy)
            self._inputs = subscribe_joint_states(node, self._states.topics, self._on_joint_state)
            for item in self._inputs:
                made.callback(item.destroy)
            self._made = made.pop_all()

    def not_ready(self) -> str:
        """Return why the drivers would not execute commands, or an empty text.

        In a dry run only states are read from the drivers, and only those are judged.
        """
        return self.failure() or ("" if self.status is None else self.status.not_ready())

    def failure(self) -> str:
        """Return why a driver did not execute a command since `clear_failures`, or an empty text."""
        reasons = [self._hand.writer.failure(), self._arm.writer.failure(), *(item.failure for item in self._inputs)]
        return next(filter(None, reasons), "")

    def clear_failures(self) -> None:
        """Forget the failures of commands that were sent until now."""
        for item in (self._hand.writer, self._arm.writer, *self._inputs):
            item.clear()

    def acknowledged(self, timeout_s: float) -> bool:
        """Wait until the drivers have received the last commands; return whether they have."""
        arrived = [writer.acknowledged(timeout_s) for writer in (self._hand.writer, self._arm.writer)]
        return all(arrived)

    @property
    def errors(self) -> str:
        """Why the newest joint states were refused; empty where they were accepted."""
        return "; ".join(self._errors.values())

    def hand(self) -> tuple[Array | None, float]:
        """Return finger joints (joint,) [rad] and their stamp [s]."""
        return self._states.newest("hand")

    def palm(self) -> tuple[Pose | None, float]:
        """Return T_world_palm from the joint states of the arm, and their stamp [s]."""
        q_arm, stamp_s = self._states.newest("arm")
        return (None if q_arm is None or self.kinematics is None else self.kinematics.palm(q_arm)), stamp_s

    @property
    def arm_stamp_s(self) -> float:
        """Stamp of the newest joint states of the arm [s]."""
        return self._states.newest("arm")[1]

    @property
    def arm_goal(self) -> Array | None:
        """Last command of the arm (joint,) [rad]; None before the first, and where the driver gets poses."""
        return self._arm.goal if isinstance(self._arm, ArmDriver) else None

    def planned_arm(self) -> PlannedArm | None:
        """Return the arm as a motion planner needs it; None where the driver gets poses."""
        if self.kinematics is None or not isinstance(self._arm, ArmDriver):
            return None
        return PlannedArm(self.kinematics, self._adapters["arm"], lambda: self.arm_goal)

    def reset(self) -> str:
        """Start the next commands from the newest joint states; return why not, or an empty text."""
        self._hand.reset()
        return self._arm.reset(self._states.newest("arm")[0])

    def send(self, safe: SafeCommand, measured: Pose | None) -> None:
        """Send the commands of a control period; `measured`: T_world_palm, None where it is not known."""
        try:
            self._hand.send(safe.joint_target)
        finally:
            self._arm.send(Pose(safe.palm_pos_w, safe.palm_quat_w), measured)

    def hold(self, fingers: Array, palm: Pose | None) -> None:
        """Send the last commands: fingers (motor,) [rad] and the measured palm; None: last arm target."""
        self.held_arm = None if palm is None else self._states.newest("arm")[0]
        try:
            self._hand.hold(fingers)
        finally:  # whatever is wrong with the hand, the arm stands still
            self._arm.hold(self.held_arm, palm)

    def destroy(self) -> None:
        """Destroy writers and subscriptions."""
        self._made.close()

    def _on_joint_state(self, topic: str, message: JointState) -> None:
        arrived_s = self._node.get_clock().now().nanoseconds * 1e-9
        try:
            values = message_conversions.joints_from_message(message)
            self._states.update(topic, values, message_conversions.seconds(message.header.stamp), arrived_s)
        except ValueError as error:
            self.refused += 1
            self._errors[topic] = str(error)
            self._node.get_logger().error(f"joint states refused: {error}", throttle_duration_sec=1.0)
        else:
            self._errors.pop(topic, None)
