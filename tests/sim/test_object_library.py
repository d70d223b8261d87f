"""Object models and libraries: what is stored, what is refused, what the geometry underneath computes."""

import json
import subprocess
import sys
from dataclasses import replace

import mujoco
import numpy as np
import pytest
import trimesh
from scipy.spatial import ConvexHull

from dexgrasp.sim.objects import (
    PIECE_POINTS,
    ObjectLibrary,
    ObjectModel,
    model_builder,
    open_library,
    refuse_overlap,
    refuse_test_objects,
    resting_poses,
    shapes,
)
from dexgrasp.sim.objects import model_builder as surface
from dexgrasp.sim.objects.generator import ObjectRequest, build, generate
from dexgrasp.sim.objects.library import entry_from_dict, write_library
from dexgrasp.sim.objects.model_builder import make_entry


@pytest.fixture(scope="module")
def library(tmp_path_factory):
    return generate(
        4, tmp_path_factory.mktemp("lib") / "four", seed=5, families=["box", "mug"], workers=1, progress=False
    )


@pytest.fixture(scope="module")
def mug():
    return build(ObjectRequest("mug", "train", 0, 1))


def test_mass_properties_of_a_box_are_those_of_the_textbook():
    # 0.1 x 0.2 x 0.3 m at density 1: V = 0.006, Ixx = V (y^2 + z^2) / 12 = 0.006 * 0.13 / 12
    vertices, faces = shapes.box(0.1, 0.2, 0.3).moved(1, 2, 3).mesh()
    volume, centre, inertia = surface.mass_properties(vertices, faces)
    assert volume == pytest.approx(0.006)
    np.testing.assert_allclose(centre, [1, 2, 3])
    np.testing.assert_allclose(inertia, np.diag([0.13, 0.10, 0.05]) * 0.006 / 12, atol=1e-12)


def test_mass_properties_of_a_mug_agree_with_trimesh(mug):
    mesh = trimesh.Trimesh(mug.vertices, mug.faces, process=False)
    volume, centre, inertia = surface.mass_properties(mug.vertices, mug.faces)
    assert volume == pytest.approx(mesh.volume, rel=1e-6)
    np.testing.assert_allclose(centre, mesh.center_mass, atol=1e-8)
    np.testing.assert_allclose(inertia, mesh.moment_inertia, rtol=1e-4, atol=1e-11)
    np.testing.assert_allclose(centre, 0, atol=2e-6)


def test_every_point_of_a_piece_is_a_vertex_of_its_hull(mug):
    for piece in mug.pieces:
        assert len(ConvexHull(piece.astype(float)).vertices) == PIECE_POINTS


def test_a_thin_plate_keeps_its_thickness_as_a_piece():
    plate = np.array([[x, y, z] for x in (-0.05, 0.05) for y in (-0.03, 0.03) for z in (-0.001, 0.001)])
    assert np.ptp(model_builder.support_hull(plate)[:, 2]) == pytest.approx(0.002, abs=1e-4)
    np.testing.assert_allclose(np.ptp(model_builder.support_hull(plate), axis=0), [0.1, 0.06, 0.002], atol=1e-3)


def test_every_compiled_piece_has_the_same_layout(mug):
    model = resting_poses.object_on_table(mug.pieces, mug.mass, mug.inertia)
    assert set(model.mesh_vertnum) == {64}
    assert set(model.mesh_facenum) == {2 * 64 - 4}


def test_any_prefix_of_the_surface_samples_is_well_spread(mug):
    # farthest-point order: no later sample is farther from the first 128 than they are from one another
    from scipy.spatial import KDTree

    first, rest = mug.points[:128], mug.points[128:]
    closest_pair = KDTree(first).query(first, k=2)[0][:, 1].min()
    assert KDTree(first).query(rest)[0].max() <= closest_pair + 1e-5


def test_surface_samples_lie_on_the_mesh_and_their_normals_point_outward():
    vertices, faces = shapes.ellipsoid(0.1, 0.1, 0.1).mesh()
    points, normals = surface.sample_surface(vertices, faces, 1024, np.random.default_rng(0))
    np.testing.assert_allclose(np.linalg.norm(points, axis=1), 0.05, rtol=0.03)  # facets cut inside the sphere
    assert (np.sum(points * normals, axis=1) / 0.05 > 0.9).all()


def test_a_coin_like_cylinder_rests_on_its_two_faces_with_equal_probability():
    profile = np.array([(0.04, 0.0), (0.04, 0.016)])
    pieces = model_builder.support_hulls([p - [0, 0, 0.008] for p in shapes.lathe(profile).pieces])
    height, _, prob = resting_poses.resting_poses(pieces, 0.1, np.diag([4e-5, 4e-5, 8e-5]))
    flat = np.abs(height - 0.008) < 5e-4
    assert flat.sum() == 2
    np.testing.assert_allclose(prob[flat], 0.5 * prob[flat].sum(), atol=0.03)
    assert prob[flat].sum() > 0.7


def test_a_brick_rests_on_its_six_faces_as_often_as_the_solid_angles_say():
    # a cube: each face is seen under 4 pi / 6
    pieces = model_builder.support_hulls(list(shapes.box(0.06, 0.06, 0.06).pieces))
    height, _, prob = resting_poses.resting_poses(pieces, 0.1, np.eye(3) * 6e-5)
    assert len(prob) == 6
    np.testing.assert_allclose(prob, 1 / 6, atol=0.02)
    np.testing.assert_allclose(height, 0.03, atol=3e-4)


def test_resting_poses_hold_for_two_seconds(library):
    for name in library:
        model = library[name]
        physics = resting_poses.object_on_table(model.pieces, model.mass, model.inertia)
        for height, quat in zip(model.rest_height, model.rest_quat, strict=True):
            data = mujoco.MjData(physics)
            data.qpos[:] = [0, 0, height, *quat]
            mujoco.mj_step(physics, data, nstep=round(2 / resting_poses.STEP_S))
            assert resting_poses.rotation_angle_rad(quat, data.qpos[3:]) < np.deg2rad(10)


def test_a_model_survives_saving_and_loading_and_gives_the_same_bytes(mug, tmp_path):
    mug.save(tmp_path / "a.npz")
    back = ObjectModel.load(tmp_path / "a.npz")
    assert back.to_bytes() == (tmp_path / "a.npz").read_bytes()
    np.testing.assert_array_equal(back.pieces, mug.pieces)
    assert (back.name, back.family, back.split, back.mass) == (mug.name, mug.family, mug.split, mug.mass)


def test_a_model_of_half_the_size_has_the_mass_and_a_quarter_of_the_inertia(mug):
    """Against trimesh: the mesh of half the size, as heavy as before; resting height and pieces shrink as well."""
    half = mug.scaled(0.5)
    mesh = trimesh.Trimesh(half.vertices, half.faces, process=False)
    mesh.density = half.mass / mesh.volume
    np.testing.assert_allclose(half.inertia, mesh.moment_inertia, rtol=2e-4, atol=2e-9)
    assert half.mass == mug.mass and mug.scaled(1.0) is mug
    for name in ("vertices", "pieces", "points", "rest_height"):
        np.testing.assert_array_equal(getattr(half, name), 0.5 * getattr(mug, name))
    for name in ("normals", "rest_quat", "rest_prob"):
        np.testing.assert_array_equal(getattr(half, name), getattr(mug, name))


def test_a_library_lists_what_it_holds_and_loads_on_demand(library):
    assert len(library) == 4
    name = library.names[1]
    assert name == "mug_train_s5_00001"
    assert library.entry(name).mass == pytest.approx(library[name].mass, rel=1e-4)
    np.testing.assert_allclose(library.entry(name).extents, library[name].extents, rtol=1e-3)
    assert [e.family for e in library.entries] == ["box", "mug", "box", "mug"]


def test_an_unknown_object_is_an_error_that_names_near_ones(library):
    with pytest.raises(KeyError, match="Did you mean 'mug_train_s5_00001'"):
        library.entry("mug_train_s5_0001")


def test_a_damaged_object_file_is_noticed(library, tmp_path):
    copy = tmp_path / "copy"
    (copy / "objects").mkdir(parents=True)
    (copy / "manifest.json").write_bytes((library.path / "manifest.json").read_bytes())
    entry = library.entries[0]
    (copy / entry.file).write_bytes((library.path / entry.file).read_bytes() + b"x")
    with pytest.raises(ValueError, match="contents differ"):
        ObjectLibrary(copy)[entry.name]


def test_a_folder_without_a_manifest_is_an_error_that_says_how_to_make_one(tmp_path):
    with pytest.raises(FileNotFoundError, match="dexgrasp objects generate"):
        ObjectLibrary(tmp_path)
    with pytest.raises(FileNotFoundError, match="neither a known name nor a folder"):
        open_library(tmp_path / "nowhere")


def test_a_manifest_with_an_unknown_key_is_refused(library):
    row = json.loads((library.path / "manifest.json").read_text())["objects"][0]
    with pytest.raises(ValueError, match="unknown key 'colour'"):
        entry_from_dict({**row, "colour": "red"})


def test_objects_of_the_test_split_are_refused_with_what_to_take(library, tmp_path):
    refuse_test_objects(library, "objects=here")
    held = generate(2, tmp_path / "test", split="test", families=["box"], workers=1, progress=False)
    with pytest.raises(ValueError, match=r"objects=there: 2 objects \(box_test_s0_00000, .*Take generated:N to train"):
        refuse_test_objects(held, "objects=there")


def test_libraries_that_share_an_object_are_refused_by_name_and_by_mesh(library, tmp_path):
    other = generate(4, tmp_path / "other", seed=5, split="validation", workers=1, progress=False)
    refuse_overlap(library, other)
    with pytest.raises(ValueError, match=r"validation: 4 objects \(.*, \.\.\.\) of the training"):
        refuse_overlap(library, library)
    twin = replace(library[library.names[1]], name="twin", split="validation")
    (tmp_path / "twin/objects").mkdir(parents=True)
    twin.save(tmp_path / "twin/objects/twin.npz")
    data = twin.to_bytes()
    disguised = write_library(tmp_path / "twin", [make_entry(twin, "objects/twin.npz", data)], {}, "")
    with pytest.raises(ValueError, match=r"validation: 1 object \(twin\) of the training"):
        refuse_overlap(library, disguised)


FLUSHED = """
import sys, torch
from dexgrasp.sim.objects import open_library
assert torch.set_flush_denormal(True)
library = open_library(sys.argv[1])
print(len([library[name] for name in library.names]))
"""


def test_objects_with_faces_in_the_planes_of_their_axes_load_as_training_loads_them(tmp_path):
    """Training flushes denormal numbers to zero; a search tree that splits at zero then recursed without end."""
    flat = generate(8, tmp_path / "lib", families=["box", "toy_brick"], workers=1, progress=False)
    done = subprocess.run([sys.executable, "-c", FLUSHED, str(flat.path)], capture_output=True, text=True)
    assert (done.returncode, done.stdout.split()) == (0, ["8"]), done.stderr[-500:]
