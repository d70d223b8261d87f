"""The public benchmark: a wheel of its layout, unpacked, imported and kept; other wheels are refused."""

import hashlib
import io
import subprocess
import zipfile

import numpy as np
import pytest
import trimesh

from dexgrasp.sim.objects import open_library, random_urdfs
from dexgrasp.sim.objects.decomposition import merge_convex_parts
from dexgrasp.sim.objects.model_builder import hull_volume

URDF = """<robot name="blob{n}"><link name="random_obj_{n}">
<inertial><origin rpy="0 0 0" xyz="0 0 0"/><mass value="{mass}"/></inertial>
<visual><geometry><mesh filename="{n}.obj" scale="{scale}"/></geometry></visual>
<collision><geometry><mesh filename="{n}.obj" scale="{scale}"/></geometry></collision>
</link></robot>"""


def two_boxes():
    """An L of two boxes, 6 x 6 x 3 cm at the scale of the set, as convex bodies that overlap and share edges."""
    upright = trimesh.creation.box((1.0, 2.0, 4.0), trimesh.transformations.translation_matrix((0.5, 1.0, 2.0)))
    lying = trimesh.creation.box((4.0, 2.0, 1.0), trimesh.transformations.translation_matrix((2.0, 1.0, 0.5)))
    parts = [trimesh.exchange.obj.export_obj(part, include_normals=False) for part in (upright, lying)]
    second = "\n".join(
        "f " + " ".join(str(int(word) + 8) for word in line.split()[1:]) if line.startswith("f ") else line
        for line in parts[1].splitlines()
    )
    return f"o convex_0\n{parts[0]}\no convex_1\n{second}\n"


def make_wheel(scale=random_urdfs.SCALE, mass="0.1"):
    """The bytes of a wheel with three objects: an L, one that is not finite, a box."""
    box = trimesh.exchange.obj.export_obj(trimesh.creation.box((2.0, 3.0, 4.0)), include_normals=False)
    broken = "o a\nv nan nan nan\nv 0 1 0\nv 0 0 1\nv 1 0 0\nf 1 2 3\nf 1 2 4\nf 1 3 4\nf 2 3 4\n"
    buffer, data = io.BytesIO(), "pybullet_data/random_urdfs"
    with zipfile.ZipFile(buffer, "w") as archive:
        for number, mesh in (("002", box), ("000", two_boxes()), ("001", broken)):
            archive.writestr(f"{data}/{number}/{number}.urdf", URDF.format(n=number, scale=scale, mass=mass))
            archive.writestr(f"{data}/{number}/{number}.obj", mesh)
            archive.writestr(f"{data}/{number}/{number}.mtl", "newmtl none\n")
        archive.writestr("pybullet_data/plane.obj", box)
        archive.writestr("pybullet-3.2.7.dist-info/LICENSE.txt", "zlib\n")
    return buffer.getvalue()


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """An empty cache folder, and a network that is not there."""
    monkeypatch.setenv("DEXGRASP_CACHE", str(tmp_path))
    monkeypatch.setattr(random_urdfs, "COUNT", 3)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    return tmp_path / "objects"


def provide(cache, monkeypatch, wheel):
    """Put the wheel where a user without network would put it."""
    path = cache / "random_urdfs" / random_urdfs.WHEEL
    path.parent.mkdir(parents=True)
    path.write_bytes(wheel)
    monkeypatch.setattr(random_urdfs, "SHA256", hashlib.sha256(wheel).hexdigest())
    return path


def test_the_objects_are_imported_at_the_scale_and_mass_of_their_urdfs(cache, monkeypatch, caplog):
    provide(cache, monkeypatch, make_wheel())
    library = open_library("random_urdfs")
    assert library.names == ["random_000", "random_002"]
    assert "random_001.obj: not finite" in caplog.text
    ell = library["random_000"]
    np.testing.assert_allclose(ell.extents, [0.06, 0.03, 0.06], atol=2e-5)
    assert ell.mass == library["random_002"].mass == 0.1
    assert library.entry("random_000").volume == pytest.approx((8 + 8 - 2) * 0.015**3, rel=1e-3)
    meshes = sorted(path.name for path in (cache / "random_urdfs").glob("*.obj"))
    assert meshes == ["random_000.obj", "random_001.obj", "random_002.obj"]
    assert (cache / "random_urdfs" / "LICENSE.txt").read_text() == "zlib\n"


def test_the_convex_parts_of_a_mesh_are_its_pieces(cache, monkeypatch):
    provide(cache, monkeypatch, make_wheel())
    pieces = open_library("random_urdfs:1")["random_000"].pieces
    assert len(pieces) == 2
    assert [hull_volume(piece) for piece in pieces] == pytest.approx([8 * 0.015**3] * 2, rel=0.03)


def test_bodies_that_are_convex_are_merged_where_that_adds_least():
    corners = np.array([(x, y, z) for x in (0, 1) for y in (0, 1) for z in (0, 1)], float) * 0.02
    boxes = [corners + 0.02 * np.array([x, 0, 0]) for x in (0, 5, 1, 6)]  # two pairs, three widths apart
    two = merge_convex_parts(boxes, 2)
    assert [hull_volume(points) for points in two] == pytest.approx([2 * 0.02**3] * 2)
    assert sorted(points[:, 0].max() for points in two) == pytest.approx([0.04, 0.14])
    assert [hull_volume(points) for points in merge_convex_parts(boxes, 1)] == pytest.approx([7 * 0.02**3])
    assert merge_convex_parts(boxes, 4)[1] is boxes[1]


def test_what_is_cached_needs_neither_wheel_nor_network(cache, monkeypatch):
    wheel = provide(cache, monkeypatch, make_wheel())
    assert len(open_library("random_urdfs:3")) == 2
    wheel.unlink()
    monkeypatch.setattr(subprocess, "run", None)
    assert open_library("random_urdfs:1").names == ["random_000"]
    imported = open_library("random_urdfs:3")
    assert imported.names == ["random_000", "random_002"]


def test_without_network_the_error_says_what_to_put_where(cache, caplog):
    with pytest.raises(OSError, match=r"pip could not load pybullet==3\.2\.7 \(.*\); or put .*\.whl into"):
        open_library("random_urdfs")
    assert "103 MB, zlib licence" in caplog.text and str(cache / "random_urdfs") in caplog.text


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"scale": "0.02 0.02 0.02"}, r"000\.urdf: expected the mesh .*0\.015 0\.015 0\.015|expected the mesh"),
        ({"mass": "0.2"}, r"expected a mass of 0\.1 kg"),
    ],
)
def test_a_set_with_other_units_or_masses_is_refused(cache, monkeypatch, changes, message):
    provide(cache, monkeypatch, make_wheel(**changes))
    with pytest.raises(ValueError, match=message):
        open_library("random_urdfs")
    assert not (cache / "random_urdfs" / "LICENSE.txt").exists()


def test_another_wheel_is_refused(cache, monkeypatch):
    wheel = provide(cache, monkeypatch, make_wheel())
    wheel.write_bytes(make_wheel(mass="1"))
    with pytest.raises(ValueError, match=r"sha256 .*, expected .*: remove it and load pybullet==3\.2\.7 again"):
        open_library("random_urdfs")
    monkeypatch.setattr(random_urdfs, "SHA256", hashlib.sha256(wheel.read_bytes()).hexdigest())
    monkeypatch.setattr(random_urdfs, "COUNT", 4)
    with pytest.raises(ValueError, match="has 3 objects under random_urdfs, expected 4"):
        open_library("random_urdfs")


@pytest.mark.parametrize("number", [0, 4])
def test_more_objects_than_there_are_is_an_error(cache, number):
    with pytest.raises(ValueError, match=rf"needs N from 1 to 3, got {number}|must lie in 1\.\."):
        open_library(f"random_urdfs:{number}")
