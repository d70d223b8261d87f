"""The viewer: what is handed to the browser against the pipeline, MuJoCo and the task; then the page in a browser."""

import re
import signal
import socket
import subprocess
import sys
import threading
import time
from dataclasses import replace

import mujoco
import numpy as np
import pytest
import torch
from scipy.spatial import cKDTree

from dexgrasp.perception.cameras.depth import CameraError, DepthFrame, EndOfFramesError, FrameTimeoutError, Intrinsics
from dexgrasp.perception.cameras.open import FrameFolder, save_folder
from dexgrasp.perception.segmentation.pipeline import SegmentationCfg, Segmenter
from dexgrasp.perception.segmentation.table_plane import Plane
from dexgrasp.perception.transforms import matrix_from_quat, quat_rotate_inverse
from dexgrasp.policies.agents.registry import make_policy
from dexgrasp.policies.cli.main import main
from dexgrasp.policies.evaluation.config import EvaluateCfg, make_task
from dexgrasp.policies.evaluation.episodes import play
from dexgrasp.policies.viewer import drawing
from dexgrasp.policies.viewer.app import ViewerCfg, _Clock
from dexgrasp.policies.viewer.page import Page
from dexgrasp.policies.viewer.perception_view import PerceptionView
from dexgrasp.policies.viewer.players import CameraPlayer, TaskPlayer
from dexgrasp.policies.viewer.rollout import AGAIN_S, Choice, Results, Rollout
from dexgrasp.policies.viewer.snapshot import NO_POSE, UNPOSED, PipelineInspector, Snapshot, plan_hand
from dexgrasp.sim.objects import open_library
from dexgrasp.sim.randomization.episode_draws import EpisodeDraws, ResetCfg
from dexgrasp.sim.rendering import offscreen
from dexgrasp.sim.rendering.geom_meshes import geom_meshes
from dexgrasp.sim.sensors.synthetic_scenes import make_scene
from dexgrasp.sim.task.grasp_task import TaskCfg
from dexgrasp.sim.task.reset import PregraspPlanner
from tests.helpers import browser

SMALL = Intrinsics(160, 120, 96.0, 96.0, 79.5, 59.5)


def looking_down(depth_m, T=True):
    """A frame of a camera 0.6 m above the table that looks straight down."""
    pose = np.array([[1.0, 0, 0, 0], [0, -1, 0, 0], [0, 0, -1, 0.6], [0, 0, 0, 1]])
    return DepthFrame(depth_m.astype(np.float32), SMALL, 0.0, pose if T else None)


@pytest.fixture(scope="module")
def tilted():
    """A picture of a table that is tilted by 10 degrees, with an object on it."""
    return make_scene("tilted", open_library("shipped"), 3).frame


@pytest.fixture(scope="module")
def seen(tilted):
    return PipelineInspector(SegmentationCfg())(tilted)


@pytest.fixture(scope="module")
def hand(allegro, seen):
    return plan_hand(allegro, seen.points_w, seen.T_world_cam[:3, 3], ResetCfg(approach="camera_line"))


@pytest.fixture(scope="module")
def view(allegro):
    model = allegro.to_mjspec().compile()
    with Page("127.0.0.1", 0) as page:
        page.rebuild("perception")
        yield PerceptionView(page, SegmentationCfg(), geom_meshes(model, range(1, model.nbody)))


def rotation(quat):
    return matrix_from_quat(torch.tensor(np.array(quat), dtype=torch.float64)).numpy()


def test_what_is_shown_of_a_frame_is_the_output_of_the_pipeline(tilted, seen):
    found = Segmenter(SegmentationCfg(), tilted.intrinsics)(tilted)
    np.testing.assert_array_equal(seen.object_w, found.cloud_w)
    np.testing.assert_array_equal(seen.points_w, found.points_w)
    np.testing.assert_array_equal(seen.plane.normal_w, found.plane.normal_w)
    assert seen.counts == found.counts and not seen.warning
    assert list(seen.stages_ms)[-1] == "sampled" and min(seen.stages_ms.values()) >= 0
    # the rest of the scene: about 20,000 of the points in range, none of them the object's
    assert abs(len(seen.scene_w) / (found.counts["in range"] * 20_000 / found.counts["pixels"]) - 1) < 0.05
    assert cKDTree(seen.object_w).query(seen.scene_w)[0].min() > 0


def test_the_vectors_end_at_the_nearest_points_and_start_at_the_sites_of_the_hand(allegro, seen, hand):
    distance, index = cKDTree(seen.points_w).query(hand.keypoints_w)
    np.testing.assert_allclose(np.linalg.norm(hand.vectors_w, axis=1), distance, atol=1e-6)
    segments = drawing.vector_segments(hand)
    assert segments.shape == (17, 2, 3)
    np.testing.assert_allclose(segments[:, 1], seen.points_w[index], atol=1e-6)
    model = allegro.to_mjspec().compile()
    data = mujoco.MjData(model)
    R_palm = rotation(allegro.palm_quat_b)
    R_base = rotation(hand.palm[1]) @ R_palm.T
    model.body("palm").pos[:] = hand.palm[0] - R_base @ allegro.palm_pos_b
    mujoco.mju_mat2Quat(model.body("palm").quat, R_base.ravel())
    joints = blended_open_pose(allegro, seen)
    for name, value in zip(allegro.joint_names, joints, strict=True):
        data.joint(name).qpos[0] = value
    mujoco.mj_kinematics(model, data)
    sites = np.array([data.site(name).xpos for name in allegro.keypoint_names])
    np.testing.assert_allclose(segments[:, 0], sites, atol=1e-5)
    np.testing.assert_allclose(hand.bodies_pos_w, data.xpos[1:], atol=1e-5)


def blended_open_pose(allegro, seen):
    """By hand: pinch up to 3 cm, power from 6 cm, in between in proportion."""
    share = np.clip((np.quantile(seen.points_w[:, 2], 0.97) - 0.03) / 0.03, 0, 1)
    return (1 - share) * allegro.pinch.open_pose.numpy() + share * allegro.power.open_pose.numpy()


def test_the_palm_is_where_the_task_would_plan_it(allegro, seen, hand):
    points, camera = torch.from_numpy(seen.points_w)[None], torch.from_numpy(seen.T_world_cam[None, :3, 3])
    planner = PregraspPlanner(allegro, "floating", ResetCfg(approach="camera_line"))
    plan = planner(points, camera, EpisodeDraws.empty(1, len(allegro.joint_names)))
    np.testing.assert_allclose(hand.plan[0], plan.palm_pos_w[0], atol=1e-9)
    np.testing.assert_allclose(hand.plan[1], plan.palm_quat_w[0], atol=1e-9)
    start, end = drawing.approach_segment(hand)[0]
    np.testing.assert_allclose(end - start, float(plan.depth_m[0]) * rotation(hand.plan[1])[:, 0], atol=1e-6)


def test_the_grid_lies_in_the_table_that_was_found(seen):
    position, quat = drawing.plane_pose(seen.plane)
    np.testing.assert_allclose(rotation(quat)[:, 2], seen.plane.normal_w, atol=1e-6)
    assert seen.plane.normal_w @ position == pytest.approx(seen.plane.offset_m, abs=1e-9)
    assert np.degrees(seen.plane.tilt_rad) == pytest.approx(10.0, abs=0.5)  # as the scene was made
    level = drawing.plane_pose(Plane(np.array([0.0, 0.0, 1.0]), 0.02))
    np.testing.assert_allclose(level[0], (0, 0, 0.02))
    np.testing.assert_allclose(rotation(level[1]), np.eye(3), atol=1e-9)


def test_a_box_has_twelve_edges():
    edges = drawing.box_edges((-1.0, -2.0, 0.0), (1.0, 2.0, 0.5))
    lengths = np.linalg.norm(edges[:, 1] - edges[:, 0], axis=1)
    assert sorted(lengths.tolist()) == [0.5] * 4 + [2.0] * 4 + [4.0] * 4


def test_depth_goes_from_red_to_violet_and_holes_are_dark():
    depth_m = np.array([[0.0, 0.5, 1.0]], np.float32)
    picture = drawing.depth_picture(depth_m, (0.5, 1.0))
    assert picture.tolist() == [[list(drawing.HOLE), list(drawing.RAMP[0]), list(drawing.RAMP[-1])]]
    assert drawing.depth_picture(np.ones((480, 640), np.float32), (0.5, 1.0)).shape == (240, 320, 3)
    assert drawing.depth_span(np.zeros((4, 4), np.float32)) == (0.0, 1.0)


@pytest.mark.parametrize("name", ["allegro", "leap"])
def test_the_meshes_of_a_hand_fill_the_boxes_about_its_geoms(name):
    from dexgrasp.sim.robots.hand import HandSpec

    model = HandSpec.load(name).to_mjspec().compile()
    meshes = geom_meshes(model, range(1, model.nbody))
    assert len(meshes) == model.ngeom
    for geom, mesh in enumerate(meshes):
        quat = np.zeros(9)
        mujoco.mju_quat2Mat(quat, model.geom_quat[geom])
        vertices = (mesh.vertices_b - model.geom_pos[geom]) @ quat.reshape(3, 3)
        low, high = model.geom_aabb[geom, :3] - model.geom_aabb[geom, 3:], model.geom_aabb[geom].reshape(2, 3).sum(0)
        np.testing.assert_allclose([vertices.min(0), vertices.max(0)], [low, high], atol=1e-6)
        corners = mesh.vertices_b[mesh.faces].astype(float)
        assert np.einsum("fi,fi->f", corners[:, 0], np.cross(corners[:, 1], corners[:, 2])).sum() > 0  # outward
        assert mesh.body == model.geom_bodyid[geom]


def test_the_page_gets_these_arrays_and_poses(view, allegro, seen, hand):
    model = allegro.to_mjspec().compile()
    view.show(Snapshot(seen, seen.points_w, hand, "here"), speed=1.0)
    np.testing.assert_array_equal(view._object.points, seen.object_w)
    np.testing.assert_array_equal(view._known.points, seen.points_w)
    np.testing.assert_array_equal(view._scene.points, seen.scene_w)
    np.testing.assert_array_equal(view._vectors.points, drawing.vector_segments(hand))
    np.testing.assert_allclose(view._plan.position, hand.plan[0])
    np.testing.assert_allclose(view._camera.position, seen.T_world_cam[:3, 3])
    np.testing.assert_allclose(rotation(view._camera.wxyz), seen.T_world_cam[:3, :3], atol=1e-6)
    np.testing.assert_allclose(rotation(view._table.wxyz)[:, 2], seen.plane.normal_w, atol=1e-6)
    thumb = next(handle for mesh, handle in view._robot if mesh.name.startswith("th_distal"))
    np.testing.assert_allclose(thumb.position, hand.bodies_pos_w[model.body("th_distal").id - 1])
    row = rf"<td>points of the object</td><td [^>]*>{len(seen.object_w):,}</td>"
    assert re.search(row, view._numbers.content)
    assert view._object.visible and view._vectors.visible


def test_an_empty_table_is_a_warning_in_the_panel_and_no_hand(view):
    frame = looking_down(np.full((120, 160), 0.6))
    seen = PipelineInspector(SegmentationCfg(stride=1))(frame)
    # a pixel is 0.6 / 96 m wide: 128 columns lie within the workspace's 0.8 m, and all 120 rows
    assert seen.warning == "no object above the table in the workspace (0 of 15,360 points)"
    assert not len(seen.object_w) and seen.plane is None and len(seen.scene_w) > 1000
    view.show(Snapshot(seen, seen.points_w, None, "empty <table>"), speed=1.0)
    assert seen.warning in view._numbers.content and "empty &lt;table&gt;" in view._numbers.content
    assert not (view._object.visible or view._vectors.visible or view._plan.visible)


def test_a_frame_without_a_pose_is_shown_as_it_would_look_from_half_a_metre():
    depth_m = np.zeros((120, 160))
    depth_m[60, 80] = 0.7
    seen = PipelineInspector(SegmentationCfg(stride=1))(looking_down(depth_m, T=False))
    assert seen.warning == NO_POSE
    assert set(re.findall(r"(\w+)=FILE", NO_POSE)) == {"camera_file"} <= set(ViewerCfg.__dataclass_fields__)
    # the pixel is half a pixel right of and below the axis: 0.7 * 0.5 / 96 = 3.6 mm; x ahead, y left, z up
    np.testing.assert_allclose(seen.T_world_cam, UNPOSED)
    np.testing.assert_allclose(seen.scene_w, [[0.2, -0.0036, 0.4964]], atol=1e-4)


class Tape:
    """A source whose reads are written down: frames, or errors to raise."""

    def __init__(self, *reads):
        self._reads, self.closed = list(reads), False

    def read(self, timeout_s=1.0):
        item = self._reads.pop(0) if self._reads else EndOfFramesError("over")
        if isinstance(item, Exception):
            raise item
        return item

    def close(self):
        self.closed = True


def test_frames_are_seen_as_long_as_their_stamps_say_and_start_again_at_the_end(allegro):
    empty = looking_down(np.full((120, 160), 0.6))
    tapes = [Tape(empty, replace(empty, stamp_s=0.2), FrameTimeoutError("late")), Tape(empty)]
    opened = iter(tapes)
    world = CameraPlayer(lambda: next(opened), allegro, SegmentationCfg(), "tape")
    assert world.look().caption == "tape · frame 0"
    assert world.advance() == pytest.approx(0.2)
    assert world.advance() == 0.0
    assert world.look().caption == "tape · frame 1 · late"
    assert world.advance() == AGAIN_S
    assert world.look().caption == "tape · frame 0" and tapes[0].closed
    world.close()
    assert tapes[1].closed


def test_a_source_that_cannot_be_opened_again_leaves_the_present_one_open(allegro):
    empty = looking_down(np.full((120, 160), 0.6))
    first, second = Tape(empty, replace(empty, stamp_s=0.2)), Tape(CameraError("gone"))
    opened = iter([first, second])
    world = CameraPlayer(lambda: next(opened), allegro, SegmentationCfg(), "tape")
    with pytest.raises(CameraError, match="gone"):
        world.restart()
    assert second.closed and not first.closed
    assert world.advance() == pytest.approx(0.2) and world.look().caption == "tape · frame 1"
    live = CameraPlayer(lambda: Tape(empty, empty), allegro, SegmentationCfg(), "camera", is_live=True)
    live.advance()
    live.restart()
    assert live.look().caption == "camera · frame 1"


@pytest.mark.parametrize("name", ["start", "restart", "pause"])
def test_a_request_ends_a_long_wait(name):
    with Page("127.0.0.1", 0, speed=0.1) as page:
        page.rebuild("policy")
        clock, start_s = _Clock(), time.monotonic()
        click = threading.Timer(0.2, page._clicked, [name])
        click.start()
        clock.wait(AGAIN_S, page.speed, lambda: page.interrupted)  # 10 s
        assert 0.15 < time.monotonic() - start_s < 2.0
        click.join()  # "pause" ends the wait before its drawing is queued
        assert [request.name for request in page.requests()] == [name if name != "pause" else "redraw"]
        page.playing = True
        page.request("redraw")
        start_s = time.monotonic()
        clock.wait(0.03, 0.1, lambda: page.interrupted)  # a drawing can wait, and nothing of the first wait is left
        assert 0.25 < time.monotonic() - start_s < 2.0


def test_a_port_that_is_taken_after_the_check_is_refused(monkeypatch):
    monkeypatch.setattr("dexgrasp.policies.viewer.page._demand_free", lambda host, port: None)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(OSError, match=f"cannot serve on 127.0.0.1:{port} "):
            Page("127.0.0.1", port)


def test_a_recording_without_a_frame_says_so_and_is_closed(allegro):
    tape = Tape()
    with pytest.raises(CameraError, match="tape holds no frame"):
        CameraPlayer(lambda: tape, allegro, SegmentationCfg(), "tape")
    assert tape.closed


def test_a_folder_of_frames_plays(tilted, allegro, tmp_path):
    save_folder(tmp_path, [tilted, tilted], rate_hz=10)
    world = CameraPlayer(lambda: FrameFolder(tmp_path), allegro, SegmentationCfg(), "folder")
    first = world.look()
    assert first.hand.bodies_pos_w.shape == (len(allegro.kinematics().body_names), 3)
    assert world.advance() == pytest.approx(0.1)
    assert world.look().object_mesh is None and world.look().caption == "folder · frame 1"


@pytest.fixture(scope="module")
def evaluation(balanced):
    try:
        offscreen.backend()
    except offscreen.RenderUnavailable as error:
        pytest.skip(str(error))
    task = TaskCfg(grasp_s=0.8, lift_s=0.4, hold_s=0.2)
    task = replace(task, camera=replace(task.camera, model="rendered"))
    return EvaluateCfg(num_threads=1, task=task, physics=balanced)


@pytest.fixture
def worlds(evaluation, allegro, household):
    def build(trial):
        task = make_task(evaluation, allegro, household, "none", rows=1)
        rollout = Rollout(task, make_policy("synergy", task), "synergy", Results(), Choice(trial=trial))
        return TaskPlayer(rollout, SegmentationCfg()), rollout

    return build


def test_a_trial_in_the_viewer_is_that_of_the_evaluation_and_shows_what_the_policy_sees(
    worlds, evaluation, allegro, household
):
    world, rollout = worlds(2)
    task, first = rollout.task, world.look()
    np.testing.assert_array_equal(first.seen.points_w, first.known_w)  # the very pipeline, the very chance
    layout = task.layouts["student"]
    student = layout.slices()["visible_vectors"]
    scale = next(term.scale for term in layout.terms if term.name == "visible_vectors")
    for _ in range(task.episode_steps):
        told_p = rollout.obs["student"][0, student].reshape(-1, 3) / scale
        shown = world.look()
        palm_quat_w = torch.from_numpy(shown.hand.palm[1])[None].float()
        vectors_p = quat_rotate_inverse(palm_quat_w, torch.from_numpy(shown.hand.vectors_w))
        np.testing.assert_allclose(vectors_p, told_p, atol=1e-5)
        data, model = task.engine.get_data(0), task.engine.get_model(0)
        np.testing.assert_allclose(shown.hand.bodies_pos_w[model.body("palm").id - 1], data.body("palm").xpos)
        np.testing.assert_allclose(shown.object_pose[0], data.body("object").xpos, atol=1e-9)
        assert not shown.verdict
        assert rollout.advance() == task.step_s
    assert shown.seen.frame.depth_m.shape == (480, 640)
    again = make_task(evaluation, allegro, household, "none", rows=1)
    outcome = play(again, make_policy("synergy", again), [2])[0]
    expected = "success" if outcome.success else outcome.failure.replace("_", " ")
    assert world.look().verdict == expected and rollout.outcomes == [outcome]


def test_after_the_verdict_comes_the_next_trial_and_buttons_choose_it_too(worlds, household):
    world, rollout = worlds(0)
    mesh = world.look().object_mesh
    rollout.next()
    shown = world.look()
    assert shown.caption == f"trial 1 · {household.names[1]} · grasp · 0.00 s"
    assert len(shown.object_mesh[0]) == len(household[household.names[1]].vertices)
    assert mesh is not shown.object_mesh and shown.object_mesh is world.look().object_mesh
    rollout.advance()
    assert world.look().caption.endswith("0.05 s")
    rollout.restart()
    assert world.look().caption == f"trial 1 · {household.names[1]} · grasp · 0.00 s"
    task = rollout.task
    waits = [rollout.advance() for _ in range(task.episode_steps + 1)]
    assert waits == [task.step_s] * task.episode_steps + [AGAIN_S]
    assert world.look().caption.startswith("trial 1 ") and world.look().verdict  # the end stays meanwhile
    assert rollout.advance() == 0.0
    assert world.look().caption == f"trial 2 · {household.names[2]} · grasp · 0.00 s"


def complaint(capsys, *words):
    assert main(["viewer", "port=0", *words]) == 2
    captured = capsys.readouterr()
    assert captured.out == "" and captured.err.count("\n") == 1
    return captured.err


def test_what_cannot_be_shown_is_one_line(capsys, tmp_path, monkeypatch):
    assert "no source of frames 'nowhere'" in complaint(capsys, "nowhere")
    assert "camera.json is missing: it holds width" in complaint(capsys, str(tmp_path))
    assert "camera" in complaint(capsys, "realsense:000")
    assert "no policy 'sinergy'. Did you mean 'synergy'? Expected" in complaint(capsys, "policy=sinergy")
    assert "no object 'banan' among the 144 of the library" in complaint(capsys, "object=banan")
    assert "'num_envs' must lie in 1..16, got 17" in complaint(capsys, "num_envs=17")
    assert "'frames' must lie in 0..1000000000, got -1" in complaint(capsys, "frames=-1")
    assert "'trial' must lie in 0..1000000000, got -3" in complaint(capsys, "trial=-3")
    assert "'speed' must lie in 0.1..4, got 9" in complaint(capsys, "speed=9")
    assert "preset=policy needs the simulation" in complaint(capsys, str(tmp_path), "preset=policy")
    assert "nowhere.yaml" in complaint(capsys, str(tmp_path), f"camera={tmp_path}/nowhere.yaml")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        text = complaint(capsys, str(tmp_path), f"port={port}")
        assert f"cannot serve on 127.0.0.1:{port} (Address already in use); choose another port=" in text
    monkeypatch.setitem(sys.modules, "viser", None)
    assert "the viewer needs viser: pip install -e '.[viz]'" in complaint(capsys, str(tmp_path))


def test_so_many_frames_and_one_line_with_the_address(tilted, tmp_path, capsys):
    save_folder(tmp_path, [tilted, tilted])
    assert main(["viewer", str(tmp_path), "port=0", "frames=3", "speed=4"]) == 0
    captured = capsys.readouterr()
    assert re.fullmatch(r"viewer: http://localhost:\d+\n", captured.out) and captured.err == ""
    assert main(["viewer", str(tmp_path), "port=0", "frames=1", "host=0.0.0.0"]) == 0
    captured = capsys.readouterr()
    assert re.fullmatch(r"viewer: http://localhost:\d+/[\w-]{22}/\n", captured.out)
    assert captured.err.startswith(
        "viewer: warning: host=0.0.0.0: whoever knows the address below, with its token, can"
    )


@pytest.mark.skipif(browser.find() is None, reason="no Chromium: apt-get install chromium")
def test_the_browser_shows_the_cloud_until_it_is_hidden_and_ctrl_c_ends(tilted, tmp_path):
    save_folder(tmp_path / "frames", [tilted])
    (tmp_path / "profile").mkdir()
    command = [sys.executable, "-m", "dexgrasp", "viewer", str(tmp_path / "frames"), "port=0"]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        url = server.stdout.readline().split()[-1]
        with browser.Browser(url, tmp_path / "profile") as window:
            assert pixels(window.until(lambda picture: pixels(picture) > 300)) > 300
            assert window.click("object")
            assert pixels(window.until(lambda picture: pixels(picture) == 0)) == 0
            assert "tilted" not in window.run("document.body.innerText")
            assert "10.0°" in window.run("document.body.innerText")
    finally:
        server.send_signal(signal.SIGINT)
        out, err = server.communicate(timeout=120)  # a busy machine draws its last frames first
    assert (server.returncode, out, err) == (0, "viewer: closed\n", "")


def pixels(picture):
    """How many are of the object's colour."""
    return int((picture == drawing.OBJECT).all(axis=2).sum())
