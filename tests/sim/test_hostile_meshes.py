"""Folders with damaged and hostile files: one file never stops the others, each is refused in one line."""

import json
import os
import socket
import struct
import zipfile
from dataclasses import replace

import pytest
import trimesh

from dexgrasp.policies.cli.main import main
from dexgrasp.sim.objects import importer, shapes
from dexgrasp.sim.objects.import_settings import ImportSettings
from dexgrasp.sim.objects.importer import import_meshes
from dexgrasp.utils import process_pool

PLY = "ply\nformat {kind} 1.0\nelement vertex {vertices}\nproperty float x\nproperty float y\nproperty float z\n"
PLY += "element face {faces}\nproperty list uchar int vertex_indices\nend_header\n"
SQUARE = "0 0 0\n1 0 0\n0 1 0\n0 0 1\n"


def box_obj(*sides):
    vertices, faces = shapes.box(*sides).mesh()
    return "".join(
        [*(f"v {x} {y} {z}\n" for x, y, z in vertices), *(f"f {a + 1} {b + 1} {c + 1}\n" for a, b, c in faces)]
    )


def glb(tree, binary=b""):
    text = json.dumps(tree).encode()
    text += b" " * (-len(text) % 4)
    chunks = struct.pack("<I4s", len(text), b"JSON") + text + struct.pack("<I4s", len(binary), b"BIN\0") + binary
    return b"glTF" + struct.pack("<II", 2, 12 + len(chunks)) + chunks


BAD = {
    "index.ply": (PLY.format(kind="ascii", vertices=4, faces=1) + SQUARE + "3 0 1 99\n", "names a vertex"),
    "negative.ply": (PLY.format(kind="ascii", vertices=4, faces=1) + SQUARE + "3 0 1 -9\n", "names a vertex"),
    "count.ply": (PLY.format(kind="binary_little_endian", vertices=2**40, faces=1).encode(), "PLY file"),
    "faces.ply": (PLY.format(kind="ascii", vertices=4, faces=2**60) + SQUARE, "not a PLY file"),
    "minus.ply": (PLY.format(kind="ascii", vertices=-4, faces=-1), "not a PLY file"),
    "count.stl": (b"\0" * 80 + struct.pack("<I", 2**32 - 1), "its header announces 4294967295 triangles, 0 are there"),
    "text.stl": (
        "solid x\nfacet normal 0 0 1\nouter loop\nvertex 0 0 0\n",
        "the STL file is cut off: no 'endsolid' at its end, after 1 facets",
    ),
    "word.stl": ("solid x\nfacet normal 0 0 1\n" + "vertex 0 0 x\n" * 3 + "endsolid x", "no number"),
    "empty.stl": ("", "it is empty: fetch"),
    "empty.ply": ("", "it is empty: fetch"),
    "empty.glb": ("", "it is empty: fetch"),
    "empty.obj": ("", "it is empty: fetch"),
    "points.obj": ("v 0 0 0\nv 1 0 0\nv 0 1 0\nv 0 0 1\n", "empty"),
    "huge.obj": (box_obj(0.1, 0.05, 0.03).replace("v 0", "v 1e308").replace("v -0", "v -1e308"), ""),
    "index.obj": ("v 0 0 0\nv 1 0 0\nv 0 1 0\nf 1 2 99999999999999999999\n", ""),
    "one_place.obj": ("v 1 1 1\n" * 5 + "f 1 2 3\nf 1 3 4\nf 2 3 4\nf 1 2 4\n", "empty"),
    "no_tree.glb": (glb([1, 2]), "not a valid GLB file"),
    "accessor.glb": (
        glb(
            {
                "meshes": [{"primitives": [{"attributes": {"POSITION": 0}}]}],
                "nodes": [{"mesh": 0}],
                "accessors": [{"count": 2**50, "type": "VEC3", "componentType": 5126, "bufferView": 0}],
                "bufferViews": [{"buffer": 0, "byteLength": 4}],
                "buffers": [{"byteLength": 4}],
            },
            b"1234",
        ),
        "unreadable",
    ),
    "circle.glb": (glb({"nodes": [{"children": [0]}], "scenes": [{"nodes": [0]}]}), "contain one another"),
    "outside.glb": (
        glb(
            {
                "meshes": [{"primitives": [{"attributes": {"POSITION": 0}}]}],
                "nodes": [{"mesh": 0}],
                "accessors": [{"count": 3, "type": "VEC3", "componentType": 5126, "bufferView": 0}],
                "bufferViews": [{"buffer": 0, "byteLength": 36}],
                "buffers": [{"byteLength": 36, "uri": "../../etc/passwd"}],
            }
        ),
        "refers to another file",
    ),
}
"""Content and what the refusal says."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    place = tmp_path_factory.mktemp("hostile")
    for name, (content, _) in BAD.items():
        (place / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    for name, sides in (("red/cup.obj", (0.09, 0.05, 0.03)), ("blue/cup.obj", (0.08, 0.06, 0.04))):
        (place / name).parent.mkdir()
        (place / name).write_text(box_obj(*sides))
    (place / "folder.obj").mkdir()
    (place / "folder.obj" / "inside.obj").write_text(box_obj(0.07, 0.07, 0.03))
    with open(os.fsencode(place) + b"/caf\xe9.obj", "w") as file:
        file.write(box_obj(0.06, 0.05, 0.05))
    (place / ("long" * 60 + ".obj")).write_text(box_obj(0.11, 0.05, 0.04))
    (place / "___.obj").write_text(box_obj(0.12, 0.05, 0.04))
    os.mkfifo(place / "pipe.stl")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(os.path.relpath(place / "socket.ply"))
    (place / "loop.obj").symlink_to("loop.obj")
    (place / "dangling.glb").symlink_to("nowhere.glb")
    (place / "endless.obj").symlink_to("/dev/zero")
    (place / "circle").symlink_to(place, target_is_directory=True)
    for name in ("scene.dae", "other.dae", "shape.off", "stage.usd", "part.STEP"):
        (place / name).write_text("x")
    with zipfile.ZipFile(place / "bomb.3mf", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("3D/model.model", b"0" * 50_000_000)
    with open(place / "sparse.stl", "wb") as file:
        file.truncate(2**40)
    return place


@pytest.fixture(scope="module")
def report(folder, tmp_path_factory):
    return import_meshes(folder, tmp_path_factory.mktemp("out") / "lib", workers=2, progress=False)


def test_every_good_mesh_is_imported_under_a_name_of_its_own(report):
    names = report.library.names
    assert len(names) == 6 and len(set(names)) == 6
    assert {"blue_cup", "red_cup", "folder_obj_inside", "caf_xe9", "mesh"} < set(names)
    assert max(map(len, names)) <= 109
    assert all(report.library[name].mass > 0 for name in names)
    assert report.library.entry("caf_xe9").source == "caf\\xe9.obj"


@pytest.mark.parametrize("name", BAD)
def test_each_damaged_file_is_refused_in_one_line_that_says_why(report, name):
    reason = report.refused[name]
    assert "\n" not in reason and len(reason) < 400
    assert BAD[name][1] in reason


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("pipe.stl", "not a regular file"),
        ("socket.ply", "not a regular file"),
        ("endless.obj", "not a regular file"),
        ("loop.obj", "symbolic links"),
        ("dangling.glb", "No such file"),
        ("sparse.stl", "at most 512 MiB"),
        ("*.dae", "2 files of a format that is not read: convert them"),
        ("*.off", "1 file of a format"),
        ("*.usd", "1 file of a format"),
        ("*.step", "1 file of a format"),
        ("*.3mf", "1 file of a format"),
    ],
)
def test_what_cannot_be_opened_is_named(report, name, reason):
    assert reason in report.refused[name]


def test_the_summary_can_be_printed_and_nothing_is_tried_twice(report, folder):
    report.summary().encode("utf-8")
    again = import_meshes(folder, report.library.path, workers=1, progress=False)
    assert again.reused == again.files and again.refused == report.refused


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read every file")
def test_a_file_without_permission_is_refused(tmp_path):
    (tmp_path / "in").mkdir()
    for name in ("a.obj", "b.obj"):
        (tmp_path / "in" / name).write_text(box_obj(0.1, 0.05, 0.03))
    (tmp_path / "in" / "b.obj").chmod(0)
    report = import_meshes(tmp_path / "in", tmp_path / "lib", workers=1, progress=False)
    assert "no permission" in report.refused["b.obj"]


def test_a_mesh_that_takes_too_long_is_refused_and_the_refusal_is_kept(tmp_path, monkeypatch):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.obj").write_text(box_obj(0.1, 0.05, 0.03))
    with monkeypatch.context() as patch:
        patch.setattr(importer, "LIMITS", replace(importer.LIMITS, time_s=0.001))
        with pytest.raises(ValueError, match=r"a\.obj: unusable: not done within 0\.001 s: simplify the mesh"):
            import_meshes(tmp_path / "in", tmp_path / "lib", workers=1, progress=False)
    with pytest.raises(ValueError, match=r"not done within 0\.001 s"):
        import_meshes(tmp_path / "in", tmp_path / "lib", workers=1, progress=False)


def test_a_mesh_that_a_busy_machine_did_not_finish_is_tried_again_next_time(tmp_path, monkeypatch, capsys):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.obj").write_text(box_obj(0.1, 0.05, 0.03))
    with monkeypatch.context() as patch:
        patch.setattr(importer, "LIMITS", replace(importer.LIMITS, clock_s=0.001))
        with pytest.raises(ValueError, match=r"by the clock, of which .* busy: import again when it is idle"):
            import_meshes(tmp_path / "in", tmp_path / "lib", workers=1)
    monkeypatch.setattr(process_pool, "_NOTICE_S", 0.01)
    assert import_meshes(tmp_path / "in", tmp_path / "lib", workers=1).library.names == ["a"]
    assert "import: a.obj takes 0 s so far" in capsys.readouterr().err


def test_hundreds_of_boxes_are_refused_where_they_lie_apart_and_one_thing_where_they_overlap(tmp_path):
    """300 boxes of 4 mm at a pitch of 5.2 mm; and 300 at 3.5 mm: a block of 10 x 10 x 3."""
    (tmp_path / "in").mkdir()
    box = trimesh.creation.box((0.004, 0.004, 0.004))
    for name, pitch in (("dust", 0.0052), ("block", 0.0035)):
        at = [(pitch * (k % 10), pitch * (k // 10 % 10), pitch * (k // 100)) for k in range(300)]
        boxes = [box.copy().apply_translation(place) for place in at]
        trimesh.util.concatenate(boxes).export(tmp_path / "in" / f"{name}.stl")
    report = import_meshes(tmp_path / "in", tmp_path / "lib", ImportSettings(scale=1.0), workers=2, progress=False)
    assert report.refused["dust.stl"].startswith("too many bodies: 300 that do not touch, at most 256; one rigid thing")
    (entry,) = report.library.entries
    assert entry.extents == pytest.approx((0.0355, 0.0355, 0.011), abs=1e-4)
    assert entry.volume == pytest.approx(0.0355 * 0.0355 * 0.011, rel=1e-3)


def test_a_folder_of_other_formats_is_an_error_that_names_them(tmp_path, capsys):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.dae").write_text("<COLLADA/>")
    assert main(["objects", "import", str(tmp_path / "in"), f"out={tmp_path / 'lib'}"]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and "*.dae: 1 file of a format that is not read: convert them to OBJ" in said


def test_unit_size_and_doubt_are_said(tmp_path, capsys):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.obj").write_text(box_obj(40, 30, 20))  # 0.40 m in cm, 0.040 m in mm
    assert main(["objects", "import", str(tmp_path / "in"), f"out={tmp_path / 'lib'}", "workers=1"]) == 0
    said = capsys.readouterr().out
    assert "unit guessed: mm, longest side: median 0.040 m" in said
    assert "the unit is in doubt: the median longest side is 0.040 m in mm, 0.400 m in cm" in said
