"""The perception node and its pure part: what it sees is what the simulator's camera sees."""

from dataclasses import replace

import mujoco
import numpy as np
import pytest
import torch

from dexgrasp import assets
from dexgrasp.perception.cameras.depth import DepthFrame
from dexgrasp.perception.cameras.temporal_filter import FIRST_VIEW_FRAMES
from dexgrasp.perception.occlusion import HandCapsules
from dexgrasp.perception.robot_mask import read_arm_body, read_hand_body
from dexgrasp.perception.segmentation.pipeline import NoObjectError, SegmentationCfg
from dexgrasp.policies.deploy.bundle import read_contract
from dexgrasp.sim.randomization.episode_draws import ResetCfg
from dexgrasp.sim.rendering import offscreen
from dexgrasp.sim.robots.capsules import arm_capsules, hand_capsules, hand_shape, robot_capsules
from dexgrasp.sim.robots.hand import HandSpec
from dexgrasp.sim.robots.mount import attach
from dexgrasp.sim.sensors.config import CameraCfg
from dexgrasp.sim.sensors.depth_camera import CAMERA
from dexgrasp.sim.task.grasp_task import GraspTask, TaskCfg
from dexgrasp.sim.task.reset import PregraspPlanner
from dexgrasp_ros.perception.config import hand_body
from dexgrasp_ros.perception.object_observer import ObjectObserver, RobotState
from dexgrasp_ros.perception.state_machine import FrameError, PerceptionSetup, PerceptionStateMachine

BUNDLE = "policies/allegro/student/bundle"
SAME_M = 2e-6
"""Poses of the robot are in single precision here, in double there."""
ROWS = 2


@pytest.fixture(scope="module")
def contract():
    return read_contract(assets.path(BUNDLE))


@pytest.fixture(scope="module")
def body(contract):
    return hand_body(assets.path("hands/allegro"), contract.hand)


def with_camera(contract, **camera):
    return replace(contract, camera=replace(contract.camera, **camera))


@pytest.mark.parametrize("name", assets.names("hands"))
@pytest.mark.parametrize("side", ["right", "left"])
def test_capsules_read_from_the_file_are_those_made_from_the_model(name, side):
    hand = HandSpec.load(name, side)
    read = read_hand_body(
        assets.path(f"hands/{name}"),
        side=side,
        kinematics=hand.kinematics().to_dict(),
        palm_pos_b=hand.palm_pos_b.tolist(),
        palm_quat_b=hand.palm_quat_b.tolist(),
    )
    made = hand_shape(hand)
    assert read.outline.body == made.body

    def sticks(shape: HandCapsules):  # the two ends of a mirrored capsule may change places
        middle, axis = (shape.start + shape.end) / 2, ((shape.end - shape.start) / 2).abs()
        rows = torch.cat([torch.tensor(shape.body)[:, None], middle, axis, shape.radius_m[:, None]], dim=1)
        return sorted([round(1e4 * value) for value in row] for row in rows.tolist())

    assert sticks(read.outline) == sticks(made)


@pytest.mark.parametrize("name", assets.names("hands"))
def test_the_shipped_capsule_files_are_up_to_date(name):
    import json

    stored = json.loads(assets.path(f"hands/{name}/capsules.json").read_text())
    assert stored == hand_capsules(assets.path(f"hands/{name}"))
    assert json.loads(assets.path("arms/ur5e/capsules.json").read_text()) == arm_capsules("ur5e")


def test_capsules_of_hand_and_arm_stand_where_the_simulator_has_them(contract, body, allegro):
    spec = mujoco.MjSpec()
    attach(spec, allegro, "ur5e")
    model = spec.compile()
    data = mujoco.MjData(model)
    rng = np.random.default_rng(0)
    arm = read_arm_body(assets.path("arms/ur5e"))
    q_arm, q_hand = rng.uniform(-1, 1, 6), rng.uniform(0, 1, 16)
    for names, values in ((arm.joint_names, q_arm), (allegro.joint_names, q_hand)):
        for name, value in zip(names, values, strict=True):
            data.joint(name).qpos = value
    mujoco.mj_kinematics(model, data)
    truth = robot_capsules(model, data, range(model.ngeom))
    base, quat = torch.tensor(data.body("palm").xpos), torch.tensor(data.body("palm").xquat)
    from dexgrasp.perception.transforms import compose

    palm = compose(base, quat, torch.tensor(allegro.palm_pos_b), torch.tensor(allegro.palm_quat_b))
    found = [arm.capsules(torch.tensor(q_arm)), body.capsules(*palm, torch.tensor(q_hand))]
    start, end, radius = (np.concatenate([getattr(part, key) for part in found]) for key in
                          ("start_w", "end_w", "radius_m"))  # fmt: skip
    order, theirs = (np.lexsort(np.round(rows, 4).T) for rows in (start, truth.start_w))
    np.testing.assert_allclose(start[order], truth.start_w[theirs], atol=2e-6)
    np.testing.assert_allclose(end[order], truth.end_w[theirs], atol=2e-6)
    np.testing.assert_allclose(radius[order], truth.radius_m[theirs], atol=1e-7)


@pytest.fixture(scope="module")
def make(household, balanced, allegro):
    try:
        offscreen.backend()
    except offscreen.RenderUnavailable as error:
        pytest.skip(str(error))

    def build(mode, camera="overhead"):
        view = CameraCfg(
            mode=mode, model="rendered", frame_interval_steps=2, hold_frame_interval_steps=2, latency_steps=0
        )
        cfg = replace(
            TaskCfg(grasp_s=0.5, lift_s=0.4, hold_s=0.1), camera=view, reset=ResetCfg(camera_placement=camera)
        )
        task = GraspTask(cfg, allegro, household, balanced, ROWS, 1, in_order=True, auto_reset=False)
        task.reset(range(ROWS))
        return task

    return build


def shown(task, row, step):
    """The frame that the task's camera took of a row at this step."""
    camera, zero = task.object_camera.camera, torch.zeros(3)
    model, data = task.engine.get_model(row), task.engine.get_data(row)
    return camera.render(row, model, data, task.object_camera.camera_w[row], bias_w=zero, step=step)[0]


def look(observer, frame):
    for _ in range(FIRST_VIEW_FRAMES - 1):
        assert observer.observe(frame) is None
    return observer.observe(frame)


def robot_of(task, row):
    sensed = task.sensed
    values = (sensed.joint_pos, sensed.palm_pos_w, sensed.palm_quat_w)
    return RobotState(*(value[row].double().numpy() for value in values))


@pytest.mark.parametrize(
    "mode",
    ["first_frame", *(pytest.param(mode, marks=pytest.mark.slow) for mode in ("latest", "tracked")), "tracked_updated"],
)
def test_the_watcher_knows_of_the_object_what_the_view_of_the_simulator_knows(make, contract, body, mode):
    task = make(mode)
    observers = []
    for row in range(ROWS):
        seed = task.object_camera.camera.seed(row)
        observer = ObjectObserver(with_camera(contract, mode=mode, min_points=8), CAMERA, hand=body, seed=seed)
        estimate = look(observer, shown(task, row, 0))
        np.testing.assert_allclose(estimate.points_w, task.object_camera.points_w[row], atol=0)
        observer.start_grasp()
        observers.append(observer)
    shares = []
    for step in range(1, task.episode_steps + 1):
        task.step(torch.zeros(ROWS, 22))
        held = step > task.grasp_steps
        for row, observer in enumerate(observers):
            if step % 2:
                observer.move_with_palm(robot_of(task, row), held)
            else:
                observer.update(shown(task, row, step), robot_of(task, row), held)
            estimate = observer.estimate(0.0)
            np.testing.assert_allclose(estimate.points_w, task.object_camera.points_w[row], atol=SAME_M)
            assert estimate.visible_fraction == pytest.approx(float(task.object_camera.visible_fraction[row]), abs=1e-6)
            assert estimate.view_fresh == bool(task.object_camera.fresh[row])
        shares.append(estimate.visible_fraction)
    assert mode == "first_frame" or min(shares) < 0.8  # the hand did hide something
    assert (
        np.linalg.norm(estimate.points_w.mean(0) - observers[-1]._first_view[0].points_w.mean(0)) > 0.03
    )  # and lifted


@pytest.mark.parametrize("camera", ["overhead", "side"])
def test_the_plan_is_that_of_the_simulator_without_its_noise(make, contract, body, allegro, camera):
    task = make("first_frame", camera)
    planner = PregraspPlanner(allegro, "floating", task.cfg.reset)
    draws = task.draws.rows(torch.arange(ROWS))
    quiet = {name: torch.zeros_like(getattr(draws, name)) for name in ("standoff", "palm_offset", "roll", "tilt")}
    above_w = torch.cat([task.object_camera.points_w.mean(dim=1)[:, :2], torch.full((ROWS, 1), 0.76)], dim=1).double()
    origin_w = task.object_camera.camera_w if camera == "overhead" else above_w
    expected = planner(task.object_camera.points_w, origin_w, replace(draws, **quiet))
    for row in range(ROWS):
        observer = ObjectObserver(contract, CAMERA, hand=body, seed=task.object_camera.camera.seed(row))
        estimate = look(observer, shown(task, row, 0))
        plan, style = estimate.plan, expected.style
        np.testing.assert_allclose(plan.palm_pos_w, expected.palm_pos_w[row], atol=1e-9)
        np.testing.assert_allclose(plan.palm_quat_w, expected.palm_quat_w[row], atol=1e-9)
        np.testing.assert_allclose(plan.depth_m, expected.depth_m[row], atol=1e-9)
        np.testing.assert_allclose(plan.closing, style.closing[row], atol=1e-12)
        np.testing.assert_allclose(plan.floor_m, style.floor_m[row], atol=1e-9)
        np.testing.assert_allclose(plan.joint_pos, style.open_pose[row], atol=1e-12)


def stairs(left_m, right_m):
    """From 0.7 m above a table: a block of 8 cm by 6 cm, of one height left and another right."""
    T = np.array([[1.0, 0, 0, 0], [0, -1, 0, 0], [0, 0, -1, 0.7], [0, 0, 0, 1]])
    x, y = CAMERA.rays() * 0.65  # where rays are 5 cm above the table
    height = np.where(np.abs(y) < 0.03, np.where(np.abs(x) < 0.04, np.where(x < 0, left_m, right_m), 0.0), 0.0)
    return DepthFrame((0.7 - height).astype(np.float32), CAMERA, 0.0, T)


def two_blocks():
    """From 0.7 m above a table: blocks of 4 by 6 cm, 6 cm high, 12 cm to the left and to the right of the middle."""
    T = np.array([[1.0, 0, 0, 0], [0, -1, 0, 0], [0, 0, -1, 0.7], [0, 0, 0, 1]])
    x, y = CAMERA.rays() * 0.65
    height = np.where((np.abs(y) < 0.03) & (np.abs(np.abs(x) - 0.12) < 0.02), 0.06, 0.0)
    return DepthFrame((0.7 - height).astype(np.float32), CAMERA, 0.0, T)


@pytest.mark.parametrize("side", [-1, 1])
def test_the_best_object_is_one_that_the_robot_can_reach_and_its_plan_is_that_of_the_object_alone(contract, body, side):
    def reachable(pos_w, _):
        return side * pos_w[:, 0] > 0

    wanted = {"segment": SegmentationCfg(target="best"), "reachable": reachable}
    observer = ObjectObserver(contract, CAMERA, hand=body, **wanted)
    estimate = look(observer, two_blocks())
    assert (side * estimate.points_w[:, 0]).min() > 0.09 and side * estimate.plan.palm_pos_w[0] > 0
    at = SegmentationCfg(target=f"{side * 0.12},0,0.05")
    alone = look(ObjectObserver(contract, CAMERA, hand=body, segment=at, reachable=reachable), two_blocks())
    assert np.array_equal(alone.points_w, estimate.points_w)
    assert np.array_equal(alone.plan.palm_pos_w, estimate.plan.palm_pos_w)
    nothing = {"segment": SegmentationCfg(target="best"), "reachable": lambda pos_w, _: pos_w[:, 0] > 9}
    with pytest.raises(NoObjectError, match="no object can be grasped"):
        ObjectObserver(contract, CAMERA, hand=body, **nothing).observe(two_blocks())


def test_another_target_is_looked_at_anew_and_refused_in_a_grasp_or_outside_the_image(contract, body):
    frame = two_blocks()
    setup = PerceptionSetup(contract, frame.T_world_cam, body, segment=SegmentationCfg(target="-0.12,0,0.05"))
    machine = PerceptionStateMachine(setup)
    machine.on_camera_info(CAMERA)
    stamps = iter(np.arange(1.0, 9.0, 0.03))

    def looked():
        for _ in range(FIRST_VIEW_FRAMES - 1):
            assert machine.on_depth(frame.depth_m, next(stamps)) is None
        return machine.on_depth(frame.depth_m, next(stamps))

    left = looked()
    assert left.points_w[:, 0].max() < 0 and left.plan.palm_pos_w[0] < 0
    machine.choose("0.12,0,0.05")
    with pytest.raises(FrameError, match="no first view: no frame received"):
        machine.begin()  # the plan of the other object is not confirmed
    right = looked()
    assert right.points_w[:, 0].min() > 0 and right.plan.palm_pos_w[0] > 0 and right.plan_id > left.plan_id
    for text, reason in (("700,3", "lies outside the image"), ("left", "target: expected"), ("label:3", "give labels")):
        with pytest.raises(FrameError, match=reason):
            machine.choose(text)
    assert machine.begin() == right.plan_id  # a refused target loses nothing
    machine.on_grasp_state("pregrasp")
    with pytest.raises(FrameError, match="the target changes between grasps, not in pregrasp"):
        machine.choose("nearest")


def test_another_object_in_the_same_place_is_looked_at_anew(contract, body):
    observer = ObjectObserver(contract, CAMERA, hand=body)
    assert look(observer, stairs(0.07, 0.03)).plan is not None
    assert observer.observe(stairs(0.07, 0.03)) is not None
    assert observer.observe(stairs(0.03, 0.07)) is None  # as many pixels, its middle where the first one's was
    assert observer.frames_agreeing == 1


def test_after_an_empty_grasp_another_one_is_planned_until_the_robot_rests(contract, body):
    observer = ObjectObserver(contract, CAMERA, hand=body)

    def planned():
        plan = look(observer, stairs(0.05, 0.05)).plan
        observer.start_grasp()
        return np.concatenate([plan.palm_pos_w, plan.palm_quat_w, plan.joint_pos])

    first = planned()
    observer.end_grasp(empty=True)
    second = planned()
    observer.end_grasp(empty=True)
    assert min(np.abs(second - first).max(), np.abs(planned() - first).max()) > 0.02
    observer.end_grasp(empty=False)
    np.testing.assert_array_equal(planned(), first)


def test_a_grasp_that_is_announced_freezes_the_view_until_it_starts_or_a_second_has_passed(contract, body):
    watcher = PerceptionStateMachine(PerceptionSetup(contract, stairs(0.05, 0.05).T_world_cam, body))
    watcher.on_camera_info(CAMERA)
    frame_s = 0.0

    def frames(number, depth_m):
        nonlocal frame_s
        for _ in range(number):
            frame_s += 0.1
            estimate = watcher.on_depth(depth_m, round(frame_s, 6))
        return estimate

    scene, other = stairs(0.07, 0.03).depth_m, stairs(0.03, 0.07).depth_m
    with pytest.raises(FrameError, match="no first view: no frame received"):
        watcher.begin()
    frames(5, scene)
    with pytest.raises(FrameError, match="no first view: 5 of 12 frames agree"):
        watcher.begin()
    seen = frames(7, scene)
    assert watcher.begin() == seen.plan_id
    frozen = frames(9, other)  # it is not looked at
    np.testing.assert_array_equal(frozen.points_w, seen.points_w)
    assert (frozen.plan, watcher.begin()) == (None, seen.plan_id)
    assert frames(11, other) is None  # no grasp has started: a new view is gathered
    with pytest.raises(FrameError, match="of 12 frames agree"):
        watcher.begin()
    later = frames(12, other)
    assert later.plan_id > seen.plan_id
    assert watcher.begin() == later.plan_id
    watcher.on_grasp_state("pregrasp")
    np.testing.assert_array_equal(frames(30, scene).points_w, later.points_w)  # the grasp has started in time
    with pytest.raises(FrameError, match="no grasp begins in pregrasp"):
        watcher.begin()
    watcher.on_grasp_state("idle")
    assert frames(1, scene) is None
