"""Hand-centric vectors against a k-d tree, and the laws they obey."""

import warnings

import mujoco
import numpy as np
import pytest
import torch
from scipy.spatial import cKDTree
from scipy.spatial.transform import Rotation

from dexgrasp import assets
from dexgrasp.perception.hand_features import HandFeatures, nearest_vectors
from dexgrasp.perception.transforms import compose, invert, quat_rotate
from dexgrasp.sim.robots.hand import HandSpec
from dexgrasp.sim.task.grasp_task import GraspTask, TaskCfg

INPUTS, OUTPUTS = ("palm_pos_w", "palm_quat_w", "joint_pos", "points_w"), ("vectors", "heights")
SQUARE_M2 = 5e-7
"""Squared distances differ by at most this: they are differences of float32 squares of coordinates below one metre."""


@pytest.fixture
def clouds():
    rng = np.random.default_rng(0)
    keypoints = rng.uniform(-0.2, 0.2, (3, 17, 3)).astype(np.float32)
    points = rng.uniform(-0.1, 0.1, (3, 256, 3)).astype(np.float32)
    return torch.from_numpy(keypoints), torch.from_numpy(points)


def test_the_nearest_point_is_that_of_a_kd_tree(clouds):
    keypoints, points = clouds
    found = nearest_vectors(keypoints, points)
    for env in range(3):
        distance, _ = cKDTree(points[env].numpy()).query(keypoints[env].numpy())
        np.testing.assert_allclose(found[env].square().sum(-1).numpy(), distance**2, atol=SQUARE_M2)


def test_every_vector_ends_on_a_point_of_its_own_environment(clouds):
    keypoints, points = clouds
    ends = keypoints + nearest_vectors(keypoints, points)
    gap = (ends[:, :, None] - points[:, None]).norm(dim=-1).amin(dim=2)
    assert gap.max() < 1e-7  # the rounding of one float32 addition


def test_a_single_point_is_the_nearest_of_all_keypoints(clouds):
    keypoints, points = clouds
    torch.testing.assert_close(nearest_vectors(keypoints, points[:, :1]), points[:, :1] - keypoints, rtol=0, atol=0)


def test_a_keypoint_on_a_point_has_a_zero_vector():
    points = torch.tensor([[[0.1, 0.2, 0.3], [0.4, 0.5, 0.6]]])
    assert nearest_vectors(points, points).abs().max() == 0


def test_duplicated_and_permuted_points_change_nothing(clouds):
    keypoints, points = clouds
    plain = nearest_vectors(keypoints, points)
    assert torch.equal(nearest_vectors(keypoints, torch.cat([points, points], dim=1)), plain)
    shuffled = points[:, torch.from_numpy(np.random.default_rng(1).permutation(256))]
    assert torch.equal(nearest_vectors(keypoints, shuffled), plain)


def test_a_rigid_motion_of_hand_and_object_turns_the_vectors(clouds):
    keypoints, points = clouds
    matrix = torch.from_numpy(Rotation.from_rotvec([0.3, -1.1, 0.7]).as_matrix()).float()
    shift = torch.tensor([0.1, -0.05, 0.2])
    moved = nearest_vectors(keypoints @ matrix.T + shift, points @ matrix.T + shift)
    still = nearest_vectors(keypoints, points)
    torch.testing.assert_close(moved.square().sum(-1), still.square().sum(-1), rtol=0, atol=SQUARE_M2)
    same = (moved - still @ matrix.T).norm(dim=-1) < 1e-6
    assert same.float().mean() > 0.95  # near ties may go to the other point


def drawn_poses(hand, count, dtype):
    """Palm poses, joint positions within the limits, and points before the palm."""
    rng = np.random.default_rng(5)
    quat = rng.normal(size=(count, 4))
    quat /= np.linalg.norm(quat, axis=1, keepdims=True)
    joints = rng.uniform(hand.joint_lower, hand.joint_upper, (count, len(hand.joint_names)))
    pos = rng.uniform(-0.2, 0.4, (count, 3))
    points = pos[:, None] + rng.uniform(-0.15, 0.15, (count, 256, 3))
    return [torch.from_numpy(value).to(dtype) for value in (pos, quat, joints, points)]


def module(hand, dtype=torch.float32, frame="palm"):
    palm = torch.tensor(hand.palm_pos_b), torch.tensor(hand.palm_quat_b)
    return HandFeatures(hand.kinematics().to(dtype), *palm, frame)


@pytest.mark.parametrize("name", assets.names("hands"))
@pytest.mark.parametrize("side", ["right", "left"])
def test_keypoints_heights_and_vectors_are_those_of_mujoco_and_a_kd_tree(name, side):
    hand = HandSpec.load(name, side=side)
    spec = hand.to_mjspec()
    free = spec.body("palm").add_freejoint()
    free.name = "base"
    model = spec.compile()
    data = mujoco.MjData(model)
    pos, quat, joints, points = drawn_poses(hand, 8, torch.float64)
    vectors, heights = module(hand, torch.float64)(pos, quat, joints, points)
    fingers = [model.joint(joint).qposadr[0] for joint in hand.joint_names]
    sites = [model.site(site).id for site in hand.keypoint_names]
    to_base = invert(torch.tensor(hand.palm_pos_b), torch.tensor(hand.palm_quat_b))
    for i in range(8):
        base_pos, base_quat = compose(pos[i], quat[i], *to_base)
        data.qpos[:7], data.qpos[fingers] = torch.cat([base_pos, base_quat]).numpy(), joints[i].numpy()
        mujoco.mj_kinematics(model, data)
        keypoints = data.site_xpos[sites]
        np.testing.assert_allclose(heights[i], keypoints[:, 2], atol=1e-6)
        distance, nearest = cKDTree(points[i].numpy()).query(keypoints)
        expected = (
            Rotation.from_quat(quat[i].numpy(), scalar_first=True).inv().apply(points[i].numpy()[nearest] - keypoints)
        )
        np.testing.assert_allclose(vectors[i], expected, atol=1e-6)
        np.testing.assert_allclose(vectors[i].norm(dim=1), distance, atol=1e-6)


def test_single_precision_costs_less_than_a_micrometre(allegro):
    """Compare keypoints alone: a vector may go to another point where two are equally near."""
    inputs = drawn_poses(allegro, 64, torch.float64)[:3]
    exact = module(allegro, torch.float64).keypoints(*inputs)
    single = module(allegro).keypoints(*(value.float() for value in inputs))
    assert (single.double() - exact).abs().max() < 1e-6


def test_world_axes_are_the_palm_frame_turned(allegro):
    pos, quat, joints, points = drawn_poses(allegro, 4, torch.float64)
    palm, heights = module(allegro, torch.float64)(pos, quat, joints, points)
    world, same = module(allegro, torch.float64, "world")(pos, quat, joints, points)
    torch.testing.assert_close(quat_rotate(quat[:, None], palm), world, rtol=0, atol=1e-12)
    assert torch.equal(heights, same)


def test_the_module_gives_what_the_task_computes(allegro, household, balanced):
    task = GraspTask(TaskCfg(), allegro, household, balanced, 4, 1, in_order=True, auto_reset=False)
    student = task.reset(range(4))["student"]
    state = task.engine.state
    inputs = (state.palm_pos_w, state.palm_quat_w, state.joint_pos, task.object_camera.points_w)
    vectors, heights = module(allegro)(*(value.float() for value in inputs))
    places = task.layouts["student"].slices()
    error = (vectors.flatten(1) * 10 - student[:, places["visible_vectors"]]).abs()
    assert (error < 1e-5).float().mean() > 0.98  # near ties may go to the other point
    torch.testing.assert_close(heights * 10, student[:, places["heights"]], rtol=0, atol=1e-5)


def export_onnx(features, path):
    """Write the module as ONNX for 256 object points."""
    joints = max(features.kinematics.joint_of_body) + 1
    example = (torch.zeros(1, 3), torch.tensor([[1.0, 0.0, 0.0, 0.0]]), torch.zeros(1, joints), torch.rand(1, 256, 3))
    names = {"input_names": list(INPUTS), "output_names": list(OUTPUTS)}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # torch 2.13's exporter uses a function that it deprecates
        torch.onnx.export(features.eval(), example, path, **names, opset_version=18, external_data=False, verbose=False)


@pytest.mark.parametrize("frame", ["palm", "world"])
def test_onnx_runtime_gives_what_torch_gives(allegro, tmp_path, frame):
    pytest.importorskip("onnxscript", reason="needs the extra `export`")
    onnxruntime = pytest.importorskip("onnxruntime", reason="needs the extra `export`")
    features = module(allegro, frame=frame)
    export_onnx(features, tmp_path / "features.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "features.onnx", providers=["CPUExecutionProvider"])
    assert [item.name for item in session.get_inputs()] == list(INPUTS)
    assert [item.name for item in session.get_outputs()] == list(OUTPUTS)
    inputs = drawn_poses(allegro, 16, torch.float32)
    for i in range(16):
        one = [value[i : i + 1] for value in inputs]
        found = session.run(None, {name: value.numpy() for name, value in zip(INPUTS, one, strict=True)})
        for ours, theirs in zip(features(*one), found, strict=True):
            np.testing.assert_allclose(theirs, ours.numpy(), atol=1e-5)


def test_an_unknown_frame_is_refused(allegro):
    with pytest.raises(ValueError, match="'palm' or 'world', got 'object'"):
        module(allegro, frame="object")
