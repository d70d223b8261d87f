"""Scans: frames and board poses against the true poses, a rendered box against its exact shape, refusals."""

import json
import re
import shutil

import numpy as np
import pytest
from PIL import Image

from dexgrasp.perception.calibration.board_layout import BoardCfg
from dexgrasp.perception.cameras.depth import CameraError
from dexgrasp.perception.cameras.open import open_camera
from dexgrasp.perception.scanning.board_poses import poses_from_board
from dexgrasp.perception.scanning.frames import ScanError, read_frames
from dexgrasp.policies.cli.main import main
from tests.helpers import synthetic_scan as synthetic

HALF_M = np.array([0.03, 0.02, 0.025])
CAMERA = synthetic.SMALL
POSES = np.concatenate([synthetic.ring(10, 32, 0.3), synthetic.ring(6, 58, 0.3, first_deg=10)])
BOX = synthetic.box_scene(tuple(HALF_M))


@pytest.fixture(scope="module")
def box(tmp_path_factory):
    """A folder of 16 frames of 320 by 240 pixels: a box of 60 x 40 x 50 mm in the middle of the board."""
    return synthetic.render(BOX, POSES, camera=CAMERA).save(tmp_path_factory.mktemp("scan") / "box")


@pytest.fixture
def frames_folder(box, tmp_path):
    """A copy of the folder, to damage."""
    return shutil.copytree(box, tmp_path / "frames")


def read(folder, most=100):
    with open_camera(str(folder)) as source:
        return read_frames(source, most)


def change(folder, kind, edit):
    """Rewrite the images of a folder: edit(number, array)."""
    for number, file in enumerate(sorted((folder / kind).iterdir())):
        Image.fromarray(edit(number, np.array(Image.open(file)))).save(file)


def test_colour_and_depth_of_a_folder_are_read_together(box):
    with open_camera(str(box)) as source:
        frame = source.read()
    assert frame.color is not None and frame.color.shape == (240, 320, 3) and frame.stream == "color"
    assert np.array_equal(frame.color, np.asarray(Image.open(box / "color/000000.png")))
    assert frame.depth_m.max() == pytest.approx(np.asarray(Image.open(box / "depth/000000.png")).max() / 1000)


def test_a_long_recording_is_thinned_evenly(box):
    assert [frame.name for frame in read(box, 12)][::11] == ["frame 0", "frame 15"]
    assert len(read(box, 12)) == 12


def test_board_poses_are_those_of_the_camera(box):
    posed = poses_from_board(read(box), BoardCfg())
    assert len(posed.frames) == len(POSES) and not posed.left_out and posed.scale == pytest.approx(1, abs=0.004)
    for frame, T in zip(posed.frames, POSES, strict=True):
        assert np.abs(frame.T_table_cam[:3, 3] - T[:3, 3]).max() < 0.0015, frame.name
        assert np.abs(frame.T_table_cam[:3, :3] - T[:3, :3]).max() < 0.004, frame.name


@pytest.mark.parametrize(
    ("change_settings", "message"),
    [
        ({"depth_unit_m": 0.00108}, r"wrong scale: depth is 1\.07\d times what the board says .*measure a square"),
        ({"stream": "depth"}, "not in the pixels of the colour camera: align them"),
    ],
)
def test_settings_that_contradict_the_images(frames_folder, change_settings, message):
    settings = json.loads((frames_folder / "camera.json").read_text()) | change_settings
    (frames_folder / "camera.json").write_text(json.dumps(settings))
    with pytest.raises(ScanError, match=message):
        poses_from_board(read(frames_folder), BoardCfg())


def test_frames_that_do_not_match_or_hold_nothing(frames_folder, tmp_path):
    (frames_folder / "color/000003.png").unlink()
    with pytest.raises(CameraError, match=r"got 16 and 15, 1 name without a partner, the first .000003"):
        read(frames_folder)
    shutil.rmtree(frames_folder / "color")
    with pytest.raises(ScanError, match="no colour: record depth and colour"):
        read(frames_folder)
    for number in range(5, 16):
        (frames_folder / f"depth/{number:06d}.png").unlink()
    with pytest.raises(ScanError, match="5 frames, at least 12 from all sides are needed"):
        read(frames_folder)


def test_colour_of_another_size_and_images_without_depth(frames_folder):
    change(frames_folder, "depth", lambda n, depth: depth * (np.arange(320) < 20).astype(np.uint16))
    with pytest.raises(ScanError, match="no depth: at most 6 % of the pixels"):
        read(frames_folder)
    change(frames_folder, "color", lambda n, color: color[::2, ::2])
    with pytest.raises(ScanError, match=r"frame 0 has depth of \(240, 320\) pixels and colour of \(120, 160\) pixels"):
        read(frames_folder)


def test_a_board_that_is_not_seen_or_another_one(frames_folder):
    with pytest.raises(ScanError, match=r"the board is in none of the first 3 frames: .*board.columns=7"):
        poses_from_board(read(frames_folder), BoardCfg(columns=5, rows=7))
    change(frames_folder, "color", lambda n, color: color if n < 6 else color * 0 + 90)
    with pytest.raises(ScanError, match=r"lost track: the pose is known in \d+ of 16 frames, at least 12"):
        poses_from_board(read(frames_folder), BoardCfg())


def scan(folder, out, *words):
    return main(["objects", "scan", str(folder), f"out={out}", "fusion.region_m=0.3", "name=box", *words])


@pytest.fixture(scope="module")
def library(box, tmp_path_factory):
    """The library of the scanned box."""
    pytest.importorskip("open3d", reason="needs the extra `scan`")
    out = tmp_path_factory.mktemp("library") / "things"
    assert scan(box, out, "mass=0.21") == 0
    return out


def test_the_scanned_box_has_its_size_place_and_mass(library):
    import trimesh

    from dexgrasp.sim.objects import open_library

    mesh = trimesh.load_mesh(library / "scans/box.ply")
    assert mesh.is_watertight and mesh.volume == pytest.approx(8 * HALF_M.prod(), rel=0.05)
    points = mesh.sample(4000, seed=0)
    away = np.abs(points - (0, 0, HALF_M[2])) - HALF_M  # signed distance to an axis-aligned box
    distance_m = np.linalg.norm(away.clip(0), axis=1) + np.minimum(away.max(1), 0)
    assert np.median(np.abs(distance_m)) < 0.0008 and np.percentile(np.abs(distance_m), 95) < 0.002
    [entry] = open_library(library).entries
    assert (
        entry.name == "box"
        and entry.mass == 0.21
        and sorted(entry.extents) == pytest.approx(sorted(2 * HALF_M), abs=0.0025)
    )
    report = json.loads((library / "scans/box.json").read_text())
    assert report["frames"] == 16 and report["holes"] < 0.06 and report["residual_m"] < 0.001
    with Image.open(library / "scans/box.png") as picture:
        assert picture.size[0] > 300


def test_a_second_thing_joins_the_library_and_a_name_is_given_once(library, box, capsys):
    assert scan(box, library) == 2
    assert "holds a scan 'box' already: choose another name=" in capsys.readouterr().err


def test_what_would_fail_after_the_first_pass_is_refused_before_it(box, tmp_path, capsys):
    out = f"out={tmp_path / 'out'}"
    (tmp_path / "kept/pass_2").mkdir(parents=True)
    (tmp_path / "kept/pass_2/camera.json").write_text("{}")
    wrong = {
        (str(box), f"{box.parent}/./{box.name}"): "box is given twice: give each pass",
        (str(box), str(tmp_path / "none")): "no source of frames",
        ("realsense", "realsense", f"record={tmp_path / 'kept'}"): r"kept/pass_2 holds files already: scan from it",
        (str(box), f"record={tmp_path / 'new'}"): "record: keeps the frames of a live camera, and no source is one",
    }
    for words, text in wrong.items():
        assert main(["objects", "scan", *words, out, "name=box"]) == 2
        assert re.search(text, error := capsys.readouterr().err) and error.count("\n") == 1, error
    assert sorted(path.name for path in tmp_path.iterdir()) == ["kept"]


def make_few_views():
    return synthetic.render(BOX, synthetic.ring(16, 35, 0.3, turn_deg=200), camera=CAMERA)


def make_moved():
    """The box slips by 12 mm after half of the frames."""
    parts = [
        synthetic.render(scene, POSES[choice], camera=CAMERA)
        for scene, choice in (
            (BOX, slice(0, None, 2)),
            (synthetic.box_scene(tuple(HALF_M), (0.012, 0)), slice(1, None, 2)),
        )
    ]
    return synthetic.RenderedScan(
        parts[0].depth_m + parts[1].depth_m,
        parts[0].color + parts[1].color,
        parts[0].T_table_cam + parts[1].T_table_cam,
        CAMERA,
    )


def make_shiny():
    scan = synthetic.render(BOX, POSES, camera=CAMERA)
    rng = np.random.default_rng(0)
    for depth, T in zip(scan.depth_m, scan.T_table_cam, strict=True):
        thing = synthetic.cast(BOX, CAMERA, T)[1] > 0
        depth[thing & (rng.random(thing.shape) < 0.6)] = 0
    return scan


def make_two_things():
    return synthetic.render(
        synthetic.box_scene(tuple(HALF_M), (-0.05, 0), more=[((0.02, 0.02, 0.02), (0.06, 0))]), POSES, camera=CAMERA
    )


BAD = {
    "few views": (make_few_views, "too few views: nothing was seen from .* degrees around the thing"),
    "moved": (make_moved, "the thing moved on the table: .* frames .* contradict the others"),
    "shiny": (make_shiny, "depth is missing on [56]. % of the thing .*chalk spray"),
    "two things": (make_two_things, "more than one thing stands on the table"),
    "nothing": (lambda: synthetic.render(synthetic.table_scene(), POSES, camera=CAMERA), "nothing stands on the table"),
}


QUICK = ("few views", "moved")


@pytest.mark.parametrize(
    "kind", [kind if kind in QUICK else pytest.param(kind, marks=pytest.mark.slow) for kind in BAD]
)
def test_a_bad_scan_is_refused_in_one_line_and_leaves_nothing(kind, tmp_path, capsys):
    pytest.importorskip("open3d", reason="needs the extra `scan`")
    make, message = BAD[kind]
    assert scan(make().save(tmp_path / "frames"), tmp_path / "out") == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert re.search(message, error), error
    assert not (tmp_path / "out").exists()


@pytest.fixture(scope="module")
def orbit():
    """72 frames of one turn around the box on a textured table without a board."""
    return synthetic.render(BOX, synthetic.ring(72, 38, 0.36), camera=CAMERA, board=None)


@pytest.mark.slow
def test_odometry_tracks_a_turn_without_a_board(orbit, tmp_path):
    pytest.importorskip("open3d", reason="needs the extra `scan`")
    assert scan(orbit.save(tmp_path / "frames"), tmp_path / "out", "poses=odometry") == 0
    from dexgrasp.sim.objects import open_library

    [entry] = open_library(tmp_path / "out").entries
    assert sorted(entry.extents) == pytest.approx(sorted(2 * HALF_M), abs=0.0025)


@pytest.mark.slow
def test_a_covered_lens_is_lost_track(orbit, tmp_path, capsys):
    pytest.importorskip("open3d", reason="needs the extra `scan`")
    frames = orbit.save(tmp_path / "frames")
    for kind in ("color", "depth"):
        change(frames, kind, lambda n, image: image * 0 if 10 <= n < 14 else image)
    assert scan(frames, tmp_path / "out", "poses=odometry") == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert "lost track between frame 9 and frame 10: move slower" in error, error
    assert not (tmp_path / "out").exists()
