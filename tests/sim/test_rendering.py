"""Headless pictures: the choice of OpenGL, the camera's subject, and MP4 files that play everywhere."""

import subprocess
import sys

import imageio_ffmpeg
import mujoco
import numpy as np
import pytest

from dexgrasp.sim.rendering import offscreen
from dexgrasp.sim.rendering.offscreen import RenderUnavailable, VideoRecorder

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


def film(path, scene, frames=1, caption="", **options):
    with VideoRecorder(path, rate_hz=20, **options) as recorder:
        for _ in range(frames):
            recorder.capture(*scene, caption)
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
        "faces = np.array([[0, 1, 2], [0, 3, 1], [0, 2, 3], [1, 3, 2]], np.int32)\n"
        "picture = offscreen.render_mesh((np.eye(4, 3, dtype=np.float32) * 0.1, faces), 64)\n"
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


def test_the_object_moves_in_the_picture_when_it_moves_in_the_world(tmp_path, scene):
    model, data = scene
    with VideoRecorder(tmp_path / "a.mp4", rate_hz=20, mesh=(BOX, FACES)) as recorder:
        recorder.capture(model, data)
        data.qpos[2] += 0.1
        mujoco.mj_forward(model, data)
        recorder.capture(model, data)
    low, high = read_video(tmp_path / "a.mp4")
    rise_px = orange_centre(low)[0] - orange_centre(high)[0]
    # 0.1 m at 0.68 m: 480 px / (2 tan 18 deg) / 0.68 * 0.1 * cos 25 deg = 98 px, more as it comes nearer
    assert rise_px == pytest.approx(98, rel=0.15)


def test_a_caption_changes_only_the_lower_left_corner():
    blank = np.full((480, 640, 3), 230, dtype=np.uint8)
    changed = (offscreen.write_caption(blank, "trial 7") != blank).any(axis=2)
    rows, columns = np.nonzero(changed)
    assert rows.min() > 430
    assert columns.max() < 200
    assert (offscreen.write_caption(blank, "") == blank).all()


def test_an_exception_leaves_no_file_behind(tmp_path, scene):
    with pytest.raises(RuntimeError, match="stop"), VideoRecorder(tmp_path / "a.mp4", rate_hz=20) as recorder:
        recorder.capture(*scene)
        raise RuntimeError("stop")
    assert list(tmp_path.iterdir()) == []


def test_a_recording_needs_a_playable_name_and_size(tmp_path):
    with pytest.raises(ValueError, match=r"is an \.mp4 file, got '.*a\.avi'"):
        VideoRecorder(tmp_path / "a.avi", rate_hz=20)
    with pytest.raises(ValueError, match="multiples of 16 pixels, got 650 x 480"):
        VideoRecorder(tmp_path / "a.mp4", rate_hz=20, width=650)


def test_a_recording_without_frames_leaves_no_file(tmp_path):
    with VideoRecorder(tmp_path / "a.mp4", rate_hz=20):
        pass
    assert list(tmp_path.iterdir()) == []
