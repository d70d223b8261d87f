"""The object generator: determinism, splits, sizes, and folders that survive kills and company."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import mujoco
import numpy as np
import pytest
import trimesh
from hypothesis import given, settings
from hypothesis import strategies as st
from manifold3d import Manifold, OpType
from scipy.spatial import ConvexHull

from dexgrasp.sim.objects import ObjectLibrary, ObjectModel, generator, resting_poses
from dexgrasp.sim.objects.families import FAMILIES
from dexgrasp.sim.objects.generator import ObjectRequest, build, generate
from dexgrasp.sim.objects.parameter_draws import STRIPES, ParameterSampler, stripe_owner

SAMPLE = [ObjectRequest(family, split, 7, k) for k, family in enumerate(FAMILIES) for split in ("train",)]


@pytest.fixture(scope="module")
def built():
    return {request.family: build(request) for request in SAMPLE}


@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_every_family_makes_closed_meshes_of_the_allowed_size_and_mass(built, family):
    model = built[family]
    mesh = trimesh.Trimesh(model.vertices, model.faces, process=False)
    assert mesh.is_watertight and mesh.is_winding_consistent and mesh.volume > 0
    assert_valid_body(model)


@settings(max_examples=40, deadline=None, derandomize=True)
@given(
    family=st.sampled_from(sorted(FAMILIES)),
    split=st.sampled_from(generator.GENERATED_SPLITS),
    seed=st.integers(0, 10_000),
)
def test_any_object_of_any_seed_is_closed_covered_by_its_pieces_and_has_a_valid_body(family, split, seed):
    model = build(ObjectRequest(family, split, seed, 0))
    mesh = trimesh.Trimesh(model.vertices, model.faces, process=False)
    assert mesh.is_watertight and mesh.volume > 0
    assert stripe_owner(model.proportion) == split
    assert_valid_body(model)
    hulls = [ConvexHull(piece.astype(float)) for piece in model.pieces]
    assert all(len(hull.vertices) == 64 for hull in hulls)
    assert 0.8 < union_volume(model) / mesh.volume < 1.2  # octahedral superquadrics lose most, thin plates gain most
    assert np.quantile(gaps(model, hulls), 0.95) < 0.005
    assert model.rest_prob.sum() == pytest.approx(1) and (model.rest_prob > 0).all()
    lowest = [(model.pieces.reshape(-1, 3) @ matrix(q).T)[:, 2].min() for q in model.rest_quat]
    np.testing.assert_allclose(model.rest_height, -np.array(lowest), atol=1e-5)


def test_at_least_95_percent_of_the_resting_poses_of_all_families_hold_for_two_seconds(built):
    turned_deg = np.array([turn for model in built.values() for turn in turns_in_two_seconds(model)])
    assert len(turned_deg) > 100
    assert (turned_deg < 10).mean() >= 0.95


def assert_valid_body(model):
    assert 0.05 <= model.extents.max() <= 0.20 + 1e-5 and model.extents.min() >= 0.015 - 1e-5
    assert 0.03 <= model.mass <= 0.5 and 0.5 <= model.friction <= 1.0
    moments = np.linalg.eigvalsh(model.inertia)
    assert moments[0] > 0 and moments[0] + moments[1] >= moments[2]


def union_volume(model):
    return Manifold.batch_boolean([Manifold.hull_points(p.astype(float)) for p in model.pieces], OpType.Add).volume()


def gaps(model, hulls):
    """How far each surface sample lies outside the nearest piece (negative inside) [m]."""
    points = model.points.astype(float)
    return np.min([np.max(points @ h.equations[:, :3].T + h.equations[:, 3], axis=1) for h in hulls], axis=0)


def matrix(quat):
    flat = np.zeros(9)
    mujoco.mju_quat2Mat(flat, quat)
    return flat.reshape(3, 3)


def turns_in_two_seconds(model):
    physics = resting_poses.object_on_table(model.pieces, model.mass, model.inertia)
    for height, quat in zip(model.rest_height, model.rest_quat, strict=True):
        data = mujoco.MjData(physics)
        data.qpos[:] = [0, 0, height, *quat]
        mujoco.mj_step(physics, data, nstep=round(2 / resting_poses.STEP_S))
        yield np.rad2deg(resting_poses.rotation_angle_rad(quat, data.qpos[3:]))


def test_the_same_seed_gives_the_same_bytes_with_any_number_of_workers(tmp_path):
    one = generate(6, tmp_path / "one", seed=3, workers=1, progress=False)
    two = generate(6, tmp_path / "two", seed=3, workers=2, progress=False)
    for name in one.names:
        assert (one.path / one.entry(name).file).read_bytes() == (two.path / two.entry(name).file).read_bytes()
    assert (one.path / "manifest.json").read_bytes() == (two.path / "manifest.json").read_bytes()


def test_another_seed_or_split_gives_other_objects():
    masses = {
        build(ObjectRequest("box", split, seed, 0)).mass for split, seed in (("train", 0), ("train", 1), ("test", 0))
    }
    assert len(masses) == 3


def test_the_stripes_of_the_splits_cover_the_unit_interval_without_overlap():
    owners = [stripe_owner((k + 0.5) / STRIPES) for k in range(STRIPES)]
    assert (owners.count("train"), owners.count("validation"), owners.count("test")) == (16, 2, 2)


@pytest.mark.parametrize("split", ["train", "validation", "test"])
def test_proportions_are_drawn_only_from_the_stripes_of_the_split(split):
    draw = ParameterSampler(np.random.default_rng(0), split)
    values = [draw.proportion(2.0, 4.0) for _ in range(300)]
    assert {stripe_owner((v - 2.0) / 2.0) for v in values} == {split}
    assert min(values) < 3.0 < max(values)  # the stripes interleave: each split sees both ends of the range


def test_proportions_of_another_split_are_refused():
    with pytest.raises(ValueError, match="belong to other splits than 'train'"):
        generator.check_split(ObjectRequest("box", "train", 0, 0), [0.01, 0.37])
    with pytest.raises(ValueError, match="draws no proportion"):
        generator.check_split(ObjectRequest("box", "train", 0, 0), [])


def test_unknown_families_and_splits_are_errors_that_list_the_known(tmp_path):
    with pytest.raises(ValueError, match=r"unknown families \['teapotx'\]; families: .*bottle"):
        generate(1, tmp_path, families=["teapotx"])
    with pytest.raises(ValueError, match="unknown split 'tests'; splits: train, validation, test"):
        generate(1, tmp_path, split="tests")


def test_a_second_run_of_the_same_command_does_nothing_and_another_is_refused(tmp_path):
    first = generate(2, tmp_path / "lib", families=["box"], workers=1, progress=False)
    stamp = (first.path / "manifest.json").stat().st_mtime_ns
    generate(2, tmp_path / "lib", families=["box"], workers=1, progress=False)
    assert (first.path / "manifest.json").stat().st_mtime_ns == stamp
    with pytest.raises(ValueError, match="holds another library"):
        generate(3, tmp_path / "lib", families=["box"], workers=1, progress=False)


def test_thin_walls_stay_thin_as_pieces_so_that_a_rim_can_be_grasped(built):
    for family in ("bowl", "cup", "mug", "pot", "pan", "plate", "wine_glass"):
        model = built[family]
        top = model.vertices[:, 2].max()
        inside = np.array([0.0, 0.0, top - 0.002])
        assert np.min(gaps_of(model, inside)) > 0.015  # an open mouth, at least 3 cm wide


def gaps_of(model, point):
    hulls = [ConvexHull(piece.astype(float)) for piece in model.pieces]
    return [np.max(h.equations[:, :3] @ point + h.equations[:, 3]) for h in hulls]


def start_generating(out, n, workers):
    code = (
        "from dexgrasp.sim.objects.generator import generate\nif __name__ == '__main__':\n"
        f"    generate({n}, {str(out)!r}, seed=9, workers={workers}, progress=False)\n"
    )
    script = out.parent / "make_library.py"
    script.write_text(code)
    root = str(Path(__file__).parents[2])
    return subprocess.Popen([sys.executable, str(script)], env={**os.environ, "PYTHONPATH": root})


def test_two_processes_may_generate_the_same_library_at_once(tmp_path):
    both = [start_generating(tmp_path / "lib", 8, 1) for _ in range(2)]
    assert [process.wait(timeout=60) for process in both] == [0, 0]
    library = ObjectLibrary(tmp_path / "lib")
    assert [library[name].name for name in library] == library.names


def test_after_a_kill_no_broken_file_remains_and_the_next_run_finishes(tmp_path):
    out = tmp_path / "lib"
    process = start_generating(out, 40, 2)
    while not list(out.glob("objects/*.npz")) and process.poll() is None:
        time.sleep(0.005)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert not (out / "manifest.json").exists()
    for path in (out / "objects").glob("[a-z]*.npz"):
        assert ObjectModel.load(path).name == path.stem
    kept = {path: path.stat().st_mtime_ns for path in (out / "objects").glob("[a-z]*.npz")}
    library = generate(40, out, seed=9, workers=1, progress=False)
    assert all(path.stat().st_mtime_ns == stamp for path, stamp in kept.items())
    assert len(library) == 40 and not list(out.rglob(".partial-*"))
