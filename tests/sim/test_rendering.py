"""Headless pictures: the choice of OpenGL, a camera that follows the hand, soft shadows, files that play everywhere."""

import os
import subprocess
import sys

import imageio_ffmpeg
import mujoco
import numpy as np
import pytest
from PIL import Image, ImageSequence

from dexgrasp import sim
from dexgrasp.sim.rendering import offscreen, studio
from dexgrasp.sim.rendering.follow_camera import FOVY_DEG, FollowCamera
from dexgrasp.sim.rendering.offscreen import RenderUnavailable
from dexgrasp.sim.rendering.overlay import Overlay, Phase, draw_overlay
from dexgrasp.sim.rendering.renderer import Renderer
from dexgrasp.sim.rendering.video import VideoRecorder, VideoWriter

BOX = np.array([[x, y, z] for x in (0.0, 0.06) for y in (-0.03, 0.03) for z in (-0.04, 0.04)], dtype=np.float32)
QUADS = [[0, 1, 3, 2], [4, 6, 7, 5], [0, 4, 5, 1], [2, 3, 7, 6], [0, 2, 6, 4], [1, 5, 7, 3]]
FACES = np.array([triangle for a, b, c, d in QUADS for triangle in ([a, b, c], [a, c, d])], dtype=np.int32)
VERTICES = " ".join(map(str, BOX.ravel()))


def load(pieces=1):
    """A table, a ball for a palm, and a box as object, made of so many equal pieces."""
    numbers = range(pieces)
    model = mujoco.MjModel.from_xml_string(f"""
        <mujoco>
          <asset>{"".join(f'<mesh name="piece_{i}" vertex="{VERTICES}"/>' for i in numbers)}</asset>
          <worldbody>
            <geom name="table" type="plane" size="1 1 0.1"/>
            <body name="palm" pos="0 0 0.25"><geom type="sphere" size="0.03" rgba="0.2 0.2 0.2 1"/></body>
            <body name="object" pos="0 0 0.05" euler="0 0 30">
              <freejoint/>
              {"".join(f'<geom type="mesh" mesh="piece_{i}"/>' for i in numbers)}
            </body>
          </worldbody>
        </mujoco>""")
    data = mujoco.MjData(model)
    mujoco.mj_forward(model, data)
    return model, data


@pytest.fixture(scope="module")
def opengl():
    """Skips, with the reason, where no headless OpenGL is installed."""
    try:
        return offscreen.backend()
    except RenderUnavailable as error:
        pytest.skip(str(error))


@pytest.fixture
def scene(opengl):
    return load()


def film(path, scene, frames=1, **options):
    with VideoRecorder(path, rate_hz=20, **options) as recorder:
        for _ in range(frames):
            recorder.capture(*scene)
    return read_video(path)


def read_video(path):
    """Frames (n, 480, 640, 3) as ffmpeg decodes them; imageio's own reader leaves its pipes open."""
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", "-i", path, "-f", "rawvideo", "-pix_fmt", "rgb24", "-"]
    raw = subprocess.run(command, capture_output=True, check=True).stdout
    return np.frombuffer(raw, dtype=np.uint8).reshape(-1, 480, 640, 3)


def orange_centre(frame):
    """Mean pixel (row, column) of what has the object's colour."""
    red, green, blue = (frame[..., i].astype(int) for i in range(3))
    rows, columns = np.nonzero((red > blue + 60) & (red > green + 30))
    assert len(rows) > 500
    return np.array([rows.mean(), columns.mean()])


def test_without_any_opengl_the_error_names_the_packages_of_both_backends(monkeypatch):
    monkeypatch.setattr(offscreen, "_probe", lambda name: f"no {name} here")
    monkeypatch.delenv("MUJOCO_GL", raising=False)
    with pytest.raises(RenderUnavailable) as caught:
        offscreen.backend.__wrapped__()
    assert str(caught.value) == (
        "no headless OpenGL for pictures and videos (egl: no egl here; osmesa: no osmesa here). Install one of: "
        "apt-get install libegl1 libegl-mesa0 libgl1 | apt-get install libosmesa6"
    )


def test_egl_comes_first_and_osmesa_is_the_fallback(monkeypatch):
    monkeypatch.delenv("MUJOCO_GL", raising=False)
    monkeypatch.setattr(offscreen, "_probe", lambda name: "")
    assert offscreen.backend.__wrapped__() == "egl"
    monkeypatch.setattr(offscreen, "_probe", lambda name: "broken" if name == "egl" else "")
    assert offscreen.backend.__wrapped__() == "osmesa"


def test_the_backend_that_mujoco_gl_names_is_the_only_one_tried(monkeypatch):
    monkeypatch.setenv("MUJOCO_GL", "osmesa")
    monkeypatch.setattr(offscreen, "_probe", lambda name: "" if name == "egl" else "broken")
    with pytest.raises(RenderUnavailable, match=r"\(osmesa: broken\)"):
        offscreen.backend.__wrapped__()


def test_a_value_that_mujoco_does_not_know_is_one_line_with_the_values_that_it_knows(monkeypatch):
    command = [sys.executable, "-m", "dexgrasp", "bench", "engine"]
    done = subprocess.run(
        command, env=os.environ | {"MUJOCO_GL": "nonsense"}, capture_output=True, text=True, timeout=60
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.splitlines() == [
        "dexgrasp bench engine: error: MUJOCO_GL=nonsense is no OpenGL backend of MuJoCo: set it to egl, osmesa, glfw, "
        "glx or off, or unset it, which lets dexgrasp choose"
    ]
    for value in ("egl", " OSMesa ", "", "off", "1"):
        monkeypatch.setenv("MUJOCO_GL", value)
        sim._check_mujoco_gl()


def test_a_probe_repeats_what_the_backend_complained_about(monkeypatch, opengl):
    monkeypatch.setenv("MUJOCO_EGL_DEVICE_ID", "99")  # no machine has a hundred of them
    assert offscreen._probe.__wrapped__("egl") != ""


def test_osmesa_draws_a_picture_although_mujoco_was_imported_before(monkeypatch):
    if offscreen._probe("osmesa"):
        pytest.skip(f"osmesa: {offscreen._probe('osmesa')}; apt-get install {offscreen.APT_PACKAGES['osmesa']}")
    monkeypatch.setenv("PYOPENGL_PLATFORM", "egl")  # as a child of a process that draws with EGL inherits it
    program = (
        "import os, mujoco\n"
        "os.environ['MUJOCO_GL'] = 'osmesa'\n"
        "import numpy as np\n"
        "from dexgrasp.sim.rendering import offscreen\n"
        "from dexgrasp.sim.rendering.renderer import render_mesh\n"
        "faces = np.array([[0, 1, 2], [0, 3, 1], [0, 2, 3], [1, 3, 2]], np.int32)\n"
        "picture = render_mesh((np.eye(4, 3, dtype=np.float32) * 0.1, faces), 64)\n"
        "print(offscreen.backend(), np.ptp(picture) > 50)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert done.stdout.split() == ["osmesa", "True"], done.stderr


def test_a_recording_is_h264_that_plays_everywhere_with_every_frame(tmp_path, scene):
    frames = film(tmp_path / "a.mp4", scene, frames=7)
    assert frames.shape == (7, 480, 640, 3)
    probe = subprocess.run(
        [imageio_ffmpeg.get_ffmpeg_exe(), "-i", tmp_path / "a.mp4"], capture_output=True, text=True
    ).stderr
    stream = next(line for line in probe.splitlines() if "Video:" in line)
    assert "Video: h264" in stream
    assert "yuv420p" in stream
    assert "20 fps" in stream


def test_the_visual_mesh_is_drawn_where_the_pieces_are(tmp_path, scene):
    # the same box as collision piece and as visual mesh; its frame is at a face, so a wrong offset would show
    pieces = film(tmp_path / "pieces.mp4", scene)[0]
    mesh = film(tmp_path / "mesh.mp4", scene, mesh=(BOX, FACES))[0]
    np.testing.assert_allclose(orange_centre(mesh), orange_centre(pieces), atol=1.0)


def test_pieces_that_are_not_drawn_leave_no_trace(tmp_path, opengl):
    # their meshes are not loaded then: MuJoCo would draw whatever has their number, once a shadow over the whole table
    one = film(tmp_path / "one.mp4", load(1), mesh=(BOX, FACES))
    many = film(tmp_path / "many.mp4", load(12), mesh=(BOX, FACES))
    assert (one == many).all()


def project(model, data, camera, points_w, aspect):
    """Normalised image coordinates (n, 2), -1 to 1 inside the image, from MuJoCo's own camera of the scene."""
    model.vis.global_.fovy, model.stat.extent = FOVY_DEG, 1.0
    scene = mujoco.MjvScene(model, 100)
    mujoco.mjv_updateScene(model, data, mujoco.MjvOption(), None, camera, mujoco.mjtCatBit.mjCAT_ALL.value, scene)
    eyes = scene.camera
    position = (np.array(eyes[0].pos) + np.array(eyes[1].pos)) / 2  # the two eyes of a stereo image
    forward, up = np.array(eyes[0].forward), np.array(eyes[0].up)
    offset = np.asarray(points_w) - position
    depth = offset @ forward
    half = np.tan(np.radians(FOVY_DEG / 2))
    return np.stack([offset @ np.cross(forward, up) / (depth * half * aspect), offset @ up / (depth * half)], axis=1)


def test_the_camera_keeps_a_hand_inside_the_image_that_jumps_about_like_no_hand():
    model, data = load()
    rng = np.random.default_rng(0)
    camera = FollowCamera(azimuth_deg=135.0, elevation_deg=-24.0, aspect=1.5)
    for _ in range(50):
        hand_w = rng.uniform([-0.3, -0.3, 0.05], [0.3, 0.3, 0.6]) + rng.uniform(-0.09, 0.09, (8, 3))
        shown = project(model, data, camera.update(hand_w, np.full(8, 0.02), np.zeros(3)), hand_w, 1.5)
        assert np.abs(shown).max() < 1.0


def test_the_camera_follows_smoothly_and_comes_to_rest_on_hand_and_object():
    camera, hand_w = FollowCamera(135.0, -24.0, 1.5), np.array([[0.0, 0.0, 0.25], [0.0, 0.05, 0.2]])
    lookat, step_m = [], 0.15 / 16  # a lift of 0.15 m in 0.8 s
    for i in range(80):
        rise_m = step_m * min(i, 16)
        lookat.append(
            camera.update(hand_w + np.array([0, 0, rise_m]), [0.03, 0.03], [0, 0, 0.1 + rise_m]).lookat.copy()
        )
    speed = np.linalg.norm(np.diff(lookat, axis=0), axis=1)
    assert speed.max() < 1.2 * step_m  # never faster than the hand, but for the zoom
    assert np.abs(np.diff(speed)).max() < step_m / 2
    assert speed[-1] < 1e-4
    assert lookat[-1][2] - lookat[0][2] == pytest.approx(0.15, abs=0.03)


def test_the_object_moves_in_the_picture_when_it_moves_in_the_world(scene):
    model, data = scene
    renderer = Renderer((BOX, FACES))
    for rise_m in (0.0, 0.1):
        data.qpos[2] += rise_m
        mujoco.mj_forward(model, data)
        picture = renderer.shoot(model, data)
        middle_w = data.body("object").xpos + data.body("object").xmat.reshape(3, 3) @ [0.03, 0, 0]
        right, up = project(model, data, renderer.camera.camera, [middle_w], 640 / 480)[0]
        expected = 240 * (1 - up), 320 * (1 + right)
        np.testing.assert_allclose(orange_centre(picture), expected, atol=12)  # its near faces are larger
    renderer.close()


def test_the_hand_casts_a_soft_shadow_where_the_lamp_says(scene):
    model, data = scene
    data.qpos[:3] = 0.4, 0.3, 0.05
    model.body("palm").pos[2] = height_m = 0.12
    mujoco.mj_forward(model, data)
    renderer = Renderer((BOX, FACES))
    picture = renderer.shoot(model, data).astype(int).sum(axis=2) / 3
    renderer.close()
    lamp_w = renderer.camera.camera.lookat + np.array([0.35, 0.75, 1.6])
    palm_w = np.array([0, 0, height_m])
    centre_w = palm_w + (palm_w - lamp_w) * height_m / (lamp_w[2] - height_m)
    along_m = np.linspace(-0.08, 0.08, 161)
    line_w = centre_w + along_m[:, None] * [1, 0, 0]
    right, up = project(model, data, renderer.camera.camera, line_w, 640 / 480).T
    shade = picture[np.rint(240 * (1 - up)).astype(int), np.rint(320 * (1 + right)).astype(int)]
    lit, dark = np.median(shade[np.abs(along_m) > 0.06]), np.median(shade[np.abs(along_m) < 0.01])
    assert dark < 0.8 * lit
    share = (lit - shade) / (lit - dark)
    assert along_m[share > 0.5].min() == pytest.approx(
        -0.031, abs=0.006
    )  # its radius is 0.03 m, seen aslant by the lamp
    assert along_m[share > 0.5].max() == pytest.approx(0.031, abs=0.006)
    assert ((share > 0.15) & (share < 0.85)).sum() > 12  # no hard edge: millimetres between light and shadow


def test_bodies_that_touch_are_drawn_in_another_colour(scene):
    model, data = scene
    renderer = Renderer((BOX, FACES))
    plain, touched = (renderer.shoot(model, data, touching) for touching in ((), [model.body("palm").id]))
    renderer.close()
    red, green, _ = np.moveaxis(touched.astype(int), -1, 0)
    changed = (plain != touched).any(axis=2)
    assert 500 < changed.sum() < 0.2 * changed.size
    assert (green > red + 40)[changed].mean() > 0.9


def coloured(picture, colour):
    return (np.abs(picture.astype(int) - colour[:3]) < 12).all(axis=2)


def test_the_overlay_leaves_the_middle_of_the_picture_free():
    blank = np.full((480, 720, 3), 128, dtype=np.uint8)
    inset = np.zeros((90, 120, 3), np.uint8)
    full = Overlay("object", "trial 7", "success", True, Phase({"lift": 1.0}, 0.5), {"thumb": True}, inset, "depth")
    changed = (draw_overlay(blank, full) != blank).any(axis=2)
    assert changed.any()
    assert not changed[200:280, 100:].any()
    assert not changed[80:420, 150:500].any()
    assert (draw_overlay(blank, Overlay()) == blank).all()


@pytest.mark.parametrize(("time_s", "share"), [(-1.0, 0.0), (0.0, 0.0), (1.0, 0.25), (2.0, 0.5), (4.0, 1.0)])
def test_the_timeline_is_filled_as_far_as_the_attempt_has_come(time_s, share):
    from dexgrasp.sim.rendering.overlay import PHASES

    blank = np.full((480, 720, 3), 128, dtype=np.uint8)
    picture = draw_overlay(blank, Overlay(phase=Phase({"grasp": 1.5, "lift": 0.5, "hold": 2.0}, time_s)))
    bar = picture[480 - 18 : 480 - 14]  # its middle: 1.1 text heights of 15 pixels above the edge
    filled = sum(coloured(bar, colour).any(axis=0).sum() for colour in PHASES)
    assert filled / (720 - 36) == pytest.approx(share, abs=0.04)  # gaps between the phases


def test_the_name_of_the_phase_stands_before_an_attempt_only():
    blank = np.full((480, 720, 3), 128, dtype=np.uint8)

    def right_end(time_s, name):
        return draw_overlay(blank, Overlay(phase=Phase({"lift": 1.0}, time_s, name)))[440:462, 600:]

    assert (right_end(-0.1, "retreat") != right_end(-0.1, "")).any()
    assert (right_end(0.1, "lift") == right_end(0.1, "")).all()


def test_a_finger_that_touches_has_a_filled_dot():
    from dexgrasp.sim.rendering.overlay import TOUCH

    blank = np.full((480, 720, 3), 128, dtype=np.uint8)
    dots = [
        coloured(draw_overlay(blank, Overlay(contacts={"thumb": thumb, "index": index})), TOUCH).sum()
        for thumb, index in ((False, False), (True, False), (True, True))
    ]
    area = np.pi * (0.35 * 15) ** 2
    assert dots[0] == 0
    assert dots[1] == pytest.approx(area, rel=0.4)
    assert dots[2] == 2 * dots[1]


@pytest.mark.parametrize("suffix", [".gif", ".webp"])
def test_an_animation_repeats_for_ever_at_its_rate(tmp_path, suffix):
    path = tmp_path / f"a{suffix}"
    with VideoWriter(path, 12.5, 80, 48) as writer:
        for i in range(5):
            writer.append(np.full((48, 80, 3), 40 * i, np.uint8))
    with Image.open(path) as image:
        assert image.size == (80, 48)
        assert image.info["loop"] == 0
        frames = [
            (frame.convert("RGB").getpixel((5, 5))[0], frame.info["duration"])
            for frame in ImageSequence.Iterator(image)
        ]
    assert [round(value / 40) for value, _ in frames] == [0, 1, 2, 3, 4]
    assert {duration for _, duration in frames} == {80}


def test_an_exception_leaves_no_file_behind(tmp_path, scene):
    with pytest.raises(RuntimeError, match="stop"), VideoRecorder(tmp_path / "a.mp4", rate_hz=20) as recorder:
        recorder.capture(*scene)
        raise RuntimeError("stop")
    assert list(tmp_path.iterdir()) == []


def test_a_recording_needs_a_playable_name_and_size(tmp_path):
    with pytest.raises(ValueError, match=r"is an \.mp4, \.gif or \.webp file, got '.*a\.avi'"):
        VideoRecorder(tmp_path / "a.avi", rate_hz=20)
    with pytest.raises(ValueError, match="multiples of 16 pixels, got 650 x 480"):
        VideoRecorder(tmp_path / "a.mp4", rate_hz=20, width=650)


@pytest.mark.parametrize("suffix", [".mp4", ".gif"])
def test_a_recording_without_frames_is_an_error_and_leaves_no_file(tmp_path, suffix):
    path = tmp_path / f"a{suffix}"
    with pytest.raises(ValueError, match="nothing was captured for"), VideoRecorder(path, rate_hz=20):
        pass
    with pytest.raises(ValueError, match="nothing was captured for"):
        VideoWriter(path, 20, 80, 48).close()
    assert list(tmp_path.iterdir()) == []


def test_an_animation_that_cannot_be_saved_leaves_no_file(tmp_path):
    writer = VideoWriter(tmp_path / "a.webp", 20, 20000, 2)
    writer.append(np.zeros((2, 20000, 3), np.uint8))  # WebP has at most 16383 pixels a side
    with pytest.raises(ValueError, match="16383 pixels"):
        writer.close()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("azimuth_deg", [None, 0.0, 90.0])
def test_the_camera_looks_in_the_direction_that_was_asked_also_in_zero(scene, azimuth_deg):
    renderer = Renderer((BOX, FACES), azimuth_deg=azimuth_deg)
    renderer.shoot(*scene)
    renderer.close()
    assert renderer.camera.camera.azimuth == pytest.approx(135.0 if azimuth_deg is None else azimuth_deg)


def test_a_studio_that_fails_half_way_frees_its_first_renderer(scene, monkeypatch):
    opened = []

    def open_one(*words, **options):
        if opened:
            raise RenderUnavailable({"egl": "no second context"})
        opened.append(offscreen.open_renderer(*words, **options))
        return opened[0]

    monkeypatch.setattr(studio, "open_renderer", open_one)
    with pytest.raises(RenderUnavailable):
        studio.Studio(scene[0], 64, 48)
    assert opened[0]._gl_context is None  # as after Renderer.close
