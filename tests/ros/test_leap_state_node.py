"""The positions of a LEAP hand, which are told by a service, as joint states that the grasp node understands."""

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="needs the extra `ros`")

from rcl_interfaces.srv import GetParameterTypes
from rclpy.parameter import Parameter
from sensor_msgs.msg import JointState

from dexgrasp_ros import message_conversions
from dexgrasp_ros.drivers.adapters import JointAdapter
from dexgrasp_ros.drivers.config import load
from dexgrasp_ros.nodes.leap_state_node import LeapStateNode

pytestmark = pytest.mark.ros


def start(ros, **parameters):
    """The node, which asks a service of the same shape as the maker's: numbers in the answer."""
    given = {"service_type": "rcl_interfaces/srv/GetParameterTypes", "field": "types", **parameters}
    overrides = [Parameter(name, value=value) for name, value in given.items()]
    return ros.add(LeapStateNode(context=ros.context, parameter_overrides=overrides))


def test_what_the_service_tells_arrives_by_the_names_of_the_description(ros):
    def answer(_, response):
        response.types = list(range(16))
        return response

    ros.node.create_service(GetParameterTypes, "/leap_position", answer)
    states = ros.listen(JointState, "/leap/joint_states")
    start(ros)
    ros.until(lambda: len(states) > 3, "joint states")
    cfg = load("hands", "leap")
    names = list(cfg.state.names)
    assert cfg.state.topic == "/leap/joint_states"
    joints = JointAdapter(cfg, names).read(message_conversions.joints_from_message(states[-1]))
    motor = {name: int(number) for name, number in cfg.state.names.items()}
    np.testing.assert_allclose(joints, [motor[name] - 3.14159 for name in names], atol=1e-12)
    assert message_conversions.seconds(states[0].header.stamp) < message_conversions.seconds(states[-1].header.stamp)


def test_an_answer_of_another_length_is_not_published(ros):
    asked = []

    def answer(request, response):
        asked.append(request)
        response.types = [1, 2, 3]
        return response

    ros.node.create_service(GetParameterTypes, "/leap_position", answer)
    states = ros.listen(JointState, "/leap/joint_states")
    start(ros)
    ros.until(lambda: len(asked) > 3, "questions")
    assert not states


@pytest.mark.parametrize(
    ("parameters", "reason"),
    [
        ({"service_type": "leap_hand/srv/LeapPosition"}, "Build and source the manufacturer's package"),
        ({"service_type": "LeapPosition"}, "package/srv/Name"),
        ({"rate_hz": 200.0}, "'rate_hz' must lie in 0.1..90, got 200"),
    ],
)
def test_it_refuses_to_start_with_the_reason(ros, parameters, reason):
    with pytest.raises(ValueError, match=reason):
        start(ros, **parameters)
