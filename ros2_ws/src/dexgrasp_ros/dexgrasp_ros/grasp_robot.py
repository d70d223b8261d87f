"""One hand and the arm that carries it, as their drivers speak: readings by name, commands, the pose of the palm."""

import numpy as np
from numpy.typing import NDArray
from rclpy.node import Node
from rclpy.publisher import Publisher
from sensor_msgs.msg import JointState

from dexgrasp.utils.rotations import Pose
from dexgrasp_ros import messages
from dexgrasp_ros.adapter_cfg import JOINT_TYPES, AdapterError, load
from dexgrasp_ros.adapters import JointAdapter, PoseAdapter
from dexgrasp_ros.arm import Arm
from dexgrasp_ros.drivers import ArmDriver, JointDriver, PoseDriver, listen_joints
from dexgrasp_ros.grasp_cfg import GraspNodeCfg
from dexgrasp_ros.joint_states import JointStates
from policies.contract import Contract
from policies.safety import Safe

Array = NDArray[np.float64]


class Robot:
    """Made when the node is configured."""

    def __init__(self, node: Node, cfg: GraspNodeCfg, contract: Contract, period_s: float) -> None:
        """Raises AdapterError, or what the arm's kinematics raise."""
        hand = contract.hand
        self._node = node
        self.hand_cfg, arm_cfg = load("hands", cfg.hand), load("arms", cfg.arm)
        """Description of the hand's driver."""
        if self.hand_cfg.hand != hand.name:
            raise AdapterError(f"{cfg.hand} describes the hand {self.hand_cfg.hand}, the policy is for {hand.name}")
        flange_palm = Pose.of(hand.palm_pos_b, hand.palm_quat_b)
        base = arm_cfg.base and (arm_cfg.base.pos_w, arm_cfg.base.yaw_rad)
        adapters = {"hand": JointAdapter(self.hand_cfg, hand.joint_names)}
        needs_arm = arm_cfg.command.type in JOINT_TYPES or cfg.palm_source == "arm"
        if needs_arm and (arm_cfg.arm is None or arm_cfg.state is None):
            raise AdapterError(f"{cfg.arm} names no arm whose kinematics are known: start with palm_source:=topic")
        self.kinematics = Arm(arm_cfg.arm, hand, period_s, base, cfg.arm_speed) if needs_arm and arm_cfg.arm else None
        """Of the arm, where they are needed."""
        if self.kinematics is not None:
            adapters["arm"] = JointAdapter(arm_cfg, self.kinematics.joint_names)
        self._states = JointStates(adapters, others=self.kinematics is None)
        self._hand = JointDriver(node, adapters["hand"], period_s, cfg.preview)
        if arm_cfg.command.type in JOINT_TYPES:
            assert self.kinematics is not None
            self._arm = ArmDriver(JointDriver(node, adapters["arm"], period_s, cfg.preview), self.kinematics)
        else:
            speed = cfg.safety.palm_speed_m_s, cfg.safety.palm_speed_rad_s
            self._arm = PoseDriver(node, PoseAdapter(arm_cfg, flange_palm), cfg.preview, speed)
        self.refused = 0
        """Joint states that were of no use."""
        self._trouble: dict[str, str] = {}
        self._subscriptions = listen_joints(node, self._states.topics, self._take)

    @property
    def publishers(self) -> list[Publisher]:
        """Of commands."""
        return [self._hand.publisher, self._arm.publisher]

    @property
    def trouble(self) -> str:
        """What is wrong with the newest joint states, or nothing."""
        return "; ".join(self._trouble.values())

    def hand(self) -> tuple[Array | None, float]:
        """Finger joints (joint,) [rad] and when they were read [s]."""
        return self._states.newest("hand")

    def palm(self) -> tuple[Pose | None, float]:
        """T_world_palm of the arm's joint states, and when they were read [s]."""
        q_arm, stamp_s = self._states.newest("arm")
        return (None if q_arm is None or self.kinematics is None else self.kinematics.palm(q_arm)), stamp_s

    @property
    def arm_stamp_s(self) -> float:
        """When the arm's joints were read [s]."""
        return self._states.newest("arm")[1]

    def begin(self) -> str:
        """The next commands start from the newest joint states. Returns why not, or nothing."""
        self._hand.begin()
        return self._arm.begin(self._states.newest("arm")[0])

    def send(self, safe: Safe, measured: Pose | None) -> None:
        """The commands of a control period; `measured`: T_world_palm, None where it is not known now."""
        self._hand.send(safe.joint_target)
        self._arm.send(Pose(safe.palm_pos_w, safe.palm_quat_w), measured)

    def hold(self, fingers: Array, palm: Pose | None) -> None:
        """The last commands: fingers (joint,) [rad]; the arm where it was measured, or None: where it was sent."""
        self._hand.hold(fingers)
        self._arm.hold(None if palm is None else self._states.newest("arm")[0], palm)

    def destroy(self) -> None:
        """Publishers and subscriptions go."""
        for subscription in self._subscriptions:
            self._node.destroy_subscription(subscription)
        self._hand.destroy()
        self._arm.destroy()

    def _take(self, topic: str, message: JointState) -> None:
        arrived_s = self._node.get_clock().now().nanoseconds * 1e-9
        try:
            values = messages.joints_from_message(message)
            self._states.take(topic, values, messages.seconds(message.header.stamp), arrived_s)
        except ValueError as error:
            self.refused += 1
            self._trouble[topic] = str(error)
            self._node.get_logger().error(f"joint states refused: {error}", throttle_duration_sec=1.0)
        else:
            self._trouble.pop(topic, None)
