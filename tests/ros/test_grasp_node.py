"""The grasp node over real ROS, with the simulated robot as a process of its own and perception played by the test."""

import json
import shutil
import signal
import time

import numpy as np
import pytest
import yaml

pytest.importorskip("rclpy", reason="needs the extra `ros`")

from geometry_msgs.msg import PoseStamped
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState, GetState
from rclpy.parameter import Parameter
from sensor_msgs.msg import CameraInfo, Image, JointState, PointCloud2
from std_msgs.msg import Bool, Float64MultiArray, UInt8

from dexgrasp import assets
from dexgrasp.perception.cameras.extrinsics import pose_to_dict
from dexgrasp.policies.deploy.bundle import contract_sha256
from dexgrasp.sim.sensors.synthetic_scenes import make_scene
from dexgrasp_ros import config, message_conversions
from dexgrasp_ros.drivers.config import load
from dexgrasp_ros.joint_test.record import check_record, write_record
from dexgrasp_ros.message_conversions import estimate_message
from dexgrasp_ros.nodes.grasp_node import GraspNode
from dexgrasp_ros.nodes.perception_node import PerceptionNode
from dexgrasp_ros.object_estimate import ObjectEstimate
from tests.helpers.grasp_bench import BUNDLE, CONTRACT, GOAL, HAND, QUICK, Bench
from tests.helpers.ros import LATCHED, RELIABLE, SENSOR, Process

pytestmark = pytest.mark.ros


@pytest.fixture
def bench(ros, robot, tmp_path):
    return Bench(ros, robot, tmp_path)


def test_the_first_commands_are_where_the_robot_is_measured(bench):
    fingers = bench.measured()
    arm = message_conversions.joints_from_message(bench.joints[-1])
    bench.start()
    bench.ros.until(lambda: bench.hand and bench.arm, "commands")
    np.testing.assert_allclose(bench.hand[0].data, fingers, atol=0.025)  # the margin to the joint limits
    first, reach_s = message_conversions.trajectory_point(bench.arm[0])
    assert reach_s == pytest.approx(0.1)  # two control periods
    np.testing.assert_allclose([first[name] for name in first], [arm[name] for name in first], atol=2e-3)
    assert bench.state == "idle"


def test_a_clock_that_stands_still_is_a_fault_in_motion_and_a_warning_at_rest(bench, robot):
    bench.start(clock_timeout_s=0.25)
    robot.send(signal.SIGSTOP)
    try:
        bench.ros.until(lambda: bench.report("grasp: state", message_conversions.WARN), "a warning")
        text, values = bench.report("grasp: state", message_conversions.WARN)
        assert text.startswith("idle, standing still: the clock stands still: no new time for ")
        assert values["state"] == "idle"
    finally:
        robot.send(signal.SIGCONT)
    bench.ros.until(lambda: bench.report("grasp: state")[0] == "idle", "that it goes on without a reset")
    bench.perceive()
    assert bench.ask("grasp").success
    bench.ros.until(lambda: bench.state == "pregrasp" and len(bench.arm) > 10, "a motion")
    robot.send(signal.SIGSTOP)
    try:
        began_s = time.monotonic()
        bench.ros.until(lambda: bench.state == "fault", "a fault")
        assert 0.2 < time.monotonic() - began_s < 2.0  # 0.25 s, and what a busy machine adds
        assert "clock stands still" in bench.report("grasp: state", message_conversions.ERROR)[1]["fault"]
    finally:
        robot.send(signal.SIGCONT)


def test_it_grasps_lifts_holds_and_releases_and_says_how_long_things_take(bench):
    node = bench.start()
    palms = bench.ros.listen(PoseStamped, "/grasp/palm")
    bench.perceive()
    answer = bench.ask("grasp")
    assert answer.success, answer.message
    for state in ("grasp", "lift", "hold"):
        bench.ros.until(lambda state=state: bench.state == state, f"{state}, not {node._output}", 120.0)
    bench.ros.spin(1.2)
    palm, _ = message_conversions.pose_from_message(palms[-1])
    np.testing.assert_allclose(palm[:2], GOAL[:2], atol=0.05)
    _, values = bench.report("grasp: timing")
    assert {f"{name}_p{p}_ms" for name in ("policy", "camera_age", "command", "period") for p in (50, 95, 99)} <= set(
        values
    )
    assert 0 < float(values["policy_p50_ms"]) < float(values["command_p50_ms"])
    assert "home starts in idle" in bench.ask("home").message
    assert bench.ask("release").success
    bench.ros.until(lambda: bench.state == "idle", "release", 120.0)
    assert [message.data for message in bench.states] == [
        *("idle", "pregrasp", "grasp", "lift", "hold", "release", "idle")
    ]
    assert palm[2] > message_conversions.pose_from_message(palms[-1])[0][2]


def test_an_emergency_stop_acts_within_a_tick_and_stays_until_it_is_reset(bench):
    node = bench.start()
    bench.perceive()
    assert bench.ask("grasp").success
    bench.ros.until(lambda: bench.state == "pregrasp" and len(bench.arm) > 15, "a motion")
    stop = bench.ros.publisher(Bool, "/estop", LATCHED)
    stop.publish(Bool(data=True))
    sent = len(bench.hand)
    bench.ros.until(lambda: bench.state == "fault", "the stop")
    assert len(bench.hand) - sent <= 4  # ticks, with the way of the message
    assert node._output.fault == "emergency stop"
    bench.ros.spin(1.0)
    ends = [message_conversions.trajectory_point(message)[0]["elbow"] for message in bench.arm[-3:]]
    assert np.ptp(ends) < 2e-3
    assert bench.ask("reset_fault").message == "the emergency stop is pressed by node /peer"
    stop.publish(Bool(data=False))
    bench.ros.spin(0.5)
    assert bench.state == "fault"
    assert "reset_fault first" in bench.ask("grasp").message
    answer = bench.ask("reset_fault")
    assert answer.success, answer.message
    bench.ros.until(lambda: bench.state == "idle", "idle")


def test_stop_by_service(bench):
    bench.start()
    assert bench.ask("stop").success
    bench.ros.until(lambda: bench.state == "fault", "the stop")
    assert bench.report("grasp: state", message_conversions.ERROR)[0] == "stopped by request"


def test_an_emergency_stop_is_heard_however_it_is_published(bench):
    pressed = bench.ros.node.create_publisher(Bool, "/estop", LATCHED)
    pressed.publish(Bool(data=True))  # before the node is there
    node = bench.start(active=False, settle_s=1.0)
    bench.ros.until(lambda: node._refusal.startswith("the emergency stop was pressed"), "the reason")
    assert bench.ask("reset_fault").message == "the emergency stop is pressed by node /peer"
    pressed.publish(Bool(data=False))
    bench.ros.spin(0.5)
    assert not bench.hand
    assert bench.ask("reset_fault").success
    bench.ros.until(lambda: bench.hand, "commands")
    volatile = bench.ros.publisher(Bool, "/estop", RELIABLE)
    volatile.publish(Bool(data=True))
    bench.ros.until(lambda: bench.state == "fault", "the stop")


@pytest.mark.parametrize("presses", [50, pytest.param(2000, marks=pytest.mark.slow)])
def test_no_pulse_of_two_publishers_is_missed(bench, presses):
    """Pulses of 1 to 100 ms; in every other one the node does not run before the publisher has said false again."""
    ros = bench.ros
    bench.start()
    buttons = ros.publisher(Bool, "/estop", LATCHED), ros.publisher(Bool, "/estop", RELIABLE)
    rng = np.random.default_rng(0)
    late_s = []
    for i in range(presses):
        pressed, other = buttons if i % 2 else buttons[::-1]
        ros.spin(rng.uniform(0.0, 0.05))  # anywhere in a control period
        sent = len(bench.hand)
        began_s = time.monotonic()
        pressed.publish(Bool(data=True))
        pulse_s = 0.001 * 100.0 ** rng.uniform()
        if i % 4 < 2:
            time.sleep(pulse_s)
        else:
            ros.spin(pulse_s)
        other.publish(Bool(data=False))
        pressed.publish(Bool(data=False))
        ros.until(lambda: bench.state == "fault", f"the stop by press {i} of {pulse_s * 1e3:.1f} ms", 5.0)
        ros.until(lambda sent=sent: len(bench.hand) > sent, "a command of the hold", 5.0)
        late_s.append(time.monotonic() - began_s - (pulse_s if i % 4 < 2 else 0.0))
        assert bench.ask("reset_fault").success
        ros.until(lambda: bench.state == "idle", f"idle after press {i}", 5.0)
    print(f"{presses} presses, none missed; fault at most {1e3 * max(late_s):.1f} ms after the node could run")


def test_a_real_robot_is_moved_only_while_its_drivers_and_its_emergency_stop_are_there(bench):
    ros, arm = bench.ros, yaml.safe_load(config("arms/sim_ur5e.yaml").read_text())
    arm["status"] = {
        "safety_mode": {"topic": "/arm/safety_mode", "type": "std_msgs/msg/UInt8", "ready": [1, 2]},
        "program": {"topic": "/arm/program", "type": "std_msgs/msg/Bool", "ready": [True]},
    }
    (bench.folder / "arm.yaml").write_text(yaml.safe_dump(arm, sort_keys=False))
    write_record(bench.folder / "wave.json", load("hands", "sim_allegro"), CONTRACT.hand.joint_names)
    files = {"arm": str(bench.folder / "arm.yaml"), "wave_test": str(bench.folder / "wave.json")}
    node = bench.start(active=False, robot="real", **files)

    def waits_for(text):
        ros.until(lambda: text in node._refusal, f"'{text}', not '{node._refusal}'")

    def reset():
        ros.until(lambda: bench.ask("reset_fault").success, "a reset")
        ros.until(lambda: bench.state == "idle", "idle")

    def fails_with(text):
        ros.until(lambda: bench.state == "fault", text)
        assert text in node._output.fault
        assert text in bench.ask("reset_fault").message or "left" in text

    waits_for("nobody publishes on /estop")
    button = ros.publisher(Bool, "/estop", LATCHED)
    waits_for("safety_mode is not known")
    mode = ros.publisher(UInt8, "/arm/safety_mode", LATCHED)
    mode.publish(UInt8(data=1))
    waits_for("program is not known")
    assert not bench.hand and not bench.arm
    program = ros.publisher(Bool, "/arm/program", LATCHED)
    program.publish(Bool(data=True))
    ros.until(lambda: bench.state == "idle" and bench.hand, "commands")
    mode.publish(UInt8(data=3))
    fails_with("safety_mode is 3 on /arm/safety_mode; the robot moves with 1, 2")
    mode.publish(UInt8(data=2))
    reset()
    other = ros.node.create_publisher(Float64MultiArray, HAND, 1)
    fails_with(f"others publish on {HAND} as well: /peer; stop them")
    ros.node.destroy_publisher(other)
    reset()
    ros.node.destroy_publisher(button)
    fails_with("emergency stop: a publisher of /estop has left, 0 remain")
    assert "nobody publishes on /estop" in bench.ask("reset_fault").message


def test_a_grasp_begins_only_on_a_plan_that_perception_still_holds(bench, household):
    """The view is lost after the plan was sent and before the grasp is asked for: the arm must not move for nothing."""
    ros, scene = bench.ros, make_scene("plain", household, 3)
    node = bench.start(**{"safety.points_timeout_s": 1.0, "grasp.motion.palm_speed_m_s": 0.02})
    place = pose_to_dict(scene.frame.T_world_cam)
    given = {"bundle": BUNDLE, "camera_pos_m": place["pos_m"], "camera_quat_wxyz": place["quat_wxyz"]}
    overrides = [Parameter(name, value=value) for name, value in (given | {"use_sim_time": True}).items()]
    ros.add(PerceptionNode(context=ros.context, parameter_overrides=overrides))
    camera = "/camera/camera/depth/"
    info, depth = ros.publisher(CameraInfo, f"{camera}camera_info"), ros.publisher(Image, f"{camera}image_rect_raw")
    seen_m, nothing_m = scene.frame.depth_m, np.zeros_like(scene.frame.depth_m)

    def look(depth_m):
        stamp_s = bench.now_s
        info.publish(message_conversions.info_from_intrinsics(scene.frame.intrinsics, stamp_s, "camera"))
        ros.spin(0.02)
        depth.publish(message_conversions.image_from_depth(depth_m, stamp_s, "camera"))
        ros.spin(0.03)

    def planned():
        look(seen_m)
        return node._inputs().plan is not None

    ros.until(planned, "a plan")
    look(nothing_m)
    assert node._inputs().now_s - node._inputs().plan_stamp_s < 1.0  # young enough
    refused = bench.ask("grasp")
    assert (refused.success, refused.message) == (
        *(False, "perception refuses: no first view: 0 of 12 frames agree: is anything moving?"),
    )
    ros.spin(0.2)
    assert [message.data for message in bench.states] == ["idle"]
    ros.until(lambda: look(seen_m) or bench.ask("grasp").success, "a grasp on the next plan")
    ros.until(lambda: bench.state == "pregrasp", "pregrasp")
    for _ in range(20):
        look(seen_m)
    assert bench.state == "pregrasp"
    ros.until(lambda: bench.state == "fault", "that points are too old")  # the camera is silent
    assert "pregrasp: points: 1." in node._output.fault


def test_a_plan_is_refused_for_the_reasons_of_perception(bench):
    bench.start()
    assert bench.ask("grasp").message.startswith("no plan received")
    bench.perceive()
    bench.refusal = "the object moves"
    assert bench.ask("grasp").message == "perception refuses: the object moves"
    bench.refusal, bench.held_id = "", "8"
    assert bench.ask("grasp").message == "perception holds plan 8, received was plan 7: ask again"
    bench.held_id = "the first one"
    assert "answered 'the first one' instead of the id of a plan" in bench.ask("grasp").message
    assert (bench.begun, bench.state) == (3, "idle")
    bench.held_id = bench.plan_id
    assert bench.ask("grasp").message == "grasp: accepted, plan 7"


def test_points_outside_the_workspace_are_refused(bench):
    node = bench.start()
    clouds = bench.ros.publisher(PointCloud2, "/perception/points")
    points = np.random.default_rng(0).uniform(0.0, 0.1, (256, 3)).astype(np.float32)
    points[:, 0] -= np.median(points[:, 0])
    points[17, 0] = 5.0  # one stray pixel
    for far_m, accepted in ((0.0, True), (0.65, True), (0.75, False), (5.0, False)):
        moved = points + np.array([far_m, 0, 0], np.float32)
        clouds.publish(estimate_message(ObjectEstimate(moved, stamp_s=bench.now_s + far_m), "world"))
        if accepted:
            bench.ros.until(lambda moved=moved: _holds(node, moved), f"points {far_m} m away")
        else:
            text = f"the middle of the points at [{far_m:g}, "
            bench.ros.until(lambda text=text: text in node._inputs().input_errors.replace(".0,", ","), "the refusal")
            assert not _holds(node, moved)
    assert node._configured.inputs.refused == {"points": 2}


def _holds(node, points):
    """Whether the newest points that the node accepted are these."""
    estimate = node._inputs().estimate
    return estimate is not None and np.array_equal(estimate.points_w, points)


def test_joint_states_that_stop_are_a_fault(bench):
    bench.start(**bench.relayed(), **{"safety.joints_timeout_s": 1.0})
    bench.perceive()
    assert bench.ask("grasp").success
    bench.ros.until(lambda: bench.state == "pregrasp" and len(bench.arm) > 10, "a motion")
    bench.relaying = False
    lost_s = bench.now_s
    bench.ros.until(lambda: bench.state == "fault", "the fault")
    assert 0.9 < bench.now_s - lost_s < 1.8
    assert "readings: " in bench.report("grasp: state", message_conversions.ERROR)[0]
    bench.relaying = True
    bench.ros.spin(0.3)
    assert bench.state == "fault"
    assert bench.ask("reset_fault").success


def test_malformed_joint_states_are_reported_and_start_nothing(bench):
    changes = {
        "unknown joints ['left_": lambda m: setattr(m, "name", [f"left_{name}" for name in m.name]),
        "lack ['thj3']": lambda m: m.name.pop() and m.position.pop(),
        "expected one per name": lambda m: m.position.pop(),
        "not finite": lambda m: m.position.__setitem__(0, float("nan")),
        "stamp is empty": lambda m: setattr(m.header, "stamp", message_conversions.to_stamp(0.0)),
    }
    node = bench.start(active=False, **bench.relayed())
    bench.relaying = False
    wrong = bench.ros.publisher(JointState, "/hand_states", SENSOR)
    newest = message_conversions.joints_from_message(bench.joints[-1])
    names = CONTRACT.hand.joint_names
    for count, (reason, change) in enumerate(changes.items(), 1):
        message = message_conversions.joint_message(names, [newest[name] for name in names], bench.now_s)
        change(message)
        wrong.publish(message)
        robot = node._configured.robot
        bench.ros.until(lambda reason=reason, robot=robot: reason in robot.errors, reason)
        assert robot.refused == count
    bench.ros.until(  # a report from before the last message may be on its way
        lambda: bench.report("grasp: inputs", message_conversions.ERROR)[1]["joints_refused"] == "5", "all five"
    )
    text, _ = bench.report("grasp: inputs", message_conversions.ERROR)
    assert "stamp is empty" in text
    assert not bench.hand and not bench.arm
    assert not bench.ask("grasp").success
    assert node._output.safe is None


def test_a_dry_run_goes_through_the_sequence_and_sends_nothing_to_the_robot(bench):
    preview = bench.ros.listen(Float64MultiArray, "/preview" + HAND)
    bench.start(dry_run=True)
    bench.perceive()
    assert bench.ask("grasp").success
    bench.ros.until(lambda: bench.state == "hold", "hold", 120.0)
    assert len(preview) > 50
    assert not bench.hand and not bench.arm
    assert bench.ros.node.count_publishers(HAND) == 0


def test_in_shadow_mode_it_says_what_it_would_do(bench):
    bench.start(shadow=True, **{"grasp.shadow_m": 1.0, "grasp.shadow_rad": 3.0})
    bench.perceive()
    assert bench.ask("grasp").success
    bench.ros.until(lambda: bench.state == "grasp", "the policy")
    bench.ros.until(
        lambda: "policy and robot differ by" in bench.report("grasp: shadow")[0], "what the policy would do"
    )
    text, values = bench.report("grasp: shadow")
    assert "policy and robot differ by" in text
    assert float(values["palm_m"]) > 0.01
    assert not bench.hand and not bench.arm


def test_inactive_it_is_silent(bench):
    bench.start(active=False, autostart=False)
    ros = bench.ros
    assert ros.call(GetState, "/grasp/get_state").current_state.label == "unconfigured"
    assert "not configured" in bench.ask("grasp").message
    for step, label in (
        (Transition.TRANSITION_CONFIGURE, "inactive"),
        (Transition.TRANSITION_ACTIVATE, "active"),
        (Transition.TRANSITION_DEACTIVATE, "inactive"),
    ):
        if label == "active":
            ros.spin(0.5)
            assert not bench.hand and not bench.arm
            assert bench.ask("grasp").message == "the node is not active"
        request = ChangeState.Request()
        request.transition.id = step
        assert ros.call(ChangeState, "/grasp/change_state", request).success
        assert ros.call(GetState, "/grasp/get_state").current_state.label == label
        ros.spin(0.3)
    ros.spin(0.3)
    sent = len(bench.hand)
    assert sent
    ros.spin(0.5)
    assert len(bench.hand) == sent
    request.transition.id = Transition.TRANSITION_CLEANUP
    assert ros.call(ChangeState, "/grasp/change_state", request).success


def renamed_bundle(folder, name):
    """Write a copy of the shipped bundle for a hand of another name."""
    shutil.copytree(BUNDLE, folder)
    contract = json.loads((folder / "contract.json").read_text())
    contract["hand"]["name"] = name
    contract["sha256"] = contract_sha256(contract)
    (folder / "contract.json").write_text(json.dumps(contract))
    return str(folder)


@pytest.mark.parametrize("described", [False, True])
def test_a_real_robot_with_an_unknown_hand_needs_its_hand_yaml(ros, described, tmp_path):
    bundle, hand_file = renamed_bundle(tmp_path / "bundle", "my_hand"), tmp_path / "described.yaml"
    text = (assets.path("hands/allegro") / "hand.yaml").read_text()
    hand_file.write_text(text.replace("name: allegro", "name: my_hand"))
    given = {"bundle": bundle, "robot": "real", "autostart": False, "hand_file": str(hand_file) if described else ""}
    overrides = [Parameter(name, value=value) for name, value in given.items()]
    node = ros.add(GraspNode(context=ros.context, parameter_overrides=overrides))
    node.trigger_configure()
    assert ("give the hand.yaml of the hand as hand_file" in node._refusal) is not described
    assert node._refusal  # the driver is one of the Allegro


def test_a_transition_at_the_wrong_time_does_not_end_the_node(ros, tmp_path):
    with Process("dexgrasp_ros.nodes.grasp_node", tmp_path, node="alone", bundle=BUNDLE, autostart=False) as process:
        client = ros.node.create_client(ChangeState, "/alone/change_state")
        ros.until(client.service_is_ready, "the service")
        early, in_time = ChangeState.Request(), ChangeState.Request()
        early.transition.id, in_time.transition.id = Transition.TRANSITION_ACTIVATE, Transition.TRANSITION_CONFIGURE
        client.call_async(early)
        ros.until(lambda: "does not allow" in process.text(), "the refusal")
        assert ros.call(ChangeState, "/alone/change_state", in_time).success


@pytest.mark.parametrize("number", [signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.slow)])
def test_a_signal_leaves_the_robot_holding_where_it_is(bench, number):
    module, folder = "dexgrasp_ros.nodes.grasp_node", bench.folder
    with Process(module, folder, bundle=BUNDLE, use_sim_time=True, **QUICK) as process:
        bench.ros.until(lambda: len(bench.hand) > 5 or not process.alive(), "commands", 180.0)
        assert process.alive(), process.text()
        bench.perceive()
        assert bench.ask("grasp").success
        bench.ros.until(lambda: bench.state == "pregrasp" and len(bench.arm) > 15, "a motion")
        process.send(number)
        bench.ros.until(lambda: not process.alive(), "the end")
        assert process.wait() == 0, process.text()
    bench.ros.spin(0.3)
    held, _ = message_conversions.trajectory_point(bench.arm[-1])
    before, _ = message_conversions.trajectory_point(bench.arm[-2])
    measured = [message_conversions.joints_from_message(message) for message in bench.joints[-200:]]
    gap = min(max(abs(joints[name] - held[name]) for name in held) for joints in measured)
    assert gap < 1e-6  # exactly where the arm was measured at some time
    assert before != held
    assert bench.states[-1].data == "idle"


@pytest.mark.parametrize(
    ("parameters", "reason"),
    [
        ({"bundle": "/nowhere"}, "/nowhere/contract.json is missing"),
        ({"hand": "sim_leap"}, "is a driver of the hand leap, the policy is for allegro"),
        ({"arm": "ur10"}, "no arm 'ur10'; shipped:"),
        ({"arm": "cartesian_pose"}, "palm_pose_source:=topic"),
        ({"robot": "real"}, "no joint test of this hand is recorded"),
        ({"public_key": "/nowhere.pem"}, "no public key: there is no file /nowhere.pem"),
    ],
)
def test_it_refuses_to_start_with_the_reason(ros, tmp_path, parameters, reason):
    given = {"bundle": BUNDLE, "wave_test": str(tmp_path / "wave.json")} | parameters
    with pytest.raises(ValueError, match=reason):
        GraspNode(context=ros.context, parameter_overrides=[Parameter(name, value=v) for name, v in given.items()])


def test_a_real_robot_needs_a_wave_test_of_the_very_description(ros, tmp_path):
    path, cfg = tmp_path / "wave.json", load("hands", "sim_allegro")
    names = CONTRACT.hand.joint_names
    write_record(path, cfg, names[:-1])
    assert "did not include ['thj3']" in check_record(path, cfg, names)
    write_record(path, cfg, names)
    assert check_record(path, cfg, names) == ""
    assert "has changed since" in check_record(path, load("hands", "allegro_v4"), names)
    given = {"bundle": BUNDLE, "robot": "real", "wave_test": str(path)}
    ros.add(GraspNode(context=ros.context, parameter_overrides=[Parameter(name, value=v) for name, v in given.items()]))
    path.write_text(json.dumps({"version": 0}))
    assert "has version 0, not 2" in check_record(path, cfg, names)
    path.write_text("{")
    assert "cannot be read" in check_record(path, cfg, names)
