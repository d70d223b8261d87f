"""Mesh files that describe one thing: recognised by shape and by name, one of them taken, the others named."""

import json
import re

import numpy as np
import pytest
import trimesh
from scipy.spatial.transform import Rotation

from dexgrasp import configs
from dexgrasp.policies.cli.objects import ImportCfg
from dexgrasp.sim.objects.import_settings import ImportSettings
from dexgrasp.sim.objects.importer import import_meshes
from dexgrasp.sim.objects.mesh_files import (
    SurfaceFacts,
    compare_surfaces,
    find_meshes,
    group_same,
    is_rough,
    pattern_of,
    shown_name,
    surface_facts,
    thing_of,
)


def bracket(length=0.09):
    """An object without symmetry: three boxes."""
    boxes = [
        ((0, 0, 0), (length, 0.04, 0.01)),
        ((0.03, 0, 0.02), (0.02, 0.04, 0.03)),
        ((0, 0.03, 0), (0.03, 0.02, 0.01)),
    ]
    parts = [trimesh.creation.box(size, trimesh.transformations.translation_matrix(at)) for at, size in boxes]
    return trimesh.boolean.union(parts)


def shuffled(mesh):
    """The mesh with other numbers for its vertices and another order of its faces."""
    rng = np.random.default_rng(0)
    order, faces = rng.permutation(len(mesh.vertices)), rng.permutation(len(mesh.faces))
    return trimesh.Trimesh(mesh.vertices[np.argsort(order)], order[mesh.faces[faces]], process=False)


def turned(mesh):
    turn = np.eye(4)
    turn[:3, :3], turn[:3, 3] = Rotation.from_rotvec([0.3, -1.0, 2.0]).as_matrix(), [0.2, 0.5, -0.1]
    return mesh.copy().apply_transform(turn)


def mirrored(mesh):
    return mesh.copy().apply_transform(np.diag([1, -1, 1, 1]))


def hollowed(mesh):
    inner = mesh.copy().apply_scale(0.5)
    inner.invert()
    return trimesh.util.concatenate([mesh, inner])


def noisy(mesh):
    found = mesh.subdivide_to_size(0.004)
    found.vertices += np.random.default_rng(1).normal(0, 0.001, found.vertices.shape)
    return found


ALIKE = {"other numbers": shuffled, "finer": lambda m: m.subdivide().subdivide(), "moved and turned": turned}
OTHERS = {
    "2 mm longer": lambda _: bracket(0.092),
    "mirror image": mirrored,
    "hollow": hollowed,
    "1 mm of noise": noisy,
    "scaled": lambda m: m.copy().apply_scale(1.02),
    "its box": lambda m: m.bounding_box.to_mesh(),
}


@pytest.mark.parametrize("change", ALIKE)
def test_one_shape_in_other_words_is_one_thing(tmp_path, change):
    bracket().export(tmp_path / "a.ply")
    ALIKE[change](bracket()).export(tmp_path / "b.stl")
    assert compare_surfaces(tmp_path / "a.ply", tmp_path / "b.stl", variants=False) == "same"


@pytest.mark.parametrize("change", OTHERS)
def test_shapes_that_differ_by_more_than_half_a_hundredth_are_two_things(tmp_path, change):
    bracket().export(tmp_path / "a.ply")
    OTHERS[change](bracket()).export(tmp_path / "b.ply")
    assert compare_surfaces(tmp_path / "a.ply", tmp_path / "b.ply", variants=False) == "different"


def pinwheel():
    """Four equal arms around a plate, with a knob on one side: equal moments about two axes, and no mirror image."""
    arms = [
        trimesh.creation.box(
            (0.03, 0.01, 0.02),
            trimesh.transformations.rotation_matrix(k * np.pi / 2, (0, 0, 1))
            @ trimesh.transformations.translation_matrix((0.04, 0.02, 0)),
        )
        for k in range(4)
    ]
    knob = trimesh.creation.box((0.03, 0.03, 0.03), trimesh.transformations.translation_matrix((0, 0, 0.02)))
    return trimesh.boolean.union([trimesh.creation.box((0.06, 0.06, 0.02)), knob, *arms])


def bumpy(second_face):
    """A cube of 0.1 m with bumps of 2 mm on the face +x and on another one."""
    places = [(0.0505, 0.02, 0.01), {"+y": (0.02, 0.0505, 0.01), "-x": (-0.0505, 0.02, 0.01)}[second_face]]
    bumps = [trimesh.creation.box([0.004] * 3, trimesh.transformations.translation_matrix(at)) for at in places]
    return trimesh.boolean.union([trimesh.creation.box((0.1, 0.1, 0.1)), *bumps])


REGULAR = {
    "a cube": trimesh.creation.box((0.05, 0.05, 0.05)),
    "a square rod": trimesh.creation.box((0.03, 0.03, 0.1)),
    "a can": trimesh.creation.cylinder(0.03, 0.1, sections=32),
    "a ball": trimesh.creation.icosphere(subdivisions=2, radius=0.04),
    "a pinwheel": pinwheel(),
}
"""Shapes with equal moments about several axes, whose principal axes say nothing."""


@pytest.mark.parametrize("name", REGULAR)
def test_a_regular_thing_turned_by_any_angle_is_one_thing(tmp_path, name):
    REGULAR[name].export(tmp_path / "a.ply")
    for rotvec in ((0.0, 0.0, np.pi / 4), (0.2, 0.4, 0.6))[: 1 if "ball" in name else 2]:
        turn = np.eye(4)
        turn[:3, :3] = Rotation.from_rotvec(rotvec).as_matrix()
        REGULAR[name].copy().apply_transform(turn).export(tmp_path / "b.stl")
        assert compare_surfaces(tmp_path / "a.ply", tmp_path / "b.stl", variants=False) == "same"


def test_a_regular_thing_and_its_mirror_image_are_two_and_equal_measures_are_a_doubt(tmp_path):
    for name, mesh in (("a", pinwheel()), ("b", mirrored(pinwheel())), ("c", bumpy("+y")), ("d", bumpy("-x"))):
        mesh.export(tmp_path / f"{name}.ply")
    assert compare_surfaces(tmp_path / "a.ply", tmp_path / "b.ply", variants=False) == "different"
    assert compare_surfaces(tmp_path / "c.ply", tmp_path / "d.ply", variants=False) == "alike"


def test_two_files_that_are_or_may_be_one_thing_are_said(tmp_path):
    (tmp_path / "in").mkdir()
    turned(REGULAR["a cube"]).export(tmp_path / "in" / "turned.stl")
    for name, mesh in (("cube", REGULAR["a cube"]), ("one", bumpy("+y")), ("other", bumpy("-x"))):
        mesh.export(tmp_path / "in" / f"{name}.ply")
    settings = ImportSettings(scale=1.0, pieces=1, decomposition="cuts")
    report = import_meshes(tmp_path / "in", tmp_path / "lib", settings, workers=1, progress=False)
    assert report.library.names == ["cube", "one", "other"] and report.left_out == {"turned.stl": "cube.ply"}
    assert report.alike == {"other.ply": "one.ply"} == report.library.manifest["request"]["alike"]
    said = report.summary()
    assert "  turned.stl: as cube.ply" in said
    assert "1 file may be of a thing that is counted already:\n  other.ply: of the size and shape of one.ply" in said


def test_two_reconstructions_of_one_thing_may_differ_by_noise_and_by_no_more(tmp_path):
    bracket().export(tmp_path / "a.ply")
    noisy(bracket()).export(tmp_path / "b.ply")
    bracket(0.12).export(tmp_path / "c.ply")
    assert compare_surfaces(tmp_path / "a.ply", tmp_path / "b.ply", variants=True) == "same"
    assert compare_surfaces(tmp_path / "a.ply", tmp_path / "c.ply", variants=True) == "different"


@pytest.mark.parametrize(
    ("names", "thing"),
    [
        (
            ["002_can/google_16k/textured.obj", "002_can/tsdf/nontextured.ply", "002_can/poisson/nontextured.stl"],
            "002_can",
        ),
        (["cup/visual.obj", "cup/collision.stl", "cup/meshes/model.glb"], "cup"),
        (["toys/bear_high.obj", "toys/bear_low.obj", "toys/bear-16k.ply", "toys/bear.glb"], "toys/bear"),
        (["google_512k/textured.obj", "tsdf/nontextured.ply"], ""),
        (["low_table/a.obj"], "low_table/a"),
    ],
)
def test_words_for_qualities_are_no_part_of_the_name_of_a_thing(names, thing):
    assert {thing_of(name) for name in names} == {thing}


def facts(radius, faces=100, closed=True):
    return SurfaceFacts(longest=4 * radius, radii=(radius, radius / 2, radius / 3), faces=faces, closed=closed)


def test_a_mesh_joins_the_first_group_whose_first_mesh_it_equals():
    asked = []

    def compare(pairs):
        asked.extend(pairs)
        return {(i, j): (i, j) in {(2, 0), (4, 1)} for i, j in pairs}

    sizes = [facts(0.10), facts(0.10), facts(0.10), facts(0.50), facts(0.10)]
    assert group_same(sizes, list("abcde"), compare) == [[0, 2], [1, 4], [3]]
    assert sorted(asked) == [(1, 0), (2, 0), (4, 0), (4, 1)]  # 3 has another size; 2 was settled by 0


def test_closed_files_come_first_then_fine_names_then_the_finest_within_the_limit():
    files = [
        (facts(1, 900, closed=False), "cup.obj"),
        (facts(1, 19_000), "cup_low.obj"),
        (facts(1, 50_000), "cup.obj"),
        (facts(1, 30_000), "slow/cup.obj"),
        (facts(1, 16_000), "google_16k/textured.obj"),
        (facts(1, 500), "cup.stl"),
        (facts(1, 18_000), "collision/cup.stl"),
    ]
    order = sorted(files, key=lambda file: file[0].preference(is_rough(file[1])))
    assert [found.faces for found, _ in order] == [16_000, 500, 30_000, 50_000, 19_000, 18_000, 900]


@pytest.fixture(scope="module")
def ycb(tmp_path_factory):
    """Two things in the layout of the YCB set, one of them open in its finest file, and one file beside them."""
    folder = tmp_path_factory.mktemp("ycb")
    can, box = trimesh.creation.cylinder(0.04, 0.12, sections=48), trimesh.creation.box((0.09, 0.05, 0.03))
    for name, mesh in (("001_can", can), ("002_box", box)):
        (folder / name / "google_16k").mkdir(parents=True)
        (folder / name / "tsdf").mkdir()
        for kind in ("textured.obj", "nontextured.ply", "nontextured.stl"):
            mesh.export(folder / name / "google_16k" / kind)
        noisy(mesh).export(folder / name / "tsdf" / "nontextured.ply")
    bracket().export(folder / "bracket.glb")
    return folder


@pytest.fixture(scope="module")
def report(ycb, tmp_path_factory):
    return import_meshes(ycb, tmp_path_factory.mktemp("out") / "lib", workers=1, progress=False)


def test_each_thing_counts_once_and_the_files_left_out_are_named(report):
    assert report.library.names == ["001_can", "002_box", "bracket"]
    assert (report.files, len(report.left_out), report.refused) == (9, 6, {})
    assert all("google_16k" in row.source or row.source == "bracket.glb" for row in report.library.entries)
    taken = report.library.entry("001_can").source
    assert report.left_out["001_can/google_16k/nontextured.stl"] == taken
    said = report.summary()
    assert "3 objects of 9 files" in said and f"001_can/google_16k/nontextured.stl: as {taken}" in said
    manifest = json.loads((report.library.path / "manifest.json").read_text())
    assert manifest["request"]["left_out"] == report.left_out


def test_patterns_choose_the_files(ycb, tmp_path):
    settings = ImportSettings(include=("*/google_16k/*",), exclude=("*.ply", "002*"), size=0.2)
    report = import_meshes(ycb, tmp_path / "lib", settings, workers=1, progress=False)
    assert {row.source for row in report.library.entries} <= {
        "001_can/google_16k/textured.obj",
        "001_can/google_16k/nontextured.stl",
    }
    assert (report.files, report.not_selected) == (2, 7)
    assert "7 files left out by include/exclude" in report.summary()
    # size=: the longest side of each mesh, whatever unit the file has
    assert max(report.library.entries[0].extents) == pytest.approx(0.2, rel=1e-3)


@pytest.fixture
def odd_names(tmp_path):
    """Files whose names hold letters that mean something in a pattern or in a list."""
    for name in ("a/cup[1].obj", "b,c.obj", "d e.OBJ", "*.stl", "a/x.ply"):
        path = tmp_path / "odd" / name
        path.parent.mkdir(exist_ok=True, parents=True)
        path.write_text("x")
    return tmp_path / "odd"


@pytest.mark.parametrize(
    ("words", "chosen"),
    [
        ([], 5),
        (["include="], 5),
        (["include=[]", "exclude=[]"], 5),
        (["include=''"], 5),
        (["include=*"], 5),
        (["include=[*.obj]"], 2),
        (["include=['a/*', \"*.OBJ\"]"], 3),
        (["include=a/cup[1].obj"], 1),
        (["include=b?c.obj"], 1),
        (["include=d e.OBJ"], 1),
        (["include=[*].stl"], 1),
        (["include=a/*,", "exclude=*.ply"], 1),
    ],
)
def test_patterns_and_lists_of_them_mean_what_they_say(odd_names, words, chosen):
    settings = configs.load(ImportCfg, None, ["source=x", "out=y", *words]).settings()
    assert len(find_meshes(odd_names, settings.include, settings.exclude).meshes) == chosen
    for path in find_meshes(odd_names).meshes:
        assert find_meshes(odd_names, [pattern_of(shown_name(path, odd_names))]).meshes == [path]
        assert path in find_meshes(odd_names, [shown_name(path, odd_names)]).meshes


@pytest.mark.parametrize("pattern", ["typo*", "cup[1].obj", "D e.obj", "./a/x.ply", "/", "none", "", "[]", "a/x.ply/"])
def test_a_pattern_that_fits_no_file_is_refused_with_what_there_is(odd_names, pattern):
    for key, given in (
        ("include", {"include": [pattern]}),
        ("exclude", {"include": ["*"], "exclude": ["*.stl", pattern]}),
    ):
        with pytest.raises(ValueError, match=f"{key}: no mesh file under .* fits '{re.escape(pattern)}'; patterns are"):
            find_meshes(odd_names, **given)
    with pytest.raises(FileNotFoundError, match="include/exclude leave out 5"):
        find_meshes(odd_names, exclude=["*"])
    with pytest.raises(ValueError, match="must be lists of patterns"):
        ImportSettings(include="*.obj")


@pytest.mark.parametrize(
    ("given", "said"),
    [({"size": 0.1, "scale": 1.0}, "only one of them"), ({"size": 2.0}, r"0\.01\.\.0\.35 m"), ({"size": -1.0}, "0.01")],
)
def test_an_impossible_size_is_refused(given, said):
    with pytest.raises(ValueError, match=said):
        ImportSettings(**given)


def test_facts_of_a_box_are_those_of_the_textbook(tmp_path):
    """Sides a, b, c: the variance of the surface along x is (a^2/12)(2bc' + ...) by its six faces."""
    a, b, c = 0.4, 0.2, 0.1
    trimesh.creation.box((a, b, c)).export(tmp_path / "box.stl")
    found = surface_facts(tmp_path / "box.stl")
    area = 2 * (a * b + b * c + a * c)
    along_x = (2 * b * c * a**2 / 4 + 2 * (a * b + a * c) * a**2 / 12) / area
    assert found.longest == pytest.approx(a) and found.faces == 12 and found.closed
    assert found.radii[0] == pytest.approx(np.sqrt(along_x), rel=1e-6)
