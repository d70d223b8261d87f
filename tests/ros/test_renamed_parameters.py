"""Old names of parameters are accepted with a warning that names the new one."""

import pytest

pytest.importorskip("rclpy", reason="needs the extra `ros`")

from rclpy.node import Node
from rclpy.parameter import Parameter

from dexgrasp import assets
from dexgrasp_ros.grasping.config import GraspNodeCfg
from dexgrasp_ros.parameters import declare, names
from dexgrasp_ros.perception.config import PerceptionCfg
from tests.helpers.ros import Process

pytestmark = pytest.mark.ros

GRASP = {"palm_source": "palm_pose_source"}
PERCEPTION = {"reach": "check_reachability", "carry_hz": "held_object_rate_hz"}
"""Old -> new names of the parameters of both nodes."""
BUNDLE = str(assets.path("policies/allegro/student/bundle"))


def configured(ros, schema, **given):
    overrides = [Parameter(name, value=value) for name, value in {"bundle": BUNDLE, **given}.items()]
    node = ros.add(Node("configured", context=ros.context, parameter_overrides=overrides))
    return declare(node, schema)


@pytest.mark.parametrize(("schema", "renamed"), [(GraspNodeCfg, GRASP), (PerceptionCfg, PERCEPTION)])
def test_new_names_are_declared_and_old_ones_are_not(schema, renamed):
    assert set(renamed.values()) <= set(names(schema))
    assert not set(renamed) & set(names(schema))


def test_values_given_under_old_names_arrive_under_the_new_ones(ros):
    cfg = configured(ros, GraspNodeCfg, palm_source="topic")
    assert cfg.palm_pose_source == "topic"
    camera = {"camera_file": "camera.yaml"}
    cfg = configured(ros, PerceptionCfg, reach=False, carry_hz=25.0, **camera)
    assert (cfg.check_reachability, cfg.held_object_rate_hz) == (False, 25.0)


def test_old_and_new_name_together_are_refused(ros):
    with pytest.raises(ValueError, match="'palm_source' is the old name of 'palm_pose_source'"):
        configured(ros, GraspNodeCfg, palm_source="topic", palm_pose_source="arm")


def test_the_node_warns_and_names_the_new_parameter(ros_domain, tmp_path):
    with Process(
        "dexgrasp_ros.nodes.grasp_node", tmp_path, bundle=BUNDLE, hand="sim_leap", palm_source="topic"
    ) as process:
        assert process.wait() == 2  # the hand is not that of the bundle
    assert "parameter 'palm_source' is now called 'palm_pose_source'" in process.text()
    assert "unknown parameter" not in process.text()
