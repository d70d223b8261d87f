"""Films of trials: the hand stays in the picture, fingers have names, the inset shows what the policy gets."""

from itertools import pairwise

import mujoco
import numpy as np
import pytest
import torch

from dexgrasp.sim.envs.depth_inset import MIDDLE, POINT, DepthInset
from dexgrasp.sim.envs.trial_film import fingers, side_view_deg
from dexgrasp.sim.objects import open_library
from dexgrasp.sim.rendering.follow_camera import FOVY_DEG, FollowCamera
from dexgrasp.sim.rendering.offscreen import RenderUnavailable, backend
from dexgrasp.sim.rendering.renderer import ELEVATION_DEG, hand_geoms
from dexgrasp.sim.robots.hand import HandSpec
from dexgrasp.sim.scene import PhysicsCfg
from dexgrasp.sim.sensors.config import CameraCfg
from dexgrasp.sim.task.grasp_task import GraspTask, TaskCfg

FAST = PhysicsCfg("turbo", timestep_s=0.01, integrator="discrete", cone="pyramidal", impratio=5.0, condim=3)
SHORT = TaskCfg(grasp_s=1.0, lift_s=0.6, hold_s=0.3, camera=CameraCfg(mode="latest"))
ASPECT = 1.5


def task_of(hand="allegro", mount="floating", trial=13):
    task = GraspTask(
        SHORT, HandSpec.load(hand), open_library("shipped"), FAST, num_envs=1, num_threads=1, mount=mount,
        auto_reset=False, in_order=True,
    )  # fmt: skip
    task.reset(trials=[trial])
    return task


def in_image(model, data, camera, points_w):
    """Normalised image coordinates (n, 2) by MuJoCo's own camera of the scene; -1 to 1 is inside."""
    model.vis.global_.fovy, model.stat.extent = FOVY_DEG, 1.0
    scene = mujoco.MjvScene(model, 1000)
    mujoco.mjv_updateScene(model, data, mujoco.MjvOption(), None, camera, mujoco.mjtCatBit.mjCAT_ALL.value, scene)
    position = (np.array(scene.camera[0].pos) + np.array(scene.camera[1].pos)) / 2
    forward, up = np.array(scene.camera[0].forward), np.array(scene.camera[0].up)
    offset, half = np.asarray(points_w) - position, np.tan(np.radians(FOVY_DEG / 2))
    depth = offset @ forward
    assert (depth > 0).all()
    return np.stack([offset @ np.cross(forward, up) / (depth * half * ASPECT), offset @ up / (depth * half)], axis=1)


@pytest.mark.parametrize(("hand", "mount"), [("allegro", "floating"), ("leap", "floating"), ("allegro", "ur5e")])
def test_the_hand_is_in_every_frame_in_the_grasp_the_lift_and_the_retreat(hand, mount):
    task = task_of(hand, mount)
    model = task.engine.get_model(0)
    follow = FollowCamera(side_view_deg(task, 0), ELEVATION_DEG, ASPECT)
    geoms, heights, aside = hand_geoms(model), [], 0
    while int(task.steps_since_pregrasp[0]) < task.episode_steps and len(heights) < 200:
        data = task.engine.get_data(0)
        camera = follow.update(data.geom_xpos[geoms], model.geom_rbound[geoms], data.body("object").xpos)
        shown = in_image(model, data, camera, np.vstack([data.body("palm").xpos, data.geom_xpos[geoms]]))
        assert np.abs(shown[0]).max() < 0.9  # the palm
        assert np.abs(shown).max() < 1.0
        heights.append(data.body("palm").xpos[2])
        task.step(torch.zeros(1, task.num_actions))
        aside += int(task.steps_since_pregrasp[0]) < 0
        if int(task.steps_since_pregrasp[0]) == task.grasp_steps + task.lift_steps and not aside:
            task.start_regrasp(torch.tensor([0]))
    assert max(heights) - min(heights) > 0.14  # it was lifted
    assert aside > 10  # and has moved to another pre-grasp


def test_the_camera_sees_the_palm_from_the_side_and_not_through_the_arm():
    for mount in ("floating", "ur5e"):
        task = task_of(mount=mount)
        azimuth = np.radians(side_view_deg(task, 0))
        camera_w = -np.array([np.cos(azimuth), np.sin(azimuth)])  # from the hand to the camera
        quat = task.engine.state.palm_quat_w[0].numpy().astype(float)
        rotation = np.empty(9)
        mujoco.mju_quat2Mat(rotation, quat)
        faces_w, lateral_w = rotation.reshape(3, 3)[:2, 0], rotation.reshape(3, 3)[:2, 1]
        assert abs(camera_w @ lateral_w) / np.linalg.norm(lateral_w) > 0.5
        assert camera_w @ faces_w > -0.1  # of a hand that faces the table only a little is left
    data = task.engine.get_data(0)
    base_w = data.body("arm_base").xpos[:2] - data.body("palm").xpos[:2]
    assert camera_w @ base_w / np.linalg.norm(base_w) < 0.5


def test_fingers_have_the_names_of_their_keypoints():
    names = ["thumb", "index", "middle", "ring", "palm"]
    for hand in ("allegro", "leap"):
        found = fingers(HandSpec.load(hand))
        assert list(found) == names
        assert found == {"thumb": [10, 11, 12], "index": [1, 2, 3], "middle": [4, 5, 6], "ring": [7, 8, 9], "palm": [0]}


def test_the_inset_shows_the_points_of_the_policy_on_the_object_and_depth_in_order():
    try:
        backend()
    except RenderUnavailable as error:
        pytest.skip(str(error))
    task = task_of()
    image = DepthInset(task, 0).draw()
    assert image.shape == (MIDDLE.height, MIDDLE.width, 3)
    rows, columns = np.nonzero((image == POINT).all(axis=2))
    # the camera looks at the object's place, which is the middle of the image
    assert abs(rows.mean() - MIDDLE.cy) < 30
    assert abs(columns.mean() - MIDDLE.cx) < 30
    assert np.ptp(rows) < 120  # a mug of 0.1 m at 0.7 m: 55 pixels
    green_of_table, green_of_hand = image[-20:, :, 1].mean(), image[..., 1].max()
    assert green_of_hand > green_of_table + 40  # near is bright


def test_the_inset_is_taken_as_often_as_the_camera_takes_frames():
    try:
        backend()
    except RenderUnavailable as error:
        pytest.skip(str(error))
    task = task_of()
    inset = DepthInset(task, 0)
    images = []
    for _ in range(5):
        images.append(inset.draw())
        task.step(torch.zeros(1, task.num_actions))
    same = [bool((a == b).mean() > 0.98) for a, b in pairwise(images)]
    assert same == [True, False, True, False]  # frame_interval_steps=2; between frames the points alone may move
