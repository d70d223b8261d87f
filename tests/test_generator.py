"""The object generator: determinism, splits, sizes, and folders that survive kills and company."""

import numpy as np
import pytest
import trimesh

from sim import generator
from sim.draws import STRIPES, Draw, stripe_owner
from sim.families import FAMILIES
from sim.generator import Request, build, generate

SAMPLE = [Request(family, split, 7, k) for k, family in enumerate(FAMILIES) for split in ("train",)]


@pytest.fixture(scope="module")
def built():
    return {request.family: build(request)[0] for request in SAMPLE}


@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_every_family_makes_closed_meshes_of_the_allowed_size_and_mass(built, family):
    model = built[family]
    mesh = trimesh.Trimesh(model.vertices, model.faces, process=False)
    assert mesh.is_watertight and mesh.is_winding_consistent and mesh.volume > 0
    assert 0.05 <= model.extents.max() <= 0.20 + 1e-5 and model.extents.min() >= 0.015 - 1e-5
    assert 0.03 <= model.mass <= 0.5
    moments = np.linalg.eigvalsh(model.inertia)
    assert moments[0] > 0 and moments[0] + moments[1] >= moments[2]


@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_the_pieces_of_every_family_stand_for_its_mesh(built, family):
    model = built[family]
    apart = np.abs(model.pieces.reshape(-1, 3).max(axis=0) - model.vertices.max(axis=0))
    assert apart.max() < 0.004
    entry_ratio = generator.assembly.describe(model, "", b"").piece_volume_ratio
    assert 0.7 < entry_ratio < 1.6


def test_the_same_seed_gives_the_same_bytes_with_any_number_of_workers(tmp_path):
    one = generate(6, tmp_path / "one", seed=3, workers=1, progress=False)
    two = generate(6, tmp_path / "two", seed=3, workers=2, progress=False)
    for name in one.names:
        assert (one.path / one.entry(name).file).read_bytes() == (two.path / two.entry(name).file).read_bytes()
    assert (one.path / "manifest.json").read_bytes() == (two.path / "manifest.json").read_bytes()


def test_another_seed_or_split_gives_other_objects():
    masses = {
        build(Request("box", split, seed, 0))[0].mass for split, seed in (("train", 0), ("train", 1), ("test", 0))
    }
    assert len(masses) == 3


def test_the_stripes_of_the_splits_cover_the_unit_interval_without_overlap():
    owners = [stripe_owner((k + 0.5) / STRIPES) for k in range(STRIPES)]
    assert (owners.count("train"), owners.count("validation"), owners.count("test")) == (16, 2, 2)


@pytest.mark.parametrize("split", ["train", "validation", "test"])
def test_proportions_are_drawn_only_from_the_stripes_of_the_split(split):
    draw = Draw(np.random.default_rng(0), split)
    values = [draw.proportion(2.0, 4.0) for _ in range(300)]
    assert {stripe_owner((v - 2.0) / 2.0) for v in values} == {split}
    assert min(values) < 3.0 < max(values)  # the stripes interleave: each split sees both ends of the range


def test_proportions_of_another_split_are_refused():
    with pytest.raises(ValueError, match="belong to other splits than 'train'"):
        generator.check_split(Request("box", "train", 0, 0), [0.01, 0.37])
    with pytest.raises(ValueError, match="draws no proportion"):
        generator.check_split(Request("box", "train", 0, 0), [])


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
