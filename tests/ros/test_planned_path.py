"""Planned paths to the pre-grasp: spacing of their poses, what is refused, and that a refusal changes nothing."""

import itertools
import math

import numpy as np
import pytest

from dexgrasp.utils.rotations import Pose
from dexgrasp_ros.approach.planned_path import NOT_PLANNED, SPACING_RAD, PlannedPath, interpolated, path_of_waypoints
from dexgrasp_ros.grasping.scripted_motions import MotionCfg, ScriptedMotion, approach_along
from tests.helpers.fake_robot import DOWN, DT, GOAL, HOME, Wild, World, in_state, open_pose


def poses(*positions):
    return PlannedPath(tuple(Pose(np.array(pos, float), DOWN) for pos in positions))


def detour():
    """From HOME to GOAL by a place beside the straight line, 5 mm apart."""
    corners = [HOME.pos_m, np.array([0.2, 0.3, 0.4]), GOAL.pos_m]
    way = [a + s * (b - a) for a, b in itertools.pairwise(corners) for s in np.linspace(0, 1, 100)]
    return poses(*way)


def planned_world(**cfg):
    world = World(Wild(), **cfg)
    world.machine._planned_approach = True
    return world.begin()


def test_two_waypoints_are_interpolated_in_joint_space():
    rows = interpolated(np.array([[0.0, 0.0], [1.0, -0.5], [1.0, 0.0]]))
    steps = np.abs(np.diff(rows, axis=0)).max(axis=1)
    assert len(rows) == 1 + math.ceil(1.0 / SPACING_RAD) + math.ceil(0.5 / SPACING_RAD)
    assert steps.max() <= SPACING_RAD + 1e-12
    np.testing.assert_allclose(rows[25], [0.5, -0.25])
    np.testing.assert_allclose(rows[-1], [1.0, 0.0])


@pytest.mark.parametrize("waypoints", [[], [[math.nan, 0.0]], [[0.0, 0.0], [math.inf, 0.0]], [0.0, 1.0]])
def test_waypoints_that_are_none_are_refused(waypoints):
    with pytest.raises(ValueError, match="finite joint positions"):
        path_of_waypoints(waypoints, lambda rows: [HOME] * len(rows))


def test_an_endless_path_is_refused():
    with pytest.raises(ValueError, match="moves joints by 80 rad in all"):
        interpolated(np.array([[0.0], [40.0], [0.0]]))


def test_the_palm_keeps_its_speed_along_fine_poses_and_leaves_none_out():
    cfg = MotionCfg(palm_speed_m_s=0.2)
    path = detour()
    script = ScriptedMotion(approach_along(path.poses, GOAL, np.zeros(2)), HOME, np.zeros(2), cfg, DT)
    way = [HOME.pos_m]
    while not script.done:
        way.append(script.step(script.palm, script.fingers)[0].pos_m)
        assert len(way) < 1000
    length_m = sum(a.distance_m(b) for a, b in itertools.pairwise(path.poses))
    steps = np.linalg.norm(np.diff(way, axis=0), axis=1)
    assert steps.max() <= 0.01 + 1e-9  # 0.2 m/s at 20 Hz
    assert len(way) - 1 == pytest.approx(length_m / 0.01, abs=3)
    on_path = np.array([pose.pos_m for pose in path.poses])
    assert max(np.linalg.norm(on_path - point, axis=1).min() for point in way) < 0.003
    assert np.linalg.norm(np.array(way) - [0.2, 0.3, 0.4], axis=1).min() < 0.006


def test_a_grasp_follows_the_planned_path():
    world = planned_world()
    assert world.ask("grasp", path=detour()) == ""
    world.run_until("grasp")
    way = np.array([output.safe.palm_pos_w for output in world.outputs])
    assert np.linalg.norm(way - [0.2, 0.3, 0.4], axis=1).min() < 0.03
    assert world.palm.distance_m(GOAL) < 0.02


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        (None, NOT_PLANNED),
        (poses(GOAL.pos_m, GOAL.pos_m), "begins 0.3"),
        (poses(HOME.pos_m, HOME.pos_m), "ends 0.3"),
        (poses(HOME.pos_m, [0.0, 0.0, 0.03], GOAL.pos_m), r"leads the palm through [0.0, 0.0, 0.03] m"),
        (PlannedPath((Pose(HOME.pos_m, np.array([1.0, 0, 0, 0])), GOAL)), "rad from the last command"),
    ],
)
def test_a_refused_path_changes_neither_state_nor_attempts(path, reason):
    world = planned_world(attempts=2)
    machine = world.machine
    before = machine.state, machine._attempts_left, machine._plan, machine._script
    assert reason in world.ask("grasp", path=path, plan_refused="perception was asked")
    assert (machine.state, machine._attempts_left, machine._plan, machine._script) == before
    assert world.tick().state == "idle"


def test_a_regrasp_without_a_path_waits_and_counts_no_attempt():
    world = in_state("retreat")
    world.machine._planned_approach = True
    while not world.machine.awaits_plan(world.inputs()):
        world.tick()
    left = world.machine._attempts_left
    for _ in range(10):
        assert world.tick().state == "retreat"
    assert world.tick(path=poses(GOAL.pos_m)).state == "retreat"  # of an earlier question
    assert world.machine._attempts_left == left
    here = world.machine.last_sent()[1]
    assert world.tick(path=PlannedPath((here, GOAL))).state == "pregrasp"


def test_a_blend_in_begins_at_the_last_command_and_ends_at_the_policy():
    """The policy asks for 0.3 rad more at once; a quarter of it is commanded after each of four periods."""
    world = World(Wild(), blend_s=4 * DT).begin()
    assert world.ask("grasp") == ""
    world.run_until("pregrasp")
    while world.tick().state == "pregrasp":
        world.machine._policy.answer = 0.0
    fingers = open_pose()
    found = world.machine._blend_in(fingers, world.palm, world.machine._blend_from[2])[0]
    first = world.machine._blend_from[0]
    np.testing.assert_allclose(found, first + 0.25 * (fingers - first))
    end_s = world.machine._blend_from[2] + 3 * DT
    np.testing.assert_array_equal(world.machine._blend_in(fingers, world.palm, end_s + 1e-9)[0], fingers)
    assert world.machine._blend_from is None
