"""Depth drawn by MuJoCo against rays cast by MuJoCo, and what the pipeline makes of it in the task."""

from dataclasses import replace

import mujoco
import numpy as np
import pytest
import torch

from dexgrasp.perception.cameras.depth import Intrinsics
from dexgrasp.perception.transforms import quat_rotate
from dexgrasp.policies.cli import main
from dexgrasp.sim.rendering import offscreen
from dexgrasp.sim.sensors.config import CameraCfg
from dexgrasp.sim.sensors.depth_camera import CAMERA, DepthRenderer, camera_looking_at
from dexgrasp.sim.sensors.synthetic_scenes import cast
from dexgrasp.sim.task.grasp_task import GraspTask, TaskCfg

try:
    offscreen.backend()
except offscreen.RenderUnavailable as error:
    pytest.skip(str(error), allow_module_level=True)


@pytest.fixture(scope="module")
def make(household, balanced, allegro):
    def build(**view) -> GraspTask:
        cfg = replace(TaskCfg(grasp_s=0.8, lift_s=0.4, hold_s=0.2), camera=CameraCfg(**view))
        task = GraspTask(cfg, allegro, household, balanced, 4, 1, in_order=True, auto_reset=False)
        task.reset(range(4))
        return task

    return build


def surface_distance(task: GraspTask, row: int) -> torch.Tensor:
    """Distance of each point of the view from the samples of the object's true surface [m]."""
    samples = torch.from_numpy(task.library[task.objects[row]].points).double()
    state = task.engine.state
    surface = quat_rotate(state.object_quat_w[row], samples) + state.object_pos_w[row]
    return torch.cdist(task.object_camera.points_w[row].double(), surface).amin(dim=1)


def test_drawn_depth_is_that_of_rays(household):
    spec = mujoco.MjSpec()
    spec.worldbody.add_geom(type=mujoco.mjtGeom.mjGEOM_BOX, size=(0.5, 0.4, 0.01), pos=(0, 0, -0.01))
    spec.worldbody.add_geom(name="object1", type=mujoco.mjtGeom.mjGEOM_BOX, size=(0.04, 0.03, 0.05), pos=(0.1, 0, 0.05))
    model = spec.compile()
    data = mujoco.MjData(model)
    mujoco.mj_forward(model, data)
    camera, T_world_cam = camera_looking_at((0.3, -0.35, 0.6), (0.02, 0.03, 0.0))
    drawn = DepthRenderer(CAMERA).render(model, data, camera)
    rays, labels = cast(model, CAMERA, T_world_cam)
    both = (drawn > 0) & (rays > 0)
    assert both.mean() > 0.5
    assert np.median(np.abs(drawn - rays)[both]) < 2e-4  # of a depth buffer
    assert (np.abs(drawn - rays)[both] > 0.002).mean() < 0.005  # pixels at edges
    assert (labels == 1).sum() > 1000


def test_what_is_hidden_is_not_drawn(make):
    task = make()
    model, data = task.engine.get_model(0), task.engine.get_data(0)
    robot = [i for i in range(model.ngeom) if model.geom_bodyid[i] not in (0, model.body("object").id)]
    camera, _ = camera_looking_at((0.0, -0.3, 0.7), (0.0, 0.0, 0.0))
    renderer = DepthRenderer(CAMERA)
    whole, without = renderer.render(model, data, camera), renderer.render(model, data, camera, hide=robot)
    nearer = without - whole > 0.01
    assert nearer.sum() > 2000
    assert (without >= whole - 1e-6).all()


def test_a_camera_straight_above_has_a_pose():
    _, T = camera_looking_at((0.1, 0.2, 0.7), (0.1, 0.2, 0.0))
    np.testing.assert_allclose(T[:3, 2], [0, 0, -1], atol=1e-12)
    np.testing.assert_allclose(T[:3, :3] @ T[:3, :3].T, np.eye(3), atol=1e-12)
    assert np.linalg.det(T[:3, :3]) == pytest.approx(1.0)


def test_a_camera_that_cannot_be_drawn_is_refused():
    with pytest.raises(ValueError, match="a centred principal point"):
        DepthRenderer(Intrinsics(640, 480, 385.0, 385.0, 310.0, 239.5))


def test_the_first_view_lies_on_the_object_and_the_hand_is_not_in_it(make):
    task = make(model="rendered")
    distance = torch.stack([surface_distance(task, row) for row in range(4)])
    assert distance.median(dim=1).values.max() < 0.006  # spacing of 1,024 samples, and 2.4 mm of noise
    assert distance.quantile(0.95) < 0.012
    for row in range(4):
        assert len(task.object_camera.points_w[row].unique(dim=0)) > 150  # every second pixel, 4 mm apart


def test_frames_after_it_lie_on_the_object_too_though_the_hand_is_in_them(make):
    task = make(model="rendered", mode="latest", frame_interval_steps=4, latency_steps=0)
    for _ in range(8):
        task.step(torch.zeros(4, 22))
    fresh = task.object_camera.fresh.nonzero().squeeze(1).tolist()
    assert len(fresh) >= 3
    assert 0.05 < task.object_camera.visible_fraction.mean() < 0.8
    for row in fresh:
        assert surface_distance(task, row).quantile(0.9) < 0.02


def test_without_opengl_the_command_says_what_is_missing(monkeypatch, capsys, tmp_path):
    def fail():
        raise offscreen.RenderUnavailable({"egl": "no display"})

    monkeypatch.setattr("dexgrasp.sim.sensors.depth_camera.backend", fail)
    status = main.main(
        ["evaluate", "task.camera.model=rendered", "trials=1", "physics=balanced", f"out={tmp_path / 'run'}"]
    )
    error = capsys.readouterr().err
    assert status == 2
    assert "depth cannot be rendered" in error
    assert "apt-get install" in error
    assert "task.camera.model=points" in error
