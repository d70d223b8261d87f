"""Compiled scenes: one layout for all objects, the numbers of hand, object and preset in them, and the pool."""

import copy

import mujoco
import numpy as np
import pytest
from mujoco.batch import Batch
from scipy.spatial import cKDTree

from dexgrasp.sim.scene import OBJECT, TABLE, ModelPool, PhysicsCfg, build_model, fibonacci_sphere, model_bytes


@pytest.fixture(scope="module")
def pool(allegro, household, balanced):
    return ModelPool(allegro, household, balanced)


@pytest.fixture(scope="module")
def models(pool, household):
    return {name: pool[name] for name in household.names}


def by_family(things, family):
    return next(value for name, value in things.items() if name.startswith(family))


def test_models_of_all_objects_fit_into_one_batch(models):
    first = next(iter(models.values()))
    batch = Batch(first, nsim=len(models), nthread=1)
    batch.set_models(list(models.values()))  # refuses layouts that differ
    batch.step(nstep=2)
    for field in ("nq", "nv", "nu", "ngeom", "nbvh", "nC", "nmeshvert", "nsensordata"):
        assert len({getattr(model, field) for model in models.values()}) == 1, field


def test_all_slots_are_filled_and_only_those_of_pieces_collide(pool, household, models):
    assert pool.slots == max(len(household[name].pieces) for name in household.names)
    for name, model in models.items():
        pieces = len(household[name].pieces)
        for slot in range(pool.slots):
            geom = model.geom(f"object_{slot}")
            assert (geom.contype[0], geom.conaffinity[0]) == ((OBJECT, TABLE) if slot < pieces else (0, 0))


def test_every_piece_lies_where_the_object_has_it(household, models):
    """MuJoCo moves each mesh into its own inertial frame: the geom's pose must bring it back."""
    for name, model in models.items():
        data = mujoco.MjData(model)
        data.joint("object").qpos[:] = [0, 0, 0, 1, 0, 0, 0]
        mujoco.mj_kinematics(model, data)
        for slot, piece in enumerate(household[name].pieces):
            geom = model.geom(f"object_{slot}").id
            mesh = model.geom_dataid[geom]
            start, count = model.mesh_vertadr[mesh], model.mesh_vertnum[mesh]
            vertices = (
                model.mesh_vert[start : start + count] @ data.geom_xmat[geom].reshape(3, 3).T + data.geom_xpos[geom]
            )
            nearest, index = cKDTree(vertices).query(piece)
            assert nearest.max() < 2e-6  # float32, rounded twice
            assert len(set(index)) == len(piece) == count


def test_mass_and_inertia_are_those_of_the_object(household, models):
    for name, model in models.items():
        obj, body = household[name], model.body("object")
        axes = np.empty(9)
        mujoco.mju_quat2Mat(axes, body.iquat)
        axes = axes.reshape(3, 3)
        assert body.mass[0] == pytest.approx(obj.mass)
        np.testing.assert_allclose(np.sort(body.inertia), np.linalg.eigvalsh(obj.inertia), rtol=1e-9)
        # turned by 3.5 mrad, so that no object is stored as an aligned one
        np.testing.assert_allclose(axes @ np.diag(body.inertia) @ axes.T, obj.inertia, atol=8e-3 * body.inertia.max())
        assert np.linalg.norm(body.ipos) <= 1e-4


def test_an_object_of_more_pieces_than_slots_is_refused_by_name_and_number(allegro, household, balanced):
    mug = by_family({name: household[name] for name in household.names}, "mug")
    with pytest.raises(ValueError, match=rf"'{mug.name}' has {len(mug.pieces)} convex pieces, the scene only 3 slots"):
        build_model(allegro, mug, balanced, "floating", slots=3)


def test_the_object_decides_friction_against_the_hand_and_the_table_its_own(models):
    model = next(iter(models.values()))
    fixed = ("table", "object")
    hand = [g for g in range(model.ngeom) if not model.geom(g).name.startswith(fixed)]
    objects = model.geom("object_0")
    table = model.geom("table")
    assert model.geom_friction[hand, 0].max() < 0.3  # below the slippery object of the evaluation
    assert (model.geom_priority[hand] == objects.priority[0]).all()  # equal priority: the larger friction counts
    assert table.priority[0] > objects.priority[0]


@pytest.mark.parametrize(
    ("one", "other", "meet"),
    [
        ("hand", "object", True),
        ("hand", "table", True),
        ("hand", "thumb", True),
        ("thumb", "object", True),
        ("thumb", "table", True),
        ("object", "table", True),
        ("object", "object", False),
    ],
)
def test_who_collides_with_whom(models, one, other, meet):
    assert collide(next(iter(models.values())), one, other) == meet


@pytest.mark.parametrize(("preset", "meet"), [("reference", True), ("balanced", False)])
def test_fingers_meet_one_another_where_the_preset_says_so(request, allegro, household, preset, meet):
    model = ModelPool(allegro, household, request.getfixturevalue(preset))[household.names[0]]
    assert collide(model, "hand", "hand") == meet


def collide(model, one, other):
    bodies = {"hand": "ff_distal", "thumb": "th_distal", "object": "object", "table": "world"}
    geoms = {name: model.geom(model.body(body).geomadr[0]) for name, body in bodies.items()}
    bits = geoms[one].contype[0] & geoms[other].conaffinity[0] | geoms[other].contype[0] & geoms[one].conaffinity[0]
    return bool(bits)


@pytest.mark.parametrize("preset", ["balanced", "reference"])
def test_the_preset_reaches_the_model(request, allegro, household, preset):
    cfg = request.getfixturevalue(preset)
    model = ModelPool(allegro, household, cfg)[household.names[0]]
    assert model.opt.timestep == cfg.timestep_s
    assert model.opt.impratio == cfg.impratio
    assert model.opt.tolerance == cfg.tolerance
    assert model.opt.jacobian == mujoco.mjtJacobian.mjJAC_DENSE
    assert model.opt.cone == mujoco.mjtCone.mjCONE_ELLIPTIC
    assert (model.geom_condim == cfg.condim).all()


def test_the_friction_scale_multiplies_every_friction(allegro, household):
    plain, scaled = (
        ModelPool(allegro, household, PhysicsCfg(friction_scale=scale))[household.names[0]] for scale in (1.0, 1.5)
    )
    np.testing.assert_allclose(scaled.geom_friction[:, 0], 1.5 * plain.geom_friction[:, 0])


def test_the_pool_hands_out_the_same_model_again(pool, household):
    assert pool[household.names[0]] is pool[household.names[0]]


def test_the_pool_keeps_to_its_budget_and_drops_the_least_recently_used(allegro, household, balanced):
    names = household.names
    budget = int(2.5 * model_bytes(ModelPool(allegro, household, balanced)[names[0]]))
    pool = ModelPool(allegro, household, balanced, budget_bytes=budget)
    first, second = pool[names[0]], pool[names[1]]
    assert pool[names[0]] is first  # used again: now the second is the older one
    pool[names[2]]
    assert len(pool) == 2
    assert pool[names[0]] is first
    assert pool[names[1]] is not second


def test_even_a_budget_below_one_model_keeps_the_last(allegro, household, balanced):
    pool = ModelPool(allegro, household, balanced, budget_bytes=1)
    assert pool[household.names[0]] is pool[household.names[0]]
    assert len(pool) == 1


def test_a_model_that_is_built_again_is_the_same_to_the_last_bit(allegro, household, balanced):
    one, two = (ModelPool(allegro, household, balanced)[household.names[1]] for _ in range(2))
    assert saved(one) == saved(two)


def test_a_copy_for_one_environment_leaves_the_pool_untouched(pool, household):
    model = pool[household.names[0]]
    before = saved(model)
    twin = copy.copy(model)
    twin.geom_friction[:] = 9.0
    twin.body_mass[:] *= 2
    assert saved(model) == before


def saved(model):
    buffer = np.empty(mujoco.mj_sizeModel(model), np.uint8)
    mujoco.mj_saveModel(model, None, buffer)
    return buffer.tobytes()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"integrator": "rk4"}, "integrator must be one of euler, implicitfast, discrete, got 'rk4'"),
        ({"cone": "round"}, "cone must be one of pyramidal, elliptic, got 'round'"),
        ({"timestep_s": 0.05}, "timestep_s must lie in .*0.05"),
        ({"timestep_s": float("nan")}, "timestep_s"),
        ({"condim": 2}, "condim must be one of 3, 4, 6, got 2"),
        ({"impratio": 0.0}, "impratio must lie in 0.01..1000, got 0.0"),
        ({"friction_scale": -1.0}, "friction_scale must lie in 0.01..100, got -1.0"),
    ],
)
def test_impossible_physics_is_refused_by_name(change, message):
    with pytest.raises(ValueError, match=message):
        PhysicsCfg(**change)


def test_the_sphere_of_points_is_unit_and_even():
    points = fibonacci_sphere(64)
    np.testing.assert_allclose(np.linalg.norm(points, axis=1), 1.0, atol=1e-12)
    np.testing.assert_allclose(points.mean(axis=0), 0.0, atol=0.01)
    gaps = np.linalg.norm(points[:, None] - points, axis=-1) + 9 * np.eye(64)
    assert gaps.min(axis=1).max() < 1.6 * gaps.min(axis=1).min()
