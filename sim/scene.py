"""Scene as one MuJoCo model: mount, hand, table, object, and other objects around it.

Models of different objects share one memory layout, so that one batch can give each environment its own object.
Equal layout needs (measured on MuJoCo 4.0.0): the same number of object geoms, all of them meshes of the same vertex
and face count, all collidable while compiling, and an object inertia that is not axis-aligned. Therefore an object
always fills `slots` geoms; those it does not need hold a tiny ball that is switched off after compiling.
"""

from collections import OrderedDict
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

import mujoco
import numpy as np

from dexgrasp.sim.objects import ObjectLibrary, ObjectModel
from dexgrasp.sim.robots.hand import HandSpec
from dexgrasp.sim.robots.mount import Turn, attach
from dexgrasp.utils.bounds import Bounds, bounded

TABLE, OBJECT, HAND, THUMB = 4, 2, 1, 8
"""Collision bits. The table meets hand and object, the object meets the hand, the hand meets itself or its thumb."""

NOMINAL_FRICTION, NOMINAL_TABLE_FRICTION = 0.8, 0.3
"""Sliding friction of an object against the hand, the published method's evaluation value, and on the table."""

GRAVITY_M_S2 = 9.81

OBJECT_BODY, NEIGHBOUR = "object", "neighbour_"
"""Body of the wanted object, and the start of the names of the others."""

OBJECT_RGB, NEIGHBOUR_RGB = (0.85, 0.45, 0.25), (0.45, 0.58, 0.66)
"""Colours of the objects' pieces."""

PARKED_M = 1.0
"""Depth below the table at which the body of a missing neighbour lies."""

PARKED_DAMPING = 1e6
"""Damping of such a body: it sinks by some micrometres per second [N s/m, N m s/rad]."""

HAND_FRICTION = 0.1
"""Below every object's friction, so that MuJoCo's maximum rule lets the object decide."""

INTEGRATORS = {
    "euler": mujoco.mjtIntegrator.mjINT_EULER,
    "implicitfast": mujoco.mjtIntegrator.mjINT_IMPLICITFAST,
    "discrete": mujoco.mjtIntegrator.mjINT_DISCRETE,
}

SELF_COLLISIONS = ("all", "thumb")

CONES = {"pyramidal": mujoco.mjtCone.mjCONE_PYRAMIDAL, "elliptic": mujoco.mjtCone.mjCONE_ELLIPTIC}

FOUND, FORCE, DIST = 1, 2, 8
"""Bits of a contact sensor's data: 1 << mjtConDataField."""

MINDIST, NETFORCE = 1, 3
"""A contact sensor's reductions, in the order of the XML reference."""


@dataclass(frozen=True)
@bounded
class PhysicsCfg:
    """Solver settings of one preset; the presets and what they cost are in configs/physics and the README."""

    name: str = "reference"
    """Preset name, printed beside every result."""
    timestep_s: Annotated[float, Bounds(0.0001, 0.02)] = 0.002
    """Simulation step [s]; it must divide the control period."""
    integrator: Literal["euler", "implicitfast", "discrete"] = "implicitfast"
    """Integrator of the physics. Above 4 ms only `discrete` holds grasps."""
    cone: Literal["pyramidal", "elliptic"] = "elliptic"
    """Shape of the friction cone."""
    impratio: Annotated[float, Bounds(0.01, 1000)] = 10.0
    """Frictional to normal constraint impedance; higher slips less."""
    condim: Literal[3, 4, 6] = 4
    """Contact dimension: 3 = sliding friction, 4 = torsional as well."""
    contact_time_s: Annotated[float, Bounds(0.0001, 0.5)] = 0.005
    """Time constant of contacts [s]: how fast a penetration is undone. MuJoCo takes at least two timesteps."""
    tolerance: Annotated[float, Bounds(1e-15, 0.01)] = 1e-8
    """Solver tolerance."""
    self_collision: Literal["all", "thumb"] = "all"
    """Contacts within the hand: all parts, or every part with the thumb alone."""
    friction_scale: Annotated[float, Bounds(0.01, 100)] = 1.0
    """Multiplies every friction; above 1 it makes up for the pyramid being inscribed in the cone."""


def build_model(
    hand: HandSpec,
    obj: ObjectModel,
    physics: PhysicsCfg,
    mount: str,
    slots: int,
    turn: Turn = "geodesic",
    visuals: bool = True,
    neighbours: Sequence[ObjectModel | None] = (),
) -> mujoco.MjModel:
    """Return a compiled scene with `obj` in a layout of `slots` convex pieces.

    World z up, table plane z = 0. `neighbours`: other objects, each in a layout of as many pieces; in place of None
    stands a body without contacts that hardly moves.

    `turn`: see `dexgrasp.sim.robots.mount.attach`. `visuals`: keep the visual geoms of hand and arm. Without
    them, which saves memory and time, colliders are seen.
    """
    for one in (obj, *neighbours):
        if one is not None and len(one.pieces) > slots:
            raise ValueError(f"object '{one.name}' has {len(one.pieces)} convex pieces, the scene only {slots} slots")
    spec = mujoco.MjSpec()
    _set_options(spec, physics)
    _add_table(spec, physics)
    attach(spec, hand, mount, turn)
    if not visuals:
        spec.discard_visual()
        for geom in spec.geoms:
            geom.rgba[3] = 1.0
    for geom in _colliders(spec.body("palm")):
        contype, conaffinity = _hand_bits(physics, geom, _is_below(geom.parent, hand.thumb_bodies))
        _set_contact(geom, physics, contype, conaffinity | OBJECT | TABLE, HAND_FRICTION)
    for body in spec.worldbody.bodies:
        for geom in _colliders(body) if body.name != "palm" else ():  # of an arm
            _set_contact(geom, physics, 0, OBJECT | TABLE, HAND_FRICTION)
    for number, one in enumerate(neighbours):
        _add_object(spec, one or obj, physics, slots, f"{NEIGHBOUR}{number}", with_pieces=one is not None)
    _add_object(spec, obj, physics, slots)
    _add_sensors(spec, hand)
    model = spec.compile()
    _switch_off(model, OBJECT_BODY, range(len(obj.pieces), slots))
    for number, one in enumerate(neighbours):
        name = f"{NEIGHBOUR}{number}"
        _switch_off(model, name, range(0 if one is None else len(one.pieces), slots))
        if one is None:
            model.dof_damping[model.joint(name).dofadr[0] + np.arange(6)] = PARKED_DAMPING
    mujoco.mj_setConst(model, mujoco.MjData(model))
    return model


def _switch_off(model: mujoco.MjModel, body: str, pieces: Iterable[int]) -> None:
    """Switch off the contacts of pieces that an object does not have."""
    unused = [model.geom(f"{body}_{i}").id for i in pieces]
    model.geom_contype[unused] = model.geom_conaffinity[unused] = 0


def object_bodies(model: mujoco.MjModel) -> list[int]:
    """Return the bodies of all objects in a scene, that of the wanted object last."""
    names = [model.body(i).name for i in range(model.nbody)]
    return [i for i, name in enumerate(names) if name == OBJECT_BODY or name.startswith(NEIGHBOUR)]


def build_object(obj: ObjectModel, physics: PhysicsCfg) -> mujoco.MjModel:
    """Return the compiled object alone, with the meshes, geoms and inertia that it has in a scene."""
    spec = mujoco.MjSpec()
    _set_options(spec, physics)
    _add_object(spec, obj, physics, len(obj.pieces))
    return spec.compile()


def _colliders(body: "mujoco.MjsBody") -> Iterator["mujoco.MjsGeom"]:
    """Iterate over the geoms of a body, and of those that it carries short of the palm, that may touch anything."""
    yield from (geom for geom in body.geoms if geom.contype or geom.conaffinity)
    for child in body.bodies:
        if child.name != "palm":
            yield from _colliders(child)


def _is_below(body: "mujoco.MjsBody", names: Collection[str]) -> bool:
    """Return whether a body is among those named, or carried by one of them."""
    while body.name != "world":
        if body.name in names:
            return True
        body = body.parent
    return False


def _hand_bits(physics: PhysicsCfg, geom: "mujoco.MjsGeom", of_thumb: bool) -> tuple[int, int]:
    """Return the contype and conaffinity by which a collider of the hand meets the other parts, as in its model."""
    if physics.self_collision == "all":
        return _own_bits(geom.contype), _own_bits(geom.conaffinity)
    return (THUMB if geom.contype else 0, 0) if of_thumb else (0, THUMB if geom.conaffinity else 0)


def _own_bits(bits: int) -> int:
    """Return the collision bits of a model among ours: its lowest one is HAND, the others stand above THUMB."""
    return bits & HAND | (bits & 0x0FFFFFFE) << 3


def jacobian_form(version: str) -> mujoco.mjtJacobian:
    """Return the form of the constraint Jacobian with which a version of MuJoCo is right and fast."""
    # MuJoCo #3767: the sparse Cholesky of 4.0.0 merges rows with different descendants into one supernode.
    faulty = version == "4.0.0"
    return mujoco.mjtJacobian.mjJAC_DENSE if faulty else mujoco.mjtJacobian.mjJAC_SPARSE


def _set_options(spec: mujoco.MjSpec, physics: PhysicsCfg) -> None:
    option = spec.option
    option.timestep = physics.timestep_s
    option.integrator = INTEGRATORS[physics.integrator]
    option.cone = CONES[physics.cone]
    option.impratio = physics.impratio
    option.tolerance = physics.tolerance
    option.jacobian = jacobian_form(mujoco.__version__)
    spec.visual.quality.offsamples = 0
    spec.visual.quality.shadowsize = 1024
    spec.visual.global_.offwidth, spec.visual.global_.offheight = 1280, 960
    spec.visual.headlight.ambient = [0.35, 0.35, 0.35]
    spec.visual.headlight.diffuse = [0.45, 0.45, 0.45]
    spec.visual.headlight.specular = [0.1, 0.1, 0.1]


def _set_contact(geom: "mujoco.MjsGeom", physics: PhysicsCfg, contype: int, conaffinity: int, friction: float) -> None:
    geom.contype, geom.conaffinity, geom.condim = contype, conaffinity, physics.condim
    geom.priority, geom.solmix, geom.margin, geom.gap = 0, 1.0, 0.0, 0.0  # else a model of its own friction decides
    geom.friction = [friction * physics.friction_scale, 0.01, 0.0005]
    geom.solref, geom.solimp = [physics.contact_time_s, 1], [0.95, 0.99, 0.001, 0.5, 2]


def _add_table(spec: mujoco.MjSpec, physics: PhysicsCfg) -> None:
    table = spec.worldbody.add_geom(
        name="table", type=mujoco.mjtGeom.mjGEOM_PLANE, size=[1.0, 1.0, 0.05], rgba=[0.78, 0.74, 0.68, 1]
    )
    _set_contact(table, physics, TABLE, 0, NOMINAL_TABLE_FRICTION)
    table.priority = 1
    spec.worldbody.add_light(pos=[0.5, -0.6, 1.6], dir=[-0.3, 0.35, -0.9], diffuse=[0.6, 0.6, 0.6])


def _add_object(
    spec: mujoco.MjSpec,
    obj: ObjectModel,
    physics: PhysicsCfg,
    slots: int,
    name: str = OBJECT_BODY,
    with_pieces: bool = True,
) -> None:
    """Add an object as the body `name`; without its pieces it has mass alone."""
    wanted = name == OBJECT_BODY
    body = spec.worldbody.add_body(name=name, pos=[0, 0, 1])
    body.add_joint(name=name, type=mujoco.mjtJoint.mjJNT_FREE, damping=[0.001, 0, 0])  # stops endless rolling
    _set_inertia(body, obj)
    filler = fibonacci_sphere(obj.pieces.shape[1]) * 1e-3
    for i in range(slots):
        used = with_pieces and i < len(obj.pieces)
        mesh = f"piece_{i}" if wanted else f"{name}_piece_{i}"
        spec.add_mesh(name=mesh, uservert=(obj.pieces[i] if used else filler).astype(np.float64).ravel())
        geom = body.add_geom(
            name=f"{name}_{i}",
            type=mujoco.mjtGeom.mjGEOM_MESH,
            meshname=mesh,
            rgba=[*(OBJECT_RGB if wanted else NEIGHBOUR_RGB), 1.0 if used else 0.0],
        )
        _set_contact(geom, physics, OBJECT, TABLE if wanted else TABLE | OBJECT, NOMINAL_FRICTION)


def _set_inertia(body: "mujoco.MjsBody", obj: ObjectModel) -> None:
    """Set the inertia in principal axes, turned by 2 mrad: MuJoCo stores an aligned one otherwise."""
    moments, axes = np.linalg.eigh(obj.inertia)
    axes[:, 2] *= np.sign(np.linalg.det(axes))
    quat, tilt, turned = np.empty(4), np.array([1.0, 1e-3, 1e-3, 1e-3]), np.empty(4)
    mujoco.mju_mat2Quat(quat, axes.ravel())
    mujoco.mju_mulQuat(turned, quat, tilt / np.linalg.norm(tilt))
    body.explicitinertial = True
    body.mass, body.inertia = obj.mass, moments
    body.ipos, body.iquat = [1e-4, 0, 0], turned


def _add_sensors(spec: mujoco.MjSpec, hand: HandSpec) -> None:
    """Add the contact sensors and the hand-object distance sensor.

    Per contact body [found, net force (3)] against object, then table; last, the least hand-object distance.
    """
    for other in ("object", "table"):
        for body in hand.contact_bodies:
            sensor = spec.add_sensor(
                name=f"{body}_{other}",
                type=mujoco.mjtSensor.mjSENS_CONTACT,
                objtype=mujoco.mjtObj.mjOBJ_BODY,
                objname=body,
                reftype=mujoco.mjtObj.mjOBJ_BODY if other == "object" else mujoco.mjtObj.mjOBJ_GEOM,
                refname=other,
            )
            sensor.intprm[:3] = [FOUND | FORCE, NETFORCE, 1]
    deepest = spec.add_sensor(
        name="penetration",
        type=mujoco.mjtSensor.mjSENS_CONTACT,
        objtype=mujoco.mjtObj.mjOBJ_XBODY,  # the subtree
        objname="palm",
        reftype=mujoco.mjtObj.mjOBJ_BODY,
        refname="object",
    )
    deepest.intprm[:3] = [DIST, MINDIST, 1]


def fibonacci_sphere(n: int) -> np.ndarray:
    """Return `n` nearly even unit vectors, shape (n, 3)."""
    i = np.arange(n) + 0.5
    z, angle = 1 - 2 * i / n, np.pi * (1 + 5**0.5) * i
    r = np.sqrt(1 - z * z)
    return np.stack([r * np.cos(angle), r * np.sin(angle), z], axis=1)


class ModelPool:
    """Pool of compiled models by object name, built on first use.

    Beyond the memory budget the least recently used are dropped. Where the models of all objects would exceed it, the
    visual geoms of hand and arm are left out, unless cameras are `rendered`.
    """

    def __init__(
        self,
        hand: HandSpec,
        library: ObjectLibrary,
        physics: PhysicsCfg,
        mount: str = "floating",
        budget_bytes: int = 2 << 30,
        rendered: bool = False,
        neighbours: int = 0,
    ) -> None:
        """`neighbours`: bodies for other objects on the table, in every model."""
        self.neighbours = neighbours
        self.hand, self.library, self.physics, self.mount = hand, library, physics, mount
        self.slots = library.most_pieces
        self.budget_bytes = budget_bytes
        self._visuals: bool | None = True if rendered else None  # None: the size of the first model decides
        self._models: OrderedDict[tuple[str, float, tuple[str, ...]], mujoco.MjModel] = OrderedDict()

    def get(self, name: str, size: float = 1.0, neighbours: tuple[str, ...] = ()) -> mujoco.MjModel:
        """Return the model of an object, all its lengths multiplied by `size`, among `neighbours` by name."""
        key = (name, size, neighbours)
        model = self._models.pop(key, None)
        if model is None:
            others = [self.library[other] if other else None for other in neighbours]
            others += [None] * (self.neighbours - len(others))
            model = self._build(self.library[name].scaled(size), others)
        self._models[key] = model
        while len(self._models) * model_bytes(model) > self.budget_bytes and len(self._models) > 1:
            self._models.popitem(last=False)
        return model

    def _build(self, obj: ObjectModel, neighbours: Sequence[ObjectModel | None]) -> mujoco.MjModel:
        visuals = self._visuals in (True, None)
        model = build_model(
            self.hand, obj, self.physics, self.mount, self.slots, visuals=visuals, neighbours=neighbours
        )
        if self._visuals is None:
            fits = model_bytes(model) * len(self.library) <= self.budget_bytes
            self._visuals = fits or not _has_visuals(model)
            return model if self._visuals else self._build(obj, neighbours)
        return model

    def __getitem__(self, name: str) -> mujoco.MjModel:
        return self.get(name)

    def __len__(self) -> int:
        return len(self._models)


def _has_visuals(model: mujoco.MjModel) -> bool:
    """Return whether geoms are seen that touch nothing."""
    return bool(((model.geom_contype | model.geom_conaffinity == 0) & (model.geom_rgba[:, 3] > 0)).any())


def model_bytes(model: mujoco.MjModel) -> int:
    """Return the memory of one compiled model [bytes]."""
    return mujoco.mj_sizeModel(model)
