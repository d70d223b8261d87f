"""Parameters of running nodes: their ranges, and when they may change."""

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="needs the extra `ros`")

from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState
from rcl_interfaces.msg import Parameter as ParameterMessage
from rcl_interfaces.srv import DescribeParameters, SetParameters
from rclpy.parameter import Parameter

from dexgrasp_ros import message_conversions
from dexgrasp_ros.description.config import DescriptionCfg
from dexgrasp_ros.grasping.config import GraspNodeCfg
from dexgrasp_ros.nodes.recorder_node import RecorderCfg
from dexgrasp_ros.parameters import names
from dexgrasp_ros.perception.config import PerceptionCfg
from dexgrasp_ros.simulation.sim_robot import SimRobotCfg
from tests.ros.test_grasp_node import bench  # noqa: F401

pytestmark = pytest.mark.ros


class Door:
    """The parameter services of a node, as `ros2 param` uses them."""

    def __init__(self, ros, node):
        self.ros, self.node = ros, node

    def set(self, name, value):
        """Why a value is refused, or an empty text."""
        message = ParameterMessage(name=name, value=Parameter(name, value=value).get_parameter_value())
        request = SetParameters.Request(parameters=[message])
        result = self.ros.call(SetParameters, f"/{self.node}/set_parameters", request).results[0]
        assert result.successful == (not result.reason)
        return result.reason

    def describe(self, *names):
        request = DescribeParameters.Request(names=names)
        return self.ros.call(DescribeParameters, f"/{self.node}/describe_parameters", request).descriptors


def transition(ros, number):
    request = ChangeState.Request(transition=Transition(id=number))
    return ros.call(ChangeState, "/grasp/change_state", request).success


@pytest.mark.slow
def test_descriptors_hold_the_ranges_of_the_fields_and_parameters_change_while_inactive(bench):  # noqa: F811
    node, door = bench.start(active=False, autostart=False), Door(bench.ros, "grasp")
    speed, attempts, box, bundle = door.describe(
        "safety.palm_speed_m_s", "grasp.attempts", "safety.box_lower_m", "bundle"
    )
    assert [(r.from_value, r.to_value) for r in speed.floating_point_range] == [(0.001, 5.0)]
    assert [(r.from_value, r.to_value) for r in attempts.integer_range] == [(1, 100)]
    assert box.additional_constraints == "each number in -10..10"
    assert not any(item.read_only for item in door.describe(*names(GraspNodeCfg)))
    assert (bundle.floating_point_range, bundle.integer_range) == ([], [])
    assert "out of range" in door.set("safety.palm_speed_m_s", 5.5)
    assert "expects one of sim, real" in door.set("robot", "simulated")
    assert "box is empty" in door.set("safety.box_upper_m", [-1.0, 0.5, 0.5])

    assert transition(bench.ros, Transition.TRANSITION_CONFIGURE)
    assert door.set("safety.palm_speed_m_s", 0.25) == ""
    assert node._configured.machine.gate.cfg.palm_speed_m_s == node.cfg.safety.palm_speed_m_s == 0.25
    bench.joints.clear()
    bench.ros.until(lambda: bench.joints, "joint states")
    assert transition(bench.ros, Transition.TRANSITION_ACTIVATE)
    assert door.set("safety.palm_speed_m_s", 0.2).startswith(
        "safety.palm_speed_m_s changes while the node is not active"
    )
    assert door.set("speed_scale", 0.5) == ""
    assert door.set("speed_scale", 0.6).startswith("speed_scale changes while the node is not active")
    assert "out of range" in door.set("speed_scale", 0.01)
    bench.ros.until(lambda: node._configured.machine.speed_scale == pytest.approx(0.5), "the slower speed")
    bench.perceive()
    assert bench.ask("grasp").success
    bench.ros.until(lambda: len(bench.arm) > 40, "a motion")
    palms = [node._configured.robot.kinematics.palm(_target(message)).pos_m for message in bench.arm[15:]]
    steps_m = np.linalg.norm(np.diff(palms, axis=0), axis=1)
    limit_m = 0.25 * 0.5 * node._configured.machine.period_s
    assert 0.5 * limit_m < steps_m.max() < 1.02 * limit_m
    assert transition(bench.ros, Transition.TRANSITION_DEACTIVATE)
    assert door.set("speed_scale", 1.0) == ""


def _target(message):
    return np.array(list(message_conversions.trajectory_point(message)[0].values()))


@pytest.mark.parametrize("schema", [GraspNodeCfg, PerceptionCfg, SimRobotCfg, DescriptionCfg, RecorderCfg])
def test_every_number_of_a_node_has_a_range(schema):
    from dexgrasp_ros import parameters

    numbers = [item for item in parameters._walk(schema) if item.hint in (int, float)]
    assert [item.name for item in numbers if item.limits is None] == []
    assert numbers or schema is RecorderCfg
