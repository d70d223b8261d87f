"""Commands on object libraries: sampling by difficulty, comparison with real meshes, contact sheets."""

import json

import numpy as np
import pytest
import trimesh
from PIL import Image

from dexgrasp.policies.cli import objects
from dexgrasp.policies.cli.main import main
from dexgrasp.policies.cli.objects import CompareLibraryCfg, GenerateCfg, ImportCfg, ShowCfg
from dexgrasp.policies.training.callbacks import sampling_weights
from dexgrasp.sim.objects import comparison, contact_sheet, generator, open_library
from dexgrasp.sim.objects.families import FAMILIES
from dexgrasp.sim.objects.generator import ObjectRequest, generate
from dexgrasp.sim.objects.library import ObjectLibrary


@pytest.fixture(scope="module")
def library(tmp_path_factory):
    folder = tmp_path_factory.mktemp("lib") / "mixed"
    return generate(12, folder, families=["box", "bowl", "pen", "ellipsoid"], workers=1, progress=False)


def test_without_results_the_difficult_come_more_often(library):
    weights = sampling_weights(library.entries, floor=0.2, difficulty_share=1.0)
    difficulty = np.array([e.difficulty for e in library.entries])
    assert weights.sum() == pytest.approx(1)
    np.testing.assert_allclose(weights, 0.2 / 12 + 0.8 * difficulty / difficulty.sum())


def test_failures_raise_an_object_and_no_object_falls_below_the_floor(library):
    # object 0 never succeeds in 98 trials, all others always: failure (1 + 98) / 100 against 1 / 100
    trials = np.full(12, 98)
    weights = sampling_weights(library.entries, np.where(np.arange(12) == 0, 0, 98), trials, 0.3, difficulty_share=0.0)
    assert weights[0] == pytest.approx(0.3 / 12 + 0.7 * 0.99 / (0.99 + 11 * 0.01))
    assert (weights >= 0.3 / 12).all()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"floor": 0.0}, "floor must be in"),
        ({"difficulty_share": 2.0}, "difficulty_share"),
        ({"successes": [3], "trials": [4]}, "one for each object"),
        ({"successes": [5] * 12, "trials": [4] * 12}, "between 0 and the trials"),
    ],
)
def test_impossible_weightings_are_errors(library, arguments, said):
    with pytest.raises(ValueError, match=said):
        sampling_weights(library.entries, **arguments)


def test_difficulty_ranks_a_thin_bowl_over_a_handy_ball(library):
    hard = np.mean([e.difficulty for e in library.entries if e.family == "bowl"])
    easy = np.mean([e.difficulty for e in library.entries if e.family == "ellipsoid"])
    assert hard > easy + 0.1


def test_a_library_covers_itself_but_not_its_opposite(library, tmp_path):
    itself = {m.name: m for m in comparison.compare(library, library)}
    assert min(m.coverage for m in itself.values()) >= 10 / 12  # its extremes lie just outside the 99 % range
    boxes = generate(6, tmp_path / "boxes", seed=1, families=["box"], workers=1, progress=False)
    across = {m.name: m for m in comparison.compare(boxes, library)}
    assert across["volume / hull"].coverage < 0.9
    assert any("bowl" in name for name in across["volume / hull"].outside)


def test_the_comparison_is_written_as_numbers_and_plots(library, tmp_path, capsys):
    objects.compare(CompareLibraryCfg(str(library.path), str(library.path), str(tmp_path / "out")))
    assert f"{tmp_path / 'out'}/compare.json" in capsys.readouterr().out
    rows = json.loads((tmp_path / "out" / "compare.json").read_text())
    assert [row["name"] for row in rows] == list(comparison.UNITS)
    with Image.open(tmp_path / "out" / "compare.png") as plots:
        assert plots.size == (1300, 900)


def test_a_drawn_ball_is_round_and_has_its_size_in_pixels(library):
    name = next(e.name for e in library.entries if e.family == "ellipsoid")
    model = library[name]
    picture = contact_sheet.draw(model)
    drawn = (picture != picture[0, 0]).any(axis=2)
    widest_m = drawn.any(axis=0).sum() / contact_sheet.TILE_PX * contact_sheet.SPAN_M
    assert model.extents.min() * 0.9 < widest_m < model.extents.max() * 1.1


def test_the_sheet_shows_every_family(library, tmp_path):
    shown = contact_sheet.spread_over_families(library.entries, 4)
    assert sorted(e.family for e in shown) == ["bowl", "box", "ellipsoid", "pen"]
    with Image.open(contact_sheet.show(library, tmp_path / "sheet.png")) as picture:
        assert picture.width >= 4 * contact_sheet.TILE_PX


def test_each_convex_piece_is_drawn_in_a_colour_of_its_own(library):
    model = library[next(e.name for e in library.entries if e.family == "bowl")]
    assert len(model.pieces) > 3
    hues = []
    for picture in (contact_sheet.draw(model), contact_sheet.draw(model, pieces=True)):
        drawn = picture[(picture != picture[0, 0]).any(axis=2)].astype(float)
        hues.append(len(np.unique(np.round(drawn / drawn.sum(axis=1, keepdims=True), 2), axis=0)))
    assert hues[1] > 3 * hues[0]


@pytest.mark.parametrize(
    ("extents_m", "label"),
    [
        ((0.006, 0.014, 0.009), "14 x 9 x 6 mm"),
        ((0.05, 0.12, 0.07), "12 x 7 x 5 cm"),
        ((0.1, 0.002, 0.1), "100 x 100 x 2 mm"),
    ],
)
def test_the_sides_of_small_things_are_given_in_millimetres(extents_m, label):
    assert contact_sheet.size_label(extents_m) == label


def tree(folder):
    files = (path for path in folder.rglob("*") if path.is_file() and path.name != ".lock")
    return {path: path.read_bytes() for path in files if "imported" not in path.parts}


def test_an_import_that_would_remove_objects_is_refused_and_force_moves_them_aside(tmp_path, capsys):
    meshes, lib = tmp_path / "in", tmp_path / "lib"
    for number, side in enumerate((50, 60, 70, 80, 90)):
        (meshes / f"m{number}").mkdir(parents=True)
        trimesh.creation.box((side, 55, 40)).export(meshes / f"m{number}/box.obj")
    command = ["objects", "import", str(meshes), f"out={lib}", "unit=mm", "workers=1"]
    assert main([*command, "include=m[0-3]/*"]) == 0
    before = tree(lib)
    capsys.readouterr()
    assert main([*command, "include=m4/*"]) == 2
    told = capsys.readouterr().err
    assert (
        f"out={lib} is a library of 4 objects, of which this import would remove 4 (m0_box, m1_box, m2_box, ...)"
        in told
    )
    assert main([*command, "exclude=m[13]/*"]) == 2
    assert "would remove 2 (m1_box, m3_box): choose another out=" in capsys.readouterr().err
    assert tree(lib) == before
    assert main(command) == 0  # all files: what is there stays
    assert ObjectLibrary(lib).names == [f"m{number}_box" for number in range(5)]
    (meshes / "m0/box.obj").unlink()
    assert main(command) == 2
    assert "would remove 1 (m0_box)" in capsys.readouterr().err
    assert main([*command, "force=true"]) == 0
    assert ObjectLibrary(lib).names == ["m1_box", "m2_box", "m3_box", "m4_box"]
    assert len(ObjectLibrary(tmp_path / "lib.replaced-1")) == 5


def test_the_generate_command_says_count_rate_and_memory(tmp_path, capsys):
    objects.generate(GenerateCfg(out=str(tmp_path / "lib"), n=2, families=("box",), workers=1))
    said = capsys.readouterr().out
    assert "2 objects of 1 family, split train" in said and "objects/s" in said and "MiB" in said


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: GenerateCfg(out="x", n=0), "n must lie in 1..1000000, got 0"),
        (lambda: GenerateCfg(out="x", families=("muk",)), "unknown families"),
        (lambda: GenerateCfg(out="x", workers=-1), "workers must lie in 0..1024, got -1"),
        (lambda: ImportCfg(source="x", out="y", scale=0.0), "scale must lie in 1e-06..1000000, got 0.0"),
        (lambda: ShowCfg(out="sheet.gif"), r"must be a \.png file"),
    ],
)
def test_impossible_configurations_are_errors_that_name_the_key(make, said):
    with pytest.raises(ValueError, match=said):
        make()


def test_the_shipped_set_shows_all_families_is_small_and_was_never_trained_on():
    shipped = open_library("shipped")
    assert len(shipped) >= 120 and {e.family for e in shipped.entries} == set(FAMILIES)
    assert {e.split for e in shipped.entries} == {"test"}
    assert sum(path.stat().st_size for path in shipped.path.rglob("*.*")) < 6e6
    assert "dexgrasp objects generate" in str(shipped.manifest["command"])


def test_the_shipped_set_is_what_the_generator_makes_today():
    shipped = open_library("shipped")
    for index, family in enumerate(FAMILIES):  # the same geometry on any machine; the last bits may differ
        name = f"{family}_test_s0_{index:05d}"
        model = generator.build(ObjectRequest(family, "test", 0, index))
        np.testing.assert_allclose(model.pieces, shipped[name].pieces, atol=1e-4)
        np.testing.assert_allclose(model.mass, shipped[name].mass, rtol=1e-4)


def test_a_training_library_is_generated_on_first_use_and_cached(tmp_path, monkeypatch):
    monkeypatch.setenv("DEXGRASP_CACHE", str(tmp_path))
    library = open_library("generated:3")
    assert library.names == ["box_train_s0_00000", "cylinder_train_s0_00001", "capsule_train_s0_00002"]
    assert open_library("generated:3").path == library.path


def test_upright_poses_are_those_in_which_the_z_axis_points_up():
    model = generator.build(ObjectRequest("wine_glass", "train", 0, 0))
    upright = model.upright()
    assert len(upright.rest_prob) < len(model.rest_prob) and upright.rest_prob.sum() == pytest.approx(1)
    _, x, y, _ = upright.rest_quat[0]
    assert 1 - 2 * (x * x + y * y) > np.cos(np.deg2rad(20))


def test_a_library_holds_as_many_models_as_it_was_asked_to(household):
    small = ObjectLibrary(household.path, cache=1)
    first = small[small.names[0]]
    assert small[small.names[1]] and small[small.names[0]] is not first
    small.keep(2)
    first = small[small.names[0]]
    assert small[small.names[1]] and small[small.names[0]] is first
    small.keep(1)  # never fewer
    assert small[small.names[1]] and small[small.names[0]] is first
