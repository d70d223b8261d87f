"""Holes of imported meshes: small ones are closed and measured, openings refused; meshes far from their origin."""

from itertools import pairwise

import numpy as np
import pytest
import trimesh
from scipy.spatial.transform import Rotation

from dexgrasp.sim.objects import shapes
from dexgrasp.sim.objects.import_settings import ImportSettings
from dexgrasp.sim.objects.importer import import_meshes
from dexgrasp.sim.objects.mesh_cleaning import RefusedMeshError, _united, clean_parts, model_from_mesh
from dexgrasp.sim.objects.mesh_files import ClosedHoles, mass_properties, miscounted_share


def fine_box(*sides, levels=4):
    mesh = trimesh.creation.box(sides)
    for _ in range(levels):
        mesh = mesh.subdivide()
    return mesh


def fine_cup():
    """A vessel with walls of 3 mm and a flat base of 36 mm radius."""
    outer = np.array([(0.036, 0.0), (0.036, 0.09)])
    inner = np.array([(0.033, 0.004), (0.033, 0.09)])
    return trimesh.Trimesh(*shapes.shell(outer, inner, sectors=24).mesh()).subdivide_to_size(0.008)


def without(mesh, is_gone):
    """The mesh without the faces whose centres (f, 3) satisfy a condition."""
    return trimesh.Trimesh(mesh.vertices, mesh.faces[~is_gone(mesh.triangles_center)], process=True)


def disc(axis, level, centre, radius):
    """Whether a point lies in a disc across an axis."""

    def is_in(points):
        off = np.delete(points, axis, axis=1) - centre
        return (np.abs(points[:, axis] - level) < 1e-6) & (np.linalg.norm(off, axis=1) < radius)

    return is_in


SMALL = {
    "a box": (fine_box(0.09, 0.06, 0.04), disc(2, 0.02, (0.01, 0.0), 0.006)),
    "a box at its rim": (fine_box(0.09, 0.06, 0.04), disc(0, 0.045, (0.028, 0.0), 0.005)),
    "the base of a cup": (fine_cup(), disc(2, 0.0, (0.0, 0.0), 0.008)),
    "the floor inside a cup": (fine_cup(), disc(2, 0.004, (0.0, 0.0), 0.008)),
    "a flat plate": (fine_box(0.1, 0.1, 0.006), disc(2, -0.003, (0.0, 0.0), 0.008)),
    "a rod": (fine_box(0.3, 0.012, 0.012), disc(2, 0.006, (0.0, 0.0), 0.007)),
}
"""Closed meshes, and the part of a plane face of theirs that is missing: closed, it is the face again."""


@pytest.mark.parametrize("name", SMALL)
def test_a_small_hole_is_closed_and_its_area_is_said(name):
    whole, is_gone = SMALL[name]
    open_mesh = without(whole, is_gone)
    if "box" in name:
        open_mesh.invert()
    parts, closed = clean_parts(open_mesh, 1.0)
    missing = whole.area - open_mesh.area
    assert missing > 0 and closed.count == (8 if name == "a rod" else 1)
    assert closed.area_share == pytest.approx(missing / whole.area, rel=1e-6)
    assert sum(mass_properties(*part)[0] for part in parts) == pytest.approx(whole.volume, rel=1e-6)


def test_the_share_of_the_cross_section_is_that_of_the_solid():
    """A ball of 40 mm without a cap of radius a: at depth a beneath it the section has radius sqrt(R^2 - d^2)."""
    ball = trimesh.creation.icosphere(subdivisions=4, radius=0.04)
    cut = 0.0395
    open_mesh = without(ball, lambda points: points[:, 2] > cut)
    closed = clean_parts(open_mesh, 1.0)[1]
    a = np.sqrt(0.04**2 - cut**2)
    assert closed.section_share == pytest.approx(a**2 / (0.04**2 - (cut - a) ** 2), rel=0.1)
    assert str(closed).startswith("1 hole, 0.") and "% of the cross-section behind it" in str(closed)


def test_holes_of_bodies_that_lie_apart_are_counted_together():
    box = without(*SMALL["a box"])
    both = trimesh.util.concatenate([box, box.copy().apply_translation((0, 0, 0.1))])
    assert clean_parts(both, 1.0)[1].count == 2
    assert clean_parts(both, 1.0, apart=True)[1].count == 2
    assert clean_parts(fine_cup(), 1.0)[1] == ClosedHoles()


def tube(sectors, length=0.1, radius=0.03):
    mesh = trimesh.creation.cylinder(radius, length, sections=sectors)
    return without(mesh, lambda points: np.abs(np.abs(points[:, 2]) - length / 2) < 1e-6)


def open_box(*sides, levels=0):
    mesh = fine_box(*sides, levels=levels)
    return without(mesh, lambda points: points[:, 2] > sides[2] / 2 - 1e-6)


def hemisphere(subdivisions=3):
    ball = trimesh.creation.icosphere(subdivisions=subdivisions, radius=0.04)
    return without(ball, lambda points: points[:, 2] > 0.0)


def half_lid():
    return without(fine_box(0.08, 0.06, 0.05), lambda points: (points[:, 2] > 0.025 - 1e-6) & (points[:, 0] > 0))


def bent_tube():
    """Three boxes as a U, without the two ends."""
    arms = [
        ((0.0, 0, 0), (0.2, 0.02, 0.02)),
        ((-0.09, 0, 0.06), (0.02, 0.02, 0.12)),
        ((0.09, 0, 0.06), (0.02, 0.02, 0.12)),
    ]
    boxes = [trimesh.creation.box(size, trimesh.transformations.translation_matrix(at)) for at, size in arms]
    whole = trimesh.boolean.union(boxes)
    return without(whole, lambda points: points[:, 2] > 0.12 - 1e-6)


def both_sides(mesh):
    """Every face twice, once for each side, as models for games have them."""
    return trimesh.Trimesh(mesh.vertices, np.concatenate([mesh.faces, mesh.faces[:, ::-1]]), process=False)


def sieve():
    """A box with a fifth of its faces missing, no two of them beside each other."""
    mesh = fine_box(0.08, 0.08, 0.08)
    gone = np.zeros(len(mesh.faces), bool)
    taken = np.zeros(len(mesh.vertices), bool)
    for k, face in enumerate(mesh.faces):
        if not taken[face].any():
            gone[k], taken[face] = True, True
    return trimesh.Trimesh(mesh.vertices, mesh.faces[~gone], process=True)


OPEN = {
    "a square tube": tube(4),
    "a triangular tube": tube(3),
    "a round tube": tube(32),
    "a long thin tube": tube(4, 0.34, 0.003),
    "a box without a lid": open_box(0.08, 0.06, 0.05),
    "a tray without a lid": open_box(0.2, 0.2, 0.01, levels=3),
    "a box with half a lid": half_lid(),
    "a bowl without thickness": hemisphere(),
    "a coarse bowl": hemisphere(1),
    "a funnel": without(trimesh.creation.cone(0.04, 0.08, sections=24), lambda points: np.abs(points[:, 2]) < 1e-6),
    "a bent tube": bent_tube(),
    "a tube of faces with two sides": both_sides(tube(4)),
    "a bowl of faces with two sides": both_sides(hemisphere()),
    "a sieve": sieve(),
}
"""Surfaces whose inside nobody has drawn."""


@pytest.mark.parametrize("name", OPEN)
def test_an_opening_is_refused_and_makes_no_solid(name):
    with pytest.raises(RefusedMeshError, match=r"not closed: .*of the (surface|cross-section)") as refusal:
        clean_parts(OPEN[name], 1.0)
    assert "close it, or give its walls a thickness" in str(refusal.value) and "\n" not in str(refusal.value)


def test_a_surface_without_inside_and_outside_is_refused():
    """A Klein bottle: every edge joins two faces, and no orientation fits all of them."""
    n = 24
    u, v = np.meshgrid(np.arange(n) * 2 * np.pi / n, (np.arange(n) + 0.5) * 2 * np.pi / n, indexing="ij")
    ring = 0.04 + 0.015 * (np.cos(u / 2) * np.sin(v) - np.sin(u / 2) * np.sin(2 * v))
    tall = 0.015 * (np.sin(u / 2) * np.sin(v) + np.cos(u / 2) * np.sin(2 * v))
    vertices = np.stack([ring * np.cos(u), ring * np.sin(u), tall], axis=2).reshape(-1, 3)

    def at(i, j):
        return (i % n) * n + (j if i < n else -1 - j) % n  # after one turn the figure eight is turned over

    quads = [(at(i, j), at(i + 1, j), at(i + 1, j + 1), at(i, j + 1)) for i in range(n) for j in range(n)]
    faces = [triangle for a, b, c, d in quads for triangle in ((a, b, c), (a, c, d))]
    with pytest.raises(RefusedMeshError, match="not a solid: its surface has no inside and outside"):
        clean_parts(trimesh.Trimesh(vertices, faces, process=False), 1.0)


def pushed(depth, axes=(0, 1, 2)):
    """A box of 80 x 60 x 40 mm whose top is pushed down in the middle, on 30 x 22.5 mm; more than 40 mm: through it."""
    mesh = fine_box(0.08, 0.06, 0.04)
    vertices = mesh.vertices.copy()
    is_in = (vertices[:, 2] > 0.0199) & (np.abs(vertices[:, 0]) < 0.0199) & (np.abs(vertices[:, 1]) < 0.0149)
    vertices[is_in, 2] -= depth
    return trimesh.Trimesh(vertices[:, list(axes)], mesh.faces, process=False)


def frustum(height, a, b, c, d):
    """Volume between rectangles a x b and c x d: Simpson's rule, exact for a quadratic section."""
    return height / 6 * (a * b + (a + c) * (b + d) + c * d)


@pytest.mark.parametrize("axes", [(0, 1, 2), (1, 2, 0), (2, 0, 1)])
def test_a_surface_that_passes_through_itself_is_refused_and_a_deep_dent_is_not(axes):
    """Through the bottom: what hangs out is enclosed inside out, so the integral misses it once more."""
    out = frustum(0.01, 0.032, 0.024, 0.03, 0.0225)
    true = 0.08 * 0.06 * 0.04 - frustum(0.04, 0.04, 0.03, 0.032, 0.024) + out
    through = pushed(0.05, axes)
    assert miscounted_share(through.vertices, through.faces) == pytest.approx(2 * out / true, rel=0.1)
    with pytest.raises(RefusedMeshError, match=r"passes through itself: \d+ % of the volume would be counted twice"):
        clean_parts(through, 1.0)
    ((vertices, faces),), _ = clean_parts(pushed(0.035, axes), 1.0)
    dent = frustum(0.035, 0.04, 0.03, 0.03, 0.0225)
    assert mass_properties(vertices, faces)[0] == pytest.approx(0.08 * 0.06 * 0.04 - dent, rel=0.005)


def test_the_miscounted_share_is_that_of_overlapping_bodies_and_none_of_a_simple_surface():
    box, other = fine_box(0.08, 0.06, 0.04, levels=0), fine_box(0.08, 0.06, 0.04, levels=0)
    both = trimesh.util.concatenate([box, other.apply_translation((0.03, 0.02, 0.01))])
    shared = 0.05 * 0.04 * 0.03
    expected = shared / (2 * box.volume - shared)
    assert miscounted_share(both.vertices, both.faces) == pytest.approx(expected, rel=0.03)
    assert miscounted_share(box.vertices, box.faces[:, ::-1]) == pytest.approx(2.0)  # inside out
    for simple in (fine_cup(), trimesh.creation.torus(0.04, 0.01), trimesh.creation.icosphere(4, 0.04)):
        assert miscounted_share(np.asarray(simple.vertices), simple.faces) == 0.0
    assert miscounted_share(np.zeros((3, 3)), np.array([[0, 1, 2]])) == 0.0


def test_a_tiny_body_that_passes_through_itself_stops_nothing():
    small = pushed(0.05).apply_scale(0.2).apply_translation((0.2, 0, 0))
    parts, _ = clean_parts(trimesh.util.concatenate([fine_box(0.08, 0.06, 0.04), small]), 1.0)
    assert len(parts) == 2


def test_vessels_are_refused_by_their_mouth_and_taken_with_walls_of_a_thickness():
    """A bottle; walls of 3 mm between two profiles; the integral of the profile is that of Pappus."""
    outside = [(0, 0), (0.035, 0), (0.035, 0.12), (0.012, 0.15), (0.012, 0.19)]
    inside = [(0.009, 0.19), (0.009, 0.15), (0.032, 0.119), (0.032, 0.003), (0, 0.003)]
    walls = trimesh.creation.revolve(np.array([*outside, *inside]), sections=24)

    def cones(profile):
        return sum(np.pi / 3 * (b[1] - a[1]) * (a[0] ** 2 + a[0] * b[0] + b[0] ** 2) for a, b in pairwise(profile))

    round_share = 24 / (2 * np.pi) * np.sin(2 * np.pi / 24)  # a polygon of 24 corners / its circle
    parts, closed = clean_parts(walls, 1.0)
    assert closed == ClosedHoles() and len(parts) == 1
    assert mass_properties(*parts[0])[0] == pytest.approx(round_share * (cones(outside) + cones(inside)), rel=1e-6)
    filled = trimesh.creation.revolve(np.array([*outside, (0, 0.19)]), sections=24)
    assert mass_properties(*clean_parts(filled, 1.0)[0][0])[0] == pytest.approx(round_share * cones(outside), rel=1e-6)
    for profiles in ([outside], [outside, inside]):  # without walls; with walls, but no rim between them
        sheets = [trimesh.creation.revolve(np.array(profile), sections=24) for profile in profiles]
        with pytest.raises(RefusedMeshError, match=r"not closed: a hole of .* of the cross-section behind it"):
            clean_parts(trimesh.util.concatenate(sheets), 1.0)


def test_shells_within_a_body_are_one_solid_and_slits_are_closed():
    box = fine_box(0.08, 0.06, 0.04)
    inner = fine_box(0.05, 0.04, 0.02, levels=0)
    hollow = inner.copy()
    hollow.invert()
    for nested in (inner, hollow):
        parts, _ = clean_parts(trimesh.util.concatenate([box, nested]), 1.0)
        assert mass_properties(*_united(parts))[0] == pytest.approx(0.08 * 0.06 * 0.04, rel=1e-6)
    for width in (1e-6, 1e-4, 1e-3):
        parts, closed = clean_parts(slit(box, width), 1.0)
        assert mass_properties(*parts[0])[0] == pytest.approx(0.08 * 0.06 * 0.04, rel=0.01) and closed.count == 1


def slit(mesh, width):
    """Open a box along the middle line of its top."""
    vertices, middle = mesh.vertices, mesh.triangles_center
    on_line = (vertices[:, 2] > 0.0199) & (np.abs(vertices[:, 0]) < 1e-9) & (np.abs(vertices[:, 1]) < 0.0299)
    copies = np.arange(len(vertices))
    copies[on_line] = len(vertices) + np.arange(on_line.sum())
    beyond = (middle[:, 0] > 0) & (middle[:, 2] > 0.0199)
    faces = np.where(beyond[:, None], copies[mesh.faces], mesh.faces)
    return trimesh.Trimesh(np.concatenate([vertices, vertices[on_line] + (width, 0, 0)]), faces, process=False)


def test_closed_holes_are_said_and_an_opening_stops_nothing(tmp_path):
    (tmp_path / "in").mkdir()
    whole, is_gone = SMALL["a box"]
    without(whole, is_gone).export(tmp_path / "in" / "scan.ply")
    tube(4).export(tmp_path / "in" / "tube.ply")
    for _ in range(2):  # the second time from the cache
        report = import_meshes(tmp_path / "in", tmp_path / "lib", ImportSettings(scale=1.0), workers=1, progress=False)
        assert report.refused["tube.ply"].startswith("not closed: 18 % of the surface is missing in 2 holes")
        assert report.library.entries[0].volume == pytest.approx(0.09 * 0.06 * 0.04, rel=1e-3)
        missing = 100 * (1 - without(whole, is_gone).area / whole.area)
        assert f"holes were closed in 1 mesh:\n  scan.ply: 1 hole, {missing:.2g} % of its surface" in report.summary()
        assert report.library.manifest["request"]["closed"] == report.closed != {}


BLOCK = (0.09, 0.05, 0.03)


def block_obj(place, rotvec, digits=12):
    turn = Rotation.from_rotvec(rotvec).as_matrix()
    vertices, faces = shapes.box(*BLOCK).mesh()
    lines = [f"v {x:.{digits}f} {y:.{digits}f} {z:.{digits}f}" for x, y, z in vertices @ turn.T + place]
    return "\n".join(lines + [f"f {a + 1} {b + 1} {c + 1}" for a, b, c in faces]) + "\n"


@pytest.mark.parametrize("away_m", [0.0, 0.04, 0.3, 10.0, 1e3, 1e4])
@pytest.mark.parametrize("rotvec", [(0.0, 0.0, 0.0), (0.3, -1.0, 2.0)])
def test_a_mesh_far_from_its_origin_has_the_moments_of_the_textbook(tmp_path, away_m, rotvec):
    """Sides a, b, c: volume a b c, principal moments m (b^2 + c^2) / 12 and so on."""
    (tmp_path / "a.obj").write_text(block_obj(away_m * np.array([1.0, -0.7, 0.4]), rotvec))
    model, closed = model_from_mesh(tmp_path / "a.obj", "a", 1.0, ImportSettings())
    a, b, c = BLOCK
    mass = 600 * a * b * c
    expected = sorted(mass * (x**2 + y**2) / 12 for x, y in ((a, b), (b, c), (a, c)))
    assert model.mass == pytest.approx(mass, rel=1e-6) and closed == ClosedHoles()
    np.testing.assert_allclose(np.linalg.eigvalsh(model.inertia), expected, rtol=1e-4)
    np.testing.assert_allclose(model.inertia, model.inertia.T, atol=1e-18)
    assert np.abs(model.mass_properties[1]).max() < 1e-5


@pytest.mark.parametrize("ending", ["stl", "ply", "glb"])
def test_coordinates_of_single_precision_too_far_away_are_refused_and_near_ones_are_not(tmp_path, ending):
    """Single precision has steps of 0.98 mm at 10 km and of 0.12 micrometres at 1 m."""
    path = tmp_path / f"a.{ending}"
    trimesh.creation.box(BLOCK).apply_translation((1.0, 0, 0)).export(path)
    assert model_from_mesh(path, "a", 1.0, ImportSettings())[0].extents == pytest.approx(BLOCK, abs=1e-4)
    trimesh.creation.box(BLOCK).apply_translation((1e4, 0, 0)).export(path)
    with pytest.raises(RefusedMeshError, match=r"too far from its origin: at 1e\+04 m .* rounded to 0\.98 mm"):
        model_from_mesh(path, "a", 1.0, ImportSettings())


def test_mass_properties_far_from_the_origin_agree_with_those_at_it():
    vertices, faces = shapes.box(*BLOCK).mesh()
    a, b, c = BLOCK
    for away_m in (0.0, 1.0, 100.0, 1e4):
        volume, centre, second = mass_properties(vertices + np.array([away_m, -away_m, away_m / 3]), faces)
        assert volume == pytest.approx(a * b * c, rel=1e-9)
        np.testing.assert_allclose(centre, [away_m, -away_m, away_m / 3], atol=1e-9)
        np.testing.assert_allclose(
            np.diag(second), volume * np.array([b * b + c * c, a * a + c * c, a * a + b * b]) / 12, rtol=1e-6
        )


def box_with(*faces, points=()):
    """A box of 0.06 x 0.05 x 0.04 m with further faces, and further vertices from number 8 on."""
    box = trimesh.creation.box((0.06, 0.05, 0.04))
    vertices = np.vstack([box.vertices, np.reshape(points, (-1, 3))])
    return trimesh.Trimesh(vertices, np.vstack([box.faces, faces]), process=False)


BOX = trimesh.creation.box((0.06, 0.05, 0.04))
STRIP = np.array([[0.05 * np.cos(t), 0.05 * np.sin(t), z] for t in np.arange(12) * np.pi / 6 for z in (0.0, 0.02)])
ADVICE = {
    "a wall inside": (
        box_with((0, 3, 7), (0, 7, 4)),
        r"not a solid: three or more faces meet in 3 of 20 edges, 1 belong to one face; delete walls inside it",
    ),
    "a fin": (
        box_with((0, 1, 8), (0, 8, 1), points=(0, 0, 0.05)),
        "not a solid: three or more faces meet in 1 of 20 edges, 2",
    ),
    "a flat sheet": (
        trimesh.Trimesh(BOX.vertices * (1, 1, 0), BOX.faces),
        "too thin: it is flat, a surface without th",
    ),
    "a plate": (trimesh.creation.box((0.1, 0.08, 0.002)), r"too thin: shortest side 2 mm, at least 4 mm, .*thicker"),
}
"""Surfaces that no importer can make a body of, and what is said of them."""


@pytest.mark.parametrize("name", ADVICE)
def test_a_refusal_names_the_fault_of_the_surface_and_what_to_change(name):
    mesh, text = ADVICE[name]
    with pytest.raises(RefusedMeshError, match=text) as refusal:
        clean_parts(mesh, 1.0)
    assert "\n" not in str(refusal.value)


def test_a_strip_is_told_by_the_edges_of_one_face():
    """A Moebius strip: 12 quads joined with one half turn; 24 of its 48 edges belong to one face."""
    at = [(2 * i, 2 * i + 1) for i in range(12)] + [(1, 0)]
    faces = [face for (a, b), (c, d) in pairwise(at) for face in ((a, c, b), (b, c, d))]
    with pytest.raises(RefusedMeshError, match=r"not closed: 24 of 48 edges belong to one face; close the surface"):
        clean_parts(trimesh.Trimesh(STRIP, faces, process=False), 1.0)


def test_a_side_that_is_scaled_to_the_least_thickness_is_accepted():
    for scale in (0.1, 0.2, 0.3):  # 0.004 m but for the rounding of a product
        parts, _ = clean_parts(trimesh.creation.box((0.1 / scale, 0.02 / scale, 0.004 / scale)), scale)
        assert len(parts) == 1


def test_a_mass_that_no_such_body_has_is_refused_with_the_option_that_causes_it(tmp_path):
    BOX.export(tmp_path / "box.stl")  # 120 cm^3: at most 3.6 kg
    with pytest.raises(
        RefusedMeshError, match=r"unusable: mass 5 kg of 120 cm\^3 .*; give another mass_min=, or leave"
    ):
        model_from_mesh(tmp_path / "box.stl", "box", 1.0, ImportSettings(mass_min=5, mass_max=9))
    with pytest.raises(RefusedMeshError, match=r"unusable: mass 1e-05 kg of 120 cm\^3 .*; give another mass_max=, or"):
        model_from_mesh(tmp_path / "box.stl", "box", 1.0, ImportSettings(mass_min=1e-6, mass_max=1e-5))
