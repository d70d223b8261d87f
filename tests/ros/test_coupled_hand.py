"""A hand of six motors and twelve joints on the robot side: contract, gate, drivers, from training to a grasp."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from dexgrasp import assets, configs
from dexgrasp.perception.motors import Coupling
from dexgrasp.perception.transforms import quat_rotate
from dexgrasp.policies.agents.checkpoint import load_checkpoint
from dexgrasp.policies.deploy.bundle import read_contract, write_contract
from dexgrasp.policies.deploy.policy import Command, Policy
from dexgrasp.policies.deploy.safety_gate import DesiredCommand, MeasuredState, SafetyCfg, SafetyGate
from dexgrasp.policies.export.controller import DeployableController
from dexgrasp.policies.export.export import ExportCfg, export, make_contract
from dexgrasp.policies.networks.student import StudentPolicy
from dexgrasp.policies.training.config import TrainCfg
from dexgrasp.sim.robots.hand import HandSpec
from dexgrasp.sim.sensors.point_camera import POINTS
from dexgrasp.sim.task.grasp_task import TaskCfg
from dexgrasp.sim.task.observations import observation_layouts
from dexgrasp.utils.rotations import Pose
from dexgrasp_ros.drivers.adapters import JointAdapter
from dexgrasp_ros.drivers.arm_kinematics import ArmKinematics
from dexgrasp_ros.drivers.config import AdapterCfg, AdapterError, CommandCfg, StateCfg, load
from dexgrasp_ros.drivers.joint_states import JointStates
from dexgrasp_ros.grasping.state_machine import GraspStateMachine
from dexgrasp_ros.grasping.types import GraspCfg, Inputs
from dexgrasp_ros.identification.excitation import ExcitationCfg
from dexgrasp_ros.identification.hand_model import load_hand
from dexgrasp_ros.object_estimate import ObjectEstimate
from dexgrasp_ros.perception.pregrasp_planner import GraspPlanner
from dexgrasp_ros.replay.bag import Bag
from dexgrasp_ros.simulation.sim_robot import SimRobot, SimRobotCfg
from tests.helpers import six_motor_hand as six
from tests.helpers.untrained_checkpoint import save

PERIOD_S = 0.05
OBJECT = "9"
"""Object on the table, by number in the shipped library."""
BUSY = {"safety.joints_timeout_s": 1.0, "safety.points_timeout_s": 1.0, "grasp.late_periods": 40.0}
"""Limits for a busy machine: ages of readings and points [s], periods between ticks; the robot is simulated."""
FOLLOWERS = list(six.RESOLVED)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return six.write(tmp_path_factory.mktemp("six"), "yaml").parent


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Folder of an untrained student."""
    return tmp_path_factory.mktemp("run")


@pytest.fixture(scope="module")
def contract(folder, run):
    """The contract of an untrained student."""
    task = TaskCfg()
    hand = HandSpec.load(folder)
    policy = StudentPolicy(observation_layouts(hand, task.camera.live), hand.num_actions, "conv", hidden=(16,))
    save(run, policy, TrainCfg(stage="student", hand=str(folder), history_encoder="conv", task=task, hidden=(16,)))
    checkpoint = load_checkpoint(run)
    controller = DeployableController(checkpoint.actor, checkpoint.hand, checkpoint.task, POINTS)
    inputs = {name: shape.size for name, shape in controller.inputs.items()}
    assert {name: inputs[name] for name in ("joint_pos", "joint_target", "closing", "last_action")} == {
        "joint_pos": (12,),
        "joint_target": (6,),
        "closing": (6,),
        "last_action": (12,),
    }
    return make_contract(checkpoint, controller)


def driver(names=(), **units):
    """Description of a driver that moves the six motors, and reports them and the joints `names`."""
    own = [*six.MOTORS, *names]
    command = CommandCfg(type="float64_array", topic="/hand", joints=tuple(f"d_{name}" for name in six.MOTORS), **units)
    state = StateCfg(topic="/joint_states", names={name: f"d_{name}" for name in own})
    return AdapterCfg(command=command, source="a test", hand="six_motors", state=state)


def joints_of(contract, motors):
    """All joints for motors worked by hand from the statement of the couplings."""
    found = dict(zip(six.MOTORS, motors, strict=True))
    found |= {joint: ratio * found[motor] + offset for joint, (motor, ratio, offset) in six.RESOLVED.items()}
    return np.array([found[name] for name in contract.hand.joint_names])


def test_a_contract_keeps_couplings_and_one_without_them_is_written_as_before(contract, tmp_path):
    values = contract.hand
    assert values.motors.names == tuple(six.MOTORS)
    assert (len(values.kp_nm_rad), len(values.joint_lower_rad), len(contract.grasp.power.closing)) == (6, 12, 6)
    written = replace(contract, files={"policy.onnx": "0" * 64, "golden.npz": "0" * 64})
    write_contract(tmp_path, written)
    assert read_contract(tmp_path) == replace(written, sha256=read_contract(tmp_path).sha256)
    shipped = assets.path("policies/leap/student/bundle")
    write_contract(tmp_path, read_contract(shipped))
    rewritten = json.loads((tmp_path / "contract.json").read_text())
    assert "coupled" not in rewritten["hand"]
    assert rewritten == json.loads((shipped / "contract.json").read_text())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"coupled": {"index_2": Coupling("ring_2", 1.0), "ring_2": Coupling("ring_1", 1.0)}},
            "must follow joints with motors",
        ),
        ({"coupled": {"nobody": Coupling("index_1", 1.0)}}, r"hand.coupled: \['nobody'\] are not in hand.joint_names"),
        ({"kp_nm_rad": (1.0,) * 12}, "must hold 6 values, one per motor"),
        ({"joint_upper_rad": (0.02,) * 12, "joint_lower_rad": (0.01,) * 12}, "hand.coupled leaves no room to"),
    ],
)
def test_a_contract_with_contradictory_motors_is_refused(contract, change, message):
    with pytest.raises(ValueError, match=message):
        replace(contract.hand, **change)


def test_the_gate_keeps_the_joints_that_follow_within_their_ranges(contract):
    upper = list(contract.hand.joint_upper_rad)
    upper[contract.hand.joint_names.index("index_2")] = 0.951  # index_1 reaches it at 0.901
    hand = replace(contract.hand, joint_upper_rad=tuple(upper))
    gate, palm = SafetyGate(hand, 20.0, SafetyCfg(joint_margin_rad=0.001)), ([0.0, 0.0, 0.3], [1.0, 0.0, 0.0, 0.0])
    joints = joints_of(contract, [0.5, 0.5, 0.5, 0.5, 1.0, 0.2])
    gate.reset(joints, *palm, 0.0)
    for k in range(1, 60):
        now_s = k / 20
        safe = gate(DesiredCommand([5.0] * 6, *palm, now_s), MeasuredState(joints, *palm, now_s), now_s)
        joints = joints_of(contract, safe.joint_target)
    assert safe.fault == "" and safe.effort_limit_nm.shape == (6,)
    assert safe.joint_target[0] == pytest.approx(0.9, abs=2e-3)
    assert safe.joint_target[1] == pytest.approx(1.5, abs=2e-3)
    wrong = joints.copy()
    wrong[contract.hand.joint_names.index("index_2")] = 1.6  # reported, though its motor cannot have moved it there
    gate(DesiredCommand([0.5] * 6, *palm, 3.0), MeasuredState(wrong, *palm, 3.0), 3.0)
    assert "joint index_2 at 1.6 rad is more than 0.5 rad outside its range" in gate.fault


def test_joints_that_a_driver_does_not_report_are_computed_and_others_taken(contract):
    hand, motors = contract.hand, np.array([0.5, 0.6, 0.7, 0.8, 1.0, 0.3])
    adapter = JointAdapter(driver(scale=2.0), hand.joint_names, hand.coupled)
    np.testing.assert_allclose(adapter.command(motors), 2 * motors)
    sent = dict(zip(adapter.cfg.command.joints, 2 * motors, strict=True))
    np.testing.assert_allclose(adapter.read(sent), joints_of(contract, motors))
    both = JointAdapter(driver(["ring_2"], scale=2.0), hand.joint_names, hand.coupled)
    assert both.command(motors).shape == (6,)
    wanted = joints_of(contract, motors)
    wanted[hand.joint_names.index("ring_2")] = 0.11
    np.testing.assert_allclose(both.read(sent | {"d_ring_2": 0.22}), wanted)
    with pytest.raises(ValueError, match=r"joint states lack \['d_ring_2'\]"):
        both.read(sent)
    follower = replace(driver().command, joints=(*driver().command.joints, "d_ring_2"))
    with pytest.raises(AdapterError, match=r"joints and names must list equal driver joints; different: \['d_ring_2'"):
        JointAdapter(replace(driver(["ring_2"]), command=follower), hand.joint_names, hand.coupled)
    missing = {name: f"d_{name}" for name in six.MOTORS[1:]}
    with pytest.raises(AdapterError, match=r"no driver joint for \['index_1'\]"):
        JointAdapter(
            replace(driver(), state=replace(driver().state, names=missing)), hand.joint_names, hand.coupled
        )  # fmt: skip


def test_the_driver_of_the_simulated_robot_commands_motors_and_reports_all_joints(folder, contract):
    made = load("hands", f"sim:{folder}")
    assert set(made.command.joints) == set(six.MOTORS)
    assert set(made.state.names) == set(contract.hand.joint_names)
    adapter = JointAdapter(made, contract.hand.joint_names, contract.hand.coupled)
    assert adapter.command(np.full(6, 0.3)).shape == (6,)


def test_identification_tests_motors_with_the_inertia_of_all_that_they_move(folder):
    model = load_hand(str(folder), ExcitationCfg())
    assert model.motors.names == tuple(six.MOTORS)
    assert model.inertia.shape == model.rest.shape == (6,)
    hand = HandSpec.load(folder)
    alone = hand.armature[hand.motors.joints]
    assert (model.inertia > alone * (1 + 1.1**2)).all() or model.inertia[4] > alone[4]  # rotors of both joints at least
    index = list(hand.motors.names).index("index_1")
    assert model.guess[index].damping == pytest.approx(0.03 * (1 + 1.1**2))
    assert (model.free_lower <= model.rest).all() and (model.rest <= model.free_upper).all()


class Closing:
    """A policy that descends, closes the six motors, and lifts."""

    rate_hz = 20.0

    def __init__(self, contract):
        self.contract, self.step = contract, 0

    @property
    def phase(self):
        return "grasp" if self.step < 36 else "lift" if self.step < 52 else "hold"

    def reset(self, plan):
        self.step, self.plan = 0, plan

    def act(self, observation):
        assert np.shape(observation.joint_pos) == (12,)
        self.step += 1
        normal = quat_rotate(torch.tensor(self.plan.palm_quat_w), torch.tensor([1.0, 0, 0]).double()).numpy()
        pos = np.array(self.plan.palm_pos_w) + normal * float(self.plan.depth_m) * min(self.step / 15, 1.0)
        pos = pos + np.array([0, 0, 0.15 * np.clip((self.step - 36) / 16, 0, 1)])
        motors = self.contract.hand.motors.positions(np.asarray(observation.joint_pos))
        ahead = 0.15 * np.array(self.plan.closing) * (self.step > 15)
        return Command(motors + ahead, pos, np.array(self.plan.palm_quat_w), np.zeros(12), np.array(1.0), np.array(0.0))


def grasp(folder, policy, names=(), seconds=40.0):
    """Grasp an object of the simulated robot; return the states, the fault, and the worst deviation of a joint."""
    robot = SimRobot(SimRobotCfg(hand=str(folder), object=OBJECT, camera_rate_hz=0))
    hand = policy.contract.hand
    arm = ArmKinematics("ur5e", hand, PERIOD_S)
    cfg = driver(names)
    cfg = replace(cfg, command=replace(cfg.command, joints=tuple(six.MOTORS)))
    cfg = replace(cfg, state=replace(cfg.state, names={name: name for name in cfg.state.names}))
    adapters = {"hand": JointAdapter(cfg, hand.joint_names, hand.coupled)}
    adapters["arm"] = JointAdapter(load("arms", "sim_ur5e"), arm.joint_names)
    states = JointStates(adapters)
    machine = GraspStateMachine(policy, GraspCfg(attempts=1), SafetyCfg(), arm.palm(arm.home))
    surface = robot.library[robot.object].points
    chosen = surface[np.random.default_rng(0).integers(len(surface), size=policy.contract.camera.points)]
    goal, plan, seen, worst, motors = arm.home, None, [], 0.0, HandSpec.load(folder).motors
    span = np.array(hand.joint_upper_rad) - np.array(hand.joint_lower_rad)
    for _ in range(round(seconds / PERIOD_S)):
        readings, truth, now_s = robot.read_joints(), robot.ground_truth(), robot.time_s
        values = dict(zip(readings.names, readings.position, strict=True))
        states.update("/joint_states", values, now_s + 1e-6, now_s)
        pose = torch.tensor(truth.object_quat_w).expand(len(chosen), 4)
        points = (quat_rotate(pose, torch.from_numpy(chosen).double()).numpy() + truth.object_pos_w).astype(np.float32)
        plan = plan or GraspPlanner(policy.contract).plan(points, np.array([0.0, 0.0, 0.76]), None)
        palm = arm.palm(states.newest("arm")[0])
        inputs = Inputs(
            now_s=now_s,
            joint_pos=states.newest("hand")[0],
            joints_stamp_s=now_s,
            palm_pos_w=palm.pos_m,
            palm_quat_w=palm.quat,
            palm_stamp_s=now_s,
            estimate=ObjectEstimate(points, stamp_s=now_s),
            plan=plan,
            plan_stamp_s=now_s,
        )
        if not machine.active:
            assert machine.activate(inputs) == ""
            assert machine.request("grasp", inputs) == ""
        safe = machine.tick(inputs).safe
        goal = arm.step_towards(goal, Pose(safe.palm_pos_w, safe.palm_quat_w))
        robot.command("arm", goal, PERIOD_S)
        robot.command("hand", adapters["hand"].command(safe.joint_target), PERIOD_S)
        robot.step_to(now_s + PERIOD_S)
        joints = np.array([values[name] for name in hand.joint_names])
        worst = max(worst, (np.abs(joints - motors.joint_positions(motors.positions(joints))) / span).max())
        seen += [machine.state] if machine.state not in seen[-1:] else []
        if machine.state in ("hold", "fault"):
            break
    return seen, machine.fault, worst, robot.ground_truth()


@pytest.mark.slow
@pytest.mark.parametrize("names", [(), tuple(FOLLOWERS)], ids=["motors reported", "all joints reported"])
def test_the_simulated_robot_grasps_with_six_motors(folder, contract, names):
    states, fault, worst, truth = grasp(folder, Closing(contract), names)
    assert fault == "" and states == ["pregrasp", "grasp", "lift", "hold"]
    assert worst < 0.02
    assert truth.touched and truth.lifted_m > 0.1


@pytest.mark.slow
def test_from_training_to_a_grasp_of_the_simulated_robot(folder, tmp_path):
    pytest.importorskip("onnxscript", reason="needs the extra `export`")
    from dexgrasp.policies.evaluation.config import EvaluateCfg
    from dexgrasp.policies.evaluation.evaluate import evaluate
    from dexgrasp.policies.training.train import train

    few = ["num_envs=8", "validation_trials=4", "num_threads=1", "physics=turbo", "hidden=[64,64]", f"hand={folder}"]
    stages = {"teacher": ["iterations=1"], "student": ["iterations=4", f"teacher={tmp_path / 'teacher'}"]}
    for stage, words in stages.items():
        words = [f"stage={stage}", f"out={tmp_path / stage}", *few, *words]
        train(configs.load(TrainCfg, "train", words))
    words = [f"policy={tmp_path / 'student'}", f"out={tmp_path / 'bundle'}", "trials=10", "physics=turbo"]
    parity = export(configs.load(ExportCfg, "export", words))
    assert max(parity["error"].values()) < 1e-5  # ONNX and checkpoint agree step by step
    policy = Policy.load(tmp_path / "bundle")
    assert policy.motor_names == tuple(six.MOTORS) and len(policy.joint_names) == 12
    words = [f"policy={tmp_path / 'bundle'}", "trials=4", "num_threads=1", "physics=turbo", f"out={tmp_path / 'eval'}"]
    assert evaluate(configs.load(EvaluateCfg, "evaluate", words))["trials"] == 4  # the task agrees at every step
    states, fault, worst, _ = grasp(folder, policy)
    assert fault == "" and states == ["pregrasp", "grasp", "lift", "hold"]
    assert worst < 0.02


@pytest.mark.ros
@pytest.mark.slow
def test_the_nodes_grasp_with_six_motors_over_dds_and_their_bag_comes_out_again(
    folder, contract, run, tmp_path, capsys, monkeypatch
):
    pytest.importorskip("rclpy", reason="needs the extra `ros`")
    pytest.importorskip("onnxscript", reason="needs the extra `export`")
    from dexgrasp.policies.cli import main
    from dexgrasp.sim.robots.capsules import write as write_capsules
    from dexgrasp_ros.simulation import closed_loop
    from tests.helpers.ros import Process, domain

    monkeypatch.setattr(closed_loop, "START_S", 300.0)  # a busy machine
    bundle, body, bag = tmp_path / "bundle", write_capsules(folder), tmp_path / "bag"
    export(configs.load(ExportCfg, "export", [f"policy={run}", f"out={bundle}", "trials=9", "physics=turbo"]))
    hand = {"hand": f"sim:{folder}"}
    perception = hand | {"hand_body": str(body)}
    with domain(tmp_path), Process("dexgrasp_ros.nodes.recorder_node", tmp_path, folder=str(bag)) as recorder:
        robot = {"hand": str(folder), "physics": "balanced"}
        with closed_loop.ClosedLoop(
            bundle, tmp_path / "logs", sim_robot=robot, perception=perception, grasp=hand | BUSY
        ) as loop:
            trial = loop.grasp(OBJECT)
            assert recorder.stop() == 0, recorder.text()  # before the nodes end, which a replay does not know of
    assert trial.state == "hold" and "fault" not in trial.reason, trial
    demand_motors_within_limits(Bag(bag), contract)
    words = [f"policy={bundle}", f"hand=sim:{folder}", f"hand_body={body}", *(f"{k}={v}" for k, v in BUSY.items())]
    assert main.main(["replay", str(bag), *words]) == 0, capsys.readouterr().out
    assert "/hand_controller/joint_trajectory: " in capsys.readouterr().out


def demand_motors_within_limits(bag, contract):
    """Check that joint states hold all joints, and commands the six motors within range and speed."""
    values = contract.hand
    states = [row.message for row in bag.messages({"/joint_states"})]
    assert {name for message in states for name in message.name} > set(values.joint_names)
    commands = [row.message for row in bag.messages({"/hand_controller/joint_trajectory"})]
    assert len(commands) > 50 and {tuple(sorted(row.joint_names)) for row in commands} == {tuple(sorted(six.MOTORS))}
    order = [commands[0].joint_names.index(name) for name in values.motors.names]
    targets = np.array([row.points[-1].positions for row in commands])[:, order]
    joints = values.motors.joint_positions(targets)
    assert (joints > np.array(values.joint_lower_rad) - 1e-6).all()
    assert (joints < np.array(values.joint_upper_rad) + 1e-6).all()
    assert np.abs(np.diff(targets, axis=0)).max() > 0.01  # the hand closes
