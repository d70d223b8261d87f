"""Importing folders of meshes: units, repairs, refusals with reasons, thin walls, caching, kills and crashes."""

import json
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import trimesh

from dexgrasp.policies.cli.main import main
from dexgrasp.sim.objects import open_library, shapes
from dexgrasp.sim.objects.decomposition import decompose
from dexgrasp.sim.objects.importer import ImportSettings, import_meshes
from dexgrasp.sim.objects.mesh_files import file_doubt, guess_unit, unit_doubt
from dexgrasp.sim.objects.model_builder import hull_volume


def write(path: Path, shape: shapes.Shape, scale: float = 1.0, drop_faces: int = 0) -> None:
    vertices, faces = shape.mesh()
    path.parent.mkdir(parents=True, exist_ok=True)
    trimesh.Trimesh(vertices * scale, faces[drop_faces:], process=False).export(path)


def cup() -> shapes.Shape:
    outer = np.array([(0.030, 0.0), (0.036, 0.09)])
    inner = np.array([(0.027, 0.004), (0.0335, 0.09)])
    return shapes.shell(outer, inner, sectors=16)


@pytest.fixture(scope="module")
def mixed(tmp_path_factory):
    """A nested folder in millimetres with good meshes of all formats and one of each kind of bad one."""
    folder = tmp_path_factory.mktemp("mixed")
    write(folder / "block.obj", shapes.box(0.09, 0.05, 0.03), 1000)
    write(folder / "deep" / "er" / "ball.stl", shapes.ellipsoid(0.07, 0.07, 0.07), 1000)
    write(folder / "deep" / "cup.ply", cup(), 1000)
    write(folder / "block.glb", shapes.box(0.08, 0.06, 0.03))  # glTF states metres
    write(folder / "open.ply", shapes.ellipsoid(0.07, 0.07, 0.07), 1000, drop_faces=60)
    write(folder / "sheet.stl", shapes.box(0.1, 0.1, 0.001), 1000)
    write(folder / "house.obj", shapes.box(5, 5, 5), 1000)
    (folder / "empty.obj").write_text("# nothing\n")
    (folder / "nan.obj").write_text("v 0 0 0\nv nan 0 0\nv 0 50 0\nv 0 0 50\nf 1 3 2\nf 1 2 4\nf 2 3 4\nf 1 4 3\n")
    (folder / "noise.glb").write_bytes(b"glTF but not really" * 5)
    return folder


@pytest.fixture(scope="module")
def report(mixed, tmp_path_factory):
    return import_meshes(mixed, tmp_path_factory.mktemp("out") / "lib", workers=1, progress=False)


def test_good_meshes_of_all_formats_are_imported_from_nested_folders(report):
    assert report.library.names == ["block_glb", "block_obj", "deep_cup", "deep_er_ball"]
    assert report.library.entry("deep_cup").source == str(Path("deep") / "cup.ply")


def test_what_an_earlier_import_left_is_counted_in_words(report):
    assert f"4 objects of {report.files} files in {report.library.path}, unit" in report.summary()
    for reused, said in ((1, "(1 was imported earlier)"), (2, "(2 were imported earlier)")):
        lines = replace(report, reused=reused, files=1, refused={"a.obj": "empty"}).summary()
        assert f"of 1 file in {report.library.path} {said}, unit" in lines and "\n1 mesh refused:\n" in lines


def test_the_unit_is_guessed_from_the_whole_folder_and_said(report):
    assert (report.unit, report.scale) == ("mm", 0.001)
    assert "unit guessed: mm" in report.summary()
    np.testing.assert_allclose(report.library["block_obj"].extents, [0.09, 0.05, 0.03], atol=2e-5)


@pytest.mark.parametrize(
    ("longest", "unit"), [([0.11, 0.2, 3.0], "m"), ([9.0, 14.0], "cm"), ([80.0, 150.0, 0.1], "mm")]
)
def test_units_are_guessed_from_the_median_longest_side(longest, unit):
    assert guess_unit(longest) == unit


def test_a_given_scale_overrides_the_guess(mixed, tmp_path):
    only = tmp_path / "only"
    write(only / "block.obj", shapes.box(0.09, 0.05, 0.03))
    report = import_meshes(only, tmp_path / "lib", ImportSettings(scale=0.5), workers=1, progress=False)
    np.testing.assert_allclose(report.library["block"].extents, [0.045, 0.025, 0.015], atol=2e-5)


@pytest.mark.parametrize(
    ("file", "reason"),
    [
        ("empty.obj", "empty"),
        ("nan.obj", "not finite"),
        ("open.ply", "not closed"),
        ("sheet.stl", "too thin"),
        ("house.obj", "too large"),
        ("noise.glb", "unreadable"),
    ],
)
def test_each_bad_mesh_is_refused_with_its_reason_and_stops_nothing(report, file, reason):
    assert report.refused[file].startswith(reason)
    assert f"{file}: {reason}" in report.summary()


def test_mass_is_density_times_volume_within_the_allowed_range(report):
    # block: 600 kg/m^3 * 135 cm^3 = 81 g
    assert report.library["block_obj"].mass == pytest.approx(0.081, rel=1e-3)
    assert 0.03 <= report.library["deep_cup"].mass <= 0.5


def test_a_mesh_turned_inside_out_is_turned_right(tmp_path):
    vertices, faces = shapes.box(0.08, 0.05, 0.04).mesh()
    (tmp_path / "in").mkdir()
    trimesh.Trimesh(vertices, faces[:, ::-1], process=False).export(tmp_path / "in" / "inside.obj")
    model = import_meshes(tmp_path / "in", tmp_path / "lib", workers=1, progress=False).library["inside"]
    assert (np.sum(model.points * model.normals, axis=1) > 0).all()


def test_the_hollow_of_a_cup_survives_the_decomposition(report):
    entry = report.library.entry("deep_cup")
    assert entry.concavity > 0.7  # the mesh is mostly hollow
    assert entry.piece_volume_ratio < 1.35  # and so are the pieces: its one hull would be 3.5 or more
    model = report.library["deep_cup"]
    inside = np.array([0, 0, model.vertices[:, 2].max() - 0.01])
    assert not any(holds(piece, inside) for piece in model.pieces)


def holds(piece: np.ndarray, point: np.ndarray) -> bool:
    from scipy.spatial import Delaunay

    return bool(Delaunay(piece).find_simplex(point) >= 0)


def test_a_convex_mesh_stays_one_piece():
    vertices, faces = shapes.ellipsoid(0.08, 0.06, 0.05).mesh()
    assert len(decompose(vertices, faces)) == 1


@pytest.mark.parametrize("method", ["cuts", "coacd"])
def test_each_method_keeps_an_l_shape_within_a_tenth_of_its_volume(method):
    vertices, faces = (shapes.box(0.1, 0.03, 0.03) + shapes.box(0.03, 0.08, 0.03).moved(x=0.035, y=0.03)).mesh()
    pieces = decompose(vertices, faces, limit=8, method=method)
    volume = trimesh.Trimesh(vertices, faces).volume
    assert sum(map(hull_volume, pieces)) == pytest.approx(volume, rel=0.1)


def test_a_second_import_does_nothing_and_a_changed_file_alone_is_done_again(tmp_path):
    folder, out = tmp_path / "in", tmp_path / "lib"
    write(folder / "a.obj", shapes.box(0.08, 0.05, 0.04))
    write(folder / "b.obj", shapes.box(0.10, 0.05, 0.04))
    first = import_meshes(folder, out, workers=1, progress=False)
    second = import_meshes(folder, out, workers=1, progress=False)
    assert (first.reused, second.reused) == (0, 2)
    assert second.library.entries == first.library.entries
    write(folder / "b.obj", shapes.box(0.12, 0.05, 0.04))
    third = import_meshes(folder, out, ImportSettings(), workers=1, progress=False)
    assert third.reused == 1
    assert third.library["b"].extents[0] == pytest.approx(0.12, abs=1e-4)


def test_a_second_import_needs_none_of_the_heavy_libraries(mixed, report):
    code = (
        "import sys; from dexgrasp.sim.objects.importer import import_meshes;"
        f"r = import_meshes({str(mixed)!r}, {str(report.library.path)!r}, progress=False);"
        "assert r.reused == 10, r.reused; assert not {'mujoco', 'coacd', 'trimesh'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[2])


def test_a_folder_without_meshes_is_an_error_that_lists_the_formats(tmp_path):
    with pytest.raises(
        FileNotFoundError, match=r"holds no meshes; expected files ending in \.obj, \.stl, \.ply, \.glb"
    ):
        import_meshes(tmp_path, tmp_path / "lib")


@pytest.mark.parametrize(("unit", "sizes_mm"), [("m", (60, 70, 80)), ("cm", (90, 90))])
def test_a_wrong_unit_of_all_files_is_told_once_with_the_right_one(unit, sizes_mm, tmp_path):
    for k, size in enumerate(sizes_mm):
        write(tmp_path / f"in/m{k}.obj", shapes.box(size, size, size / 2))  # fits millimetres alone
    with pytest.raises(ValueError, match=rf"none of {len(sizes_mm)} .*: all {len(sizes_mm)} fit unit=mm") as told:
        import_meshes(tmp_path / "in", tmp_path / "lib", ImportSettings(unit=unit), workers=1, progress=False)
    assert str(told.value).count("too large") == 1


def test_a_folder_of_meshes_can_be_opened_as_a_library(tmp_path, monkeypatch):
    monkeypatch.setenv("DEXGRASP_CACHE", str(tmp_path / "cache"))
    write(tmp_path / "in" / "block.obj", shapes.box(0.09, 0.05, 0.03))
    assert open_library(tmp_path / "in").names == ["block"]


def test_an_unchanged_folder_is_read_once_by_a_process(tmp_path, monkeypatch, caplog):
    monkeypatch.setenv("DEXGRASP_CACHE", str(tmp_path / "cache"))
    (tmp_path / "in").mkdir()
    trimesh.creation.box((0.04, 0.05, 0.06)).export(tmp_path / "in/block.stl")
    with caplog.at_level("INFO", "dexgrasp"):
        first = open_library(tmp_path / "in")
        assert open_library(tmp_path / "in") is first
        assert sum("unit guessed" in message for message in caplog.messages) == 1
        trimesh.creation.box((0.08, 0.05, 0.06)).export(tmp_path / "in/block.stl")
        changed = open_library(tmp_path / "in")
    assert [max(library.entries[0].extents) for library in (first, changed)] == pytest.approx([0.06, 0.08], abs=1e-5)


@pytest.mark.parametrize(
    ("setting", "said"),
    [({"scale": -1.0}, "scale must be positive"), ({"decomposition": "vhacd"}, "known: auto, cuts, coacd")],
)
def test_impossible_settings_are_errors_that_say_what_is_expected(setting, said):
    with pytest.raises(ValueError, match=said):
        ImportSettings(**setting)


@pytest.mark.parametrize(("signals", "status"), [([signal.SIGKILL], {-9}), ([signal.SIGINT] * 3, {130, -2})])
def test_after_a_stop_nothing_is_half_written_and_the_next_run_goes_on(tmp_path, signals, status):
    folder, out = tmp_path / "in", tmp_path / "lib"
    for k in range(6):
        write(folder / f"m{k:02d}.obj", shapes.box(0.05 + 0.01 * k, 0.05, 0.04))
    command = [sys.executable, "-m", "dexgrasp", "objects", "import", folder, f"out={out}", "workers=1"]
    process = subprocess.Popen(command, cwd=Path(__file__).parents[2], stderr=subprocess.PIPE, text=True)
    while not list(out.glob("objects/[!.]*.npz")) and process.poll() is None:
        time.sleep(0.005)
    for number in signals:
        process.send_signal(number)
        time.sleep(0.1)
    _, said = process.communicate(timeout=30)
    assert process.returncode in status  # -2: the third one came when the interpreter was already ending
    assert "Traceback" not in said and said.count("interrupted; what was finished is kept") == (130 in status)
    for path in (out / "objects").glob("m*.npz"):
        assert len(np.load(path).files) > 5
    for path in (out / "imported").glob("[!.]*.json"):  # a partial file has a name that nothing reads
        json.loads(path.read_text())
    with pytest.raises(FileNotFoundError, match="unfinished import: give its `objects import` command again"):
        open_library(out)
    report = import_meshes(folder, out, workers=1, progress=False)
    assert len(report.library) == 6 and not list(out.rglob(".partial-*"))


def solid_obj(*boxes, offset=0):
    """OBJ text of boxes (centre, extents), each an object of its own."""
    lines, count = [], offset
    for centre, extents in boxes:
        mesh = trimesh.creation.box(extents)
        lines += [f"v {x:.6f} {y:.6f} {z:.6f}" for x, y, z in mesh.vertices + centre]
        lines += ["f " + " ".join(str(i + 1 + count) for i in face) for face in mesh.faces]
        count += len(mesh.vertices)
    return "\n".join(lines) + "\n"


def test_boxes_that_touch_along_an_edge_are_one_object(tmp_path):
    """They share an edge of four faces: 0.04 x 0.04 x 0.06 m and 0.03 x 0.03 x 0.06 m beside it, corner to corner."""
    folder = tmp_path / "in"
    folder.mkdir()
    boxes = ((0, 0, 0), (0.04, 0.04, 0.06)), ((0.035, 0.035, 0), (0.03, 0.03, 0.06))
    (folder / "touching.obj").write_text(solid_obj(*boxes))
    report = import_meshes(folder, tmp_path / "out", ImportSettings(scale=1.0), workers=1, progress=False)
    (entry,) = report.library.entries
    assert entry.extents == pytest.approx((0.07, 0.07, 0.06), abs=1e-4)
    assert entry.mass == pytest.approx(600 * (0.04 * 0.04 + 0.03 * 0.03) * 0.06, rel=1e-3)


def test_a_closed_mesh_with_a_triangle_without_area_is_accepted(tmp_path):
    """A vertex on the edge of a box: removing the flat triangle would open it."""
    mesh = trimesh.creation.box((0.06, 0.04, 0.03))
    vertices = [*mesh.vertices.tolist(), ((mesh.vertices[0] + mesh.vertices[1]) / 2).tolist()]
    a, b, m = 0, 1, len(vertices) - 1
    faces = []
    for face in mesh.faces.tolist():  # one of the two faces at the edge is split, the other gets a flat triangle
        if {a, b} <= set(face):
            i = next(k for k in range(3) if {face[k], face[(k + 1) % 3]} == {a, b})
            p, q, r = face[i], face[(i + 1) % 3], face[(i + 2) % 3]
            faces += [[p, m, r], [m, q, r]] if not any(m in f for f in faces) else [face, [q, p, m]]
        else:
            faces.append(face)
    folder = tmp_path / "in"
    folder.mkdir()
    text = [f"v {x:.6f} {y:.6f} {z:.6f}" for x, y, z in vertices]
    text += ["f " + " ".join(str(k + 1) for k in face) for face in faces]
    (folder / "flat.obj").write_text("\n".join(text))
    report = import_meshes(folder, tmp_path / "out", ImportSettings(scale=1.0), workers=1, progress=False)
    assert report.library.entries[0].mass == pytest.approx(600 * 0.06 * 0.04 * 0.03, rel=1e-3)


def test_a_folder_without_a_likely_unit_is_refused_and_sizes_are_said(tmp_path):
    folder = tmp_path / "in"
    folder.mkdir()
    (folder / "unit_sphere.obj").write_text(solid_obj(((0, 0, 0), (1.8, 0.9, 0.9))))
    with pytest.raises(
        ValueError,
        match=r"median longest side is 1\.8, which is 1\.8 m in m, 0\.18 m in dm, 0\.018 m in cm.*give unit=",
    ):
        import_meshes(folder, tmp_path / "out", workers=1, progress=False)
    report = import_meshes(folder, tmp_path / "out", ImportSettings(scale=0.06), workers=1, progress=False)
    assert "longest side: median 0.108 m" in report.summary()


def _folder(place: Path, files: dict[str, tuple[shapes.Shape, float]]) -> Path:
    for name, (shape, scale) in files.items():
        write(place / name, shape, scale)
    return place


BLOCK = shapes.box(0.09, 0.05, 0.03)


def test_a_stated_unit_holds_for_its_file_and_has_no_say_about_others(tmp_path):
    """GLB files in metres outnumber the files in millimetres; two files of one thing count once."""
    glbs = {f"c{k}.glb": (shapes.box(0.06 + 0.02 * k, 0.05, 0.04), 1.0) for k in range(3)}
    in_mm = {"block.stl": (BLOCK, 1000), "plate.ply": (shapes.box(0.1, 0.08, 0.02), 1000)}
    folder = _folder(tmp_path / "in", {**in_mm, "block.glb": (BLOCK, 1.0), **glbs})
    report = import_meshes(folder, tmp_path / "lib", workers=1, progress=False)
    assert not report.refused and report.unit == "mm" and len(report.left_out) == 1
    sizes = {entry.name: entry.extents for entry in report.library.entries}
    expected = {"block": (0.09, 0.05, 0.03), "plate": (0.1, 0.08, 0.02)}
    expected |= {f"c{k}": (0.06 + 0.02 * k, 0.05, 0.04) for k in range(3)}
    assert sizes == {name: pytest.approx(size, abs=1e-4) for name, size in expected.items()}
    assert (
        "unit guessed: mm, unit stated by the format (glTF: m): block.glb, c0.glb, c1.glb, c2.glb, longest"
        in report.summary()
    )


def test_files_without_a_likely_unit_do_not_stop_those_that_state_theirs(tmp_path):
    folder = _folder(tmp_path / "in", {"sphere.obj": (shapes.box(1.8, 0.9, 0.9), 1.0), "block.glb": (BLOCK, 1.0)})
    report = import_meshes(folder, tmp_path / "lib", workers=1, progress=False)
    assert report.library.names == ["block"] and list(report.refused) == ["sphere.obj"]
    assert report.refused["sphere.obj"].startswith("the unit of these meshes cannot be guessed: their median")


@pytest.mark.parametrize(
    ("others", "one", "size", "way"),
    [
        (1.0, 1000, "too large: longest side 90.000 m, at most 0.35 m", "unit=mm (0.09 m)"),
        (1000, 1.0, "too small: longest side 0.000090 m, at least 0.01 m", "unit=m (0.09 m)"),
        (1.0, 100, "too large: longest side 9.000 m, at most 0.35 m", "unit=cm (0.09 m) or unit=inch (0.229 m)"),
        (1.0, 5e5, "too large: longest side 45000.000 m, at most 0.35 m", ""),
    ],
)
def test_a_file_in_another_unit_than_the_others_is_refused_with_its_size_in_the_units_that_fit(
    others, one, size, way, tmp_path
):
    several = {f"c{k}.obj": (shapes.box(0.06 + 0.02 * k, 0.05, 0.04), others) for k in range(3)}
    folder = _folder(tmp_path / "in", {**several, "odd.stl": (BLOCK, one)})
    report = import_meshes(folder, tmp_path / "lib", workers=1, progress=False)
    assert report.library.names == ["c0", "c1", "c2"]
    advice = f"if it is in another unit, give {way}" if way else "give scale=... or size=..."
    assert report.refused == {
        "odd.stl": f"{size}; {advice}, with include=... and an out= of its own, or convert the file"
    }
    assert report.refused["odd.stl"] in report.summary()


def test_a_glb_file_in_millimetres_is_refused_and_a_given_unit_rules_over_the_stated_one(tmp_path):
    folder = _folder(tmp_path / "in", {"wrong.glb": (BLOCK, 1000), "right.glb": (BLOCK, 1.0)})
    report = import_meshes(folder, tmp_path / "lib", workers=1, progress=False)
    assert report.library.names == ["right"] and "unit guessed" not in report.summary()
    assert report.refused["wrong.glb"].startswith(
        "too large: longest side 90.000 m, at most 0.35 m; glTF states metres"
    )
    assert "give unit=mm (0.09 m) or size=..., with include=" in report.refused["wrong.glb"]
    given = ImportSettings(unit="mm", include=("wrong*",))
    (entry,) = import_meshes(folder, tmp_path / "mm", given, workers=1, progress=False).library.entries
    assert entry.extents == pytest.approx((0.09, 0.05, 0.03), abs=1e-4)


@pytest.mark.parametrize(
    ("median", "said"),
    [
        (3.0, "0.030 m in cm, 0.300 m in dm, 0.076 m in inch"),
        (30.0, "0.300 m in cm, 0.030 m in mm"),
        (0.32, "0.320 m in m, 0.032 m in dm"),
        (10.0, "0.100 m in cm, 0.010 m in mm, 0.254 m in inch"),
        (80.0, ""),
        (0.12, ""),
    ],
)
def test_a_guess_is_doubted_where_another_unit_gives_a_size_for_the_hand(median, said):
    doubt = unit_doubt([median], guess_unit([median]))
    assert doubt == (f"the median longest side is {said}; give unit=... if the first is wrong" if said else "")


@pytest.mark.parametrize(
    ("longest", "unit", "sizes"),
    [
        (14.0, "mm", "14 mm as mm, 0.14 m as cm"),
        (2.9, "cm", ""),  # no usual unit gives it a size for the hand
        (30.0, "mm", ""),
        (5.0, "mm", ""),
        (90.0, "mm", ""),
        (0.02, "m", ""),
    ],
)
def test_a_file_is_doubted_where_it_is_small_and_another_unit_fits_it(longest, unit, sizes):
    assert file_doubt(longest, unit) == (f"{sizes}: if it is in another unit, import it alone" if sizes else "")


def test_an_import_within_a_command_says_unit_and_mixed_units_on_screen_and_in_the_log(tmp_path, capsys, monkeypatch):
    folder, out = tmp_path / "in", tmp_path / "run"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for name, shape, scale in (
        ("box_cm.obj", shapes.box(0.14, 0.07, 0.06), 100),
        ("can.stl", shapes.box(0.05, 0.05, 0.09), 1000),
        ("tin.stl", shapes.box(0.06, 0.05, 0.115), 1000),
    ):
        write(folder / name, shape, scale)
    words = [f"objects={folder}", f"out={out}", "policy=synergy", "trials=1", "num_envs=1", "task.hold_s=0.2"]
    assert main(["evaluate", *words, "videos=0"]) == 0
    for said in (capsys.readouterr().err, (out / "run.log").read_text()):
        assert said.count("unit guessed: mm, longest side: median 0.090 m, 0.014 to 0.115 m") == 1
        assert "1 file may be in another unit than the others:" in said
        assert (
            "box_cm.obj: 14 mm as mm, 0.14 m as cm: if it is in another unit, import it alone, with unit=..., include="
            in said
        )
