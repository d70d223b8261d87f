"""States, controllers and command topics of the drivers: the grasp node sends only where it alone is obeyed."""

from types import SimpleNamespace

import pytest
import yaml

pytest.importorskip("rclpy", reason="needs the extra `ros`")

from lifecycle_msgs.msg import State
from lifecycle_msgs.srv import GetAvailableStates
from std_msgs.msg import Bool, Float64MultiArray, UInt8

from dexgrasp_ros import config
from dexgrasp_ros.drivers.config import AdapterCfg, AdapterError, CommandCfg, StateCfg, StatusCfg, load
from dexgrasp_ros.drivers.publishers import TopicWriter
from dexgrasp_ros.grasping import robot_status
from dexgrasp_ros.grasping.robot_status import LIST_CONTROLLERS, Controllers, RobotStatus, watched_states
from tests.helpers.ros import LATCHED, RELIABLE

pytestmark = pytest.mark.ros
MODE = "/io_and_status_controller/safety_mode"
RUNNING = "/io_and_status_controller/robot_program_running"
COMMANDS = "/forward_position_controller/commands"
UR = {
    "safety_mode": StatusCfg(MODE, "std_msgs/msg/UInt8", (1, 2)),  # ur_dashboard_msgs is not installed here
    "robot_program_running": StatusCfg(RUNNING, "std_msgs/msg/Bool", (True,)),
}


@pytest.mark.parametrize("name", ["ur5e_scaled_trajectory", "ur5e_forward_position", "ur5e_servo_twist"])
def test_a_ur_watches_its_safety_mode_and_program(name):
    cfg = load("arms", name)
    mode, running = cfg.status["safety_mode"], cfg.status["robot_program_running"]
    assert (mode.topic, mode.type, mode.field, mode.ready) == (
        *(MODE, "ur_dashboard_msgs/msg/SafetyMode", "mode"),
        (1, 2),  # NORMAL and REDUCED in SafetyMode.msg
    )
    assert (running.topic, running.type, running.ready) == (RUNNING, "std_msgs/msg/Bool", (True,))


@pytest.mark.parametrize("change", [{"type": "Bool"}, {"type": "std_msgs/Bool"}, {"ready": []}])
def test_a_status_that_says_too_little_is_refused_with_file_and_key(tmp_path, change):
    values = yaml.safe_load(config("arms/ur5e_forward_position.yaml").read_text())
    values["status"]["robot_program_running"] |= change
    (tmp_path / "arm.yaml").write_text(yaml.safe_dump(values))
    with pytest.raises(AdapterError, match=r"arm.yaml: .*status.*package/msg/Name"):
        load("arms", str(tmp_path / "arm.yaml"))


@pytest.mark.parametrize(
    ("kind", "field", "text"),
    [
        ("no_such_msgs/msg/Mode", "data", "install no_such_msgs"),
        ("std_msgs/msg/NoSuch", "data", "is not installed"),
        ("std_msgs/msg/Bool", "mode", "has no field 'mode'"),
    ],
)
def test_a_status_that_cannot_be_read_is_refused(kind, field, text):
    with pytest.raises(AdapterError, match=rf"status\.x: .*{text}"):
        watched_states({"x": StatusCfg("/x", kind, (1,), field)})


@pytest.mark.parametrize("qos", [LATCHED, RELIABLE])
def test_nothing_is_ready_until_every_state_says_so(ros, qos):
    status = RobotStatus(ros.node, watched_states(UR), {})
    assert status.not_ready() == f"safety_mode is not known: nobody publishes {MODE}"
    mode = ros.publisher(UInt8, MODE, qos)
    ros.until(lambda: status.not_ready() == f"safety_mode is not known: nothing was received on {MODE}", "silence")
    running = ros.publisher(Bool, RUNNING, qos)
    mode.publish(UInt8(data=1))
    running.publish(Bool(data=False))
    ros.until(
        lambda: status.not_ready() == f"robot_program_running is False on {RUNNING}; the robot moves with True", ""
    )
    running.publish(Bool(data=True))
    ros.until(lambda: status.not_ready() == "", "a robot that is ready")
    for value, ready in ((3, False), (2, True), (7, False), (1, True)):
        mode.publish(UInt8(data=value))
        ros.until(lambda ready=ready: (status.not_ready() == "") == ready, f"mode {value}")
    ros.node.destroy_publisher(mode)
    ros.until(lambda: "nobody publishes" in status.not_ready(), "a driver that has ended")
    status.destroy()


def test_a_second_publisher_of_commands_and_a_missing_driver_are_named(ros):
    driver = AdapterCfg(
        command=CommandCfg("float64_array", COMMANDS, joints=("A",)), source="a test", state=StateCfg("/s", {"a": "A"})
    )
    commands = TopicWriter(ros.node, driver, preview=False)
    status = RobotStatus(ros.node, [], {COMMANDS: commands})
    assert status.not_ready() == f"nobody subscribes to {COMMANDS}: is the driver running?"
    ros.listen(Float64MultiArray, COMMANDS)
    ros.until(lambda: status.not_ready() == "", "the driver")
    other = ros.node.create_publisher(Float64MultiArray, COMMANDS, 1)
    told = f"others publish on {COMMANDS} as well: /peer; stop them"
    ros.until(lambda: status.not_ready() == told, "the other one, of the same name")
    ros.node.destroy_publisher(other)
    ros.until(lambda: status.not_ready() == "", "that it has left")
    status.destroy()


def test_a_controller_that_is_not_active_is_named(ros, monkeypatch):
    """A stand-in with another type of service: controller_manager_msgs is not installed here."""
    states = {"forward_position_controller": "inactive", "joint_state_broadcaster": "active"}
    monkeypatch.setattr(robot_status, "service_type", lambda: GetAvailableStates)
    monkeypatch.setattr(
        robot_status, "controller_states", lambda response: dict(it.label.split() for it in response.available_states)
    )

    def answer(_, response):
        response.available_states = [State(label=f"{name} {state}") for name, state in states.items()]
        return response

    controllers = Controllers(ros.node)
    assert controllers.not_ready([COMMANDS]) == ""  # no controller manager
    service = ros.node.create_service(GetAvailableStates, LIST_CONTROLLERS, answer)
    told = "controller forward_position_controller is inactive: activate it with /controller_manager/switch_controller"
    ros.until(lambda: controllers.not_ready([COMMANDS]) == told, "the state")
    assert controllers.not_ready(["/robot/forward_position_controller/commands"]) == told
    assert controllers.not_ready(["/allegro_hand/joint_cmd", "/commands"]) == ""  # drivers without controllers
    states["forward_position_controller"] = "active"
    ros.until(lambda: controllers.not_ready([COMMANDS]) == "", "that it is active")
    monkeypatch.setattr(robot_status, "ANSWER_S", -1.0)
    assert controllers.not_ready([COMMANDS]) == f"{LIST_CONTROLLERS} does not answer"
    ros.node.destroy_service(service)
    controllers.destroy()


def test_the_answer_of_a_controller_manager_is_read():
    rows = [SimpleNamespace(name="a", state="active"), SimpleNamespace(name="b", state="inactive")]
    assert robot_status.controller_states(SimpleNamespace(controller=rows)) == {"a": "active", "b": "inactive"}
