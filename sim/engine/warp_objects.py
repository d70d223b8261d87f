"""Per-world objects on the device: each object is a record of model fields that a reset copies.

Every object (and size) that was ever drawn has a record: the numbers of its pieces in the mesh pool and all model
fields that depend on the object. A reset copies records into the per-world fields of the model; the number of an absent
piece is -1, which Warp ignores.

All convex pieces have equal numbers of vertices and faces (sim/objects), so that each takes a block of one size in
every mesh array of the model; addresses follow from its number. Pieces are added when an object is drawn for the first
time; a full pool doubles its size.
"""

from collections.abc import Sequence

import mujoco
import mujoco_warp as mjw
import numpy as np
import torch
import warp as wp
from numpy.typing import NDArray
from torch import Tensor

from dexgrasp.perception.transforms import quat_rotate_inverse
from dexgrasp.sim.engine.base import PhysicsVariation
from dexgrasp.sim.engine.state import SceneIndices
from dexgrasp.sim.objects import ObjectLibrary
from dexgrasp.sim.scene import PhysicsCfg, build_object

FIRST_PIECES = 64
"""Capacity of a new pool, in pieces."""

VECTORS = ("mesh_vert", "mesh_polynormal")
OF_GEOMS = ("geom_dataid", "geom_pos", "geom_quat", "geom_size", "geom_aabb", "geom_rbound")
OF_BODY = ("body_mass", "body_inertia", "body_ipos", "body_iquat")
DERIVED = ("body_subtreemass", "body_invweight0", "dof_invweight0")
VARIED = ("geom_friction", "actuator_gainprm", "actuator_biasprm", "actuator_forcerange", "dof_damping")
PER_WORLD = (*OF_GEOMS, *OF_BODY, *DERIVED, *VARIED)
"""Per-world fields of the model; `opt.gravity` is one too."""


class MeshPool:
    """Mesh arrays of a device model, filled piece by piece."""

    def __init__(self, model: mjw.Model, compiled: mujoco.MjModel) -> None:
        """`compiled`: a scene with such pieces, which gives the sizes of a block."""
        self._model = model
        self._verts, self._faces = int(compiled.mesh_vertnum[0]), int(compiled.mesh_facenum[0])
        self._graph = _graph_size(compiled)
        self._device = wp.device_to_torch(wp.get_device())
        self.pieces = 0
        """Number of pieces in the pool."""
        self._sizes = {
            "mesh_vert": (self._verts, 3),
            "mesh_graph": (self._graph,),
            "mesh_polynum": (1,),
            "mesh_polynormal": (self._faces, 3),
            "mesh_polyvertadr": (self._faces,),
            "mesh_polyvertnum": (self._faces,),
            "mesh_polyvert": (3 * self._faces,),
            "mesh_polymapadr": (self._verts,),
            "mesh_polymapnum": (self._verts,),
            "mesh_polymap": (3 * self._faces,),
        }
        self._blocks: dict[str, Tensor] = {}
        self._allocate(FIRST_PIECES)

    def add(self, compiled: mujoco.MjModel) -> tuple[list[int], bool]:
        """Add the meshes of `compiled`; return their numbers, and whether model arrays changed.

        The flag also covers changed sizes of the model.
        """
        numbers = list(range(self.pieces, self.pieces + compiled.nmesh))
        grown = numbers[-1] >= len(self._blocks["mesh_polynum"])
        if grown:
            self._allocate(2 * max(numbers[-1] + 1, len(self._blocks["mesh_polynum"])))
        for mesh, number in enumerate(numbers):
            for name, block in self._block(compiled, mesh, number).items():
                self._blocks[name][number] = torch.from_numpy(block).to(self._device)
        self.pieces = numbers[-1] + 1
        return numbers, self._widen(compiled) or grown

    def _allocate(self, capacity: int) -> None:
        for name, size in self._sizes.items():
            kind = torch.float32 if name in VECTORS else torch.int32
            block = torch.zeros(capacity, *size, dtype=kind, device=self._device)
            if name in self._blocks:
                block[: self.pieces] = self._blocks[name][: self.pieces]
            self._blocks[name] = block
            flat = block.view(-1, 3) if name in VECTORS else block.view(-1)
            setattr(self._model, name, wp.from_torch(flat, dtype=wp.vec3 if name in VECTORS else wp.int32))
        first = torch.arange(capacity, dtype=torch.int32, device=self._device)
        places = {"mesh_vertadr": self._verts, "mesh_graphadr": self._graph, "mesh_polyadr": self._faces}
        self._places = {name: first * size for name, size in places.items()}
        self._places["mesh_vertnum"] = torch.full_like(first, self._verts)
        for name, values in self._places.items():
            setattr(self._model, name, wp.from_torch(values))

    def _block(self, compiled: mujoco.MjModel, mesh: int, number: int) -> dict[str, NDArray]:
        """Return the part of every array that describes this mesh, with the addresses of piece `number`."""
        if (compiled.mesh_vertnum[mesh], compiled.mesh_facenum[mesh]) != (self._verts, self._faces):
            raise ValueError(
                f"a convex piece has {compiled.mesh_vertnum[mesh]} vertices and {compiled.mesh_facenum[mesh]} faces, "
                f"the pool holds pieces of {self._verts} and {self._faces}: all must lie on their hull"
            )
        vert, graph = int(compiled.mesh_vertadr[mesh]), int(compiled.mesh_graphadr[mesh])
        first, count = int(compiled.mesh_polyadr[mesh]), int(compiled.mesh_polynum[mesh])
        verts, polys = slice(vert, vert + self._verts), slice(first, first + count)
        corners = int(compiled.mesh_polyvertnum[polys].sum())
        corner, entry = int(compiled.mesh_polyvertadr[first]), int(compiled.mesh_polymapadr[vert])
        room = number * 3 * self._faces
        return {
            "mesh_vert": compiled.mesh_vert[verts],
            "mesh_graph": compiled.mesh_graph[graph : graph + self._graph],
            "mesh_polynum": np.array([count], np.int32),
            "mesh_polynormal": _pad(compiled.mesh_polynormal[polys].astype(np.float32), self._faces),
            "mesh_polyvertadr": _pad(compiled.mesh_polyvertadr[polys] - corner + room, self._faces),
            "mesh_polyvertnum": _pad(compiled.mesh_polyvertnum[polys], self._faces),
            "mesh_polyvert": _pad(compiled.mesh_polyvert[corner : corner + corners], 3 * self._faces),
            "mesh_polymapadr": compiled.mesh_polymapadr[verts] - entry + room,
            "mesh_polymapnum": compiled.mesh_polymapnum[verts],
            "mesh_polymap": _pad(compiled.mesh_polymap[entry : entry + corners], 3 * self._faces),
        }

    def _widen(self, compiled: mujoco.MjModel) -> bool:
        """Enlarge the scratch memory of collisions to the polygons of these meshes."""
        corners = max(self._model.npolygonmax, compiled.npolygonmax)
        degree = max(self._model.nmeshdegmax, compiled.nmeshdegmax)
        wider = (corners, degree) != (self._model.npolygonmax, self._model.nmeshdegmax)
        self._model.npolygonmax, self._model.nmeshdegmax = corners, degree
        return wider


def _graph_size(compiled: mujoco.MjModel) -> int:
    """Return the length of one piece's hull description (MuJoCo's mesh_graph), from its vertices and faces."""
    verts, faces = compiled.mesh_vertnum[0], compiled.mesh_facenum[0]
    return int(2 + 3 * verts + 6 * faces)


def _pad(values: NDArray, length: int) -> NDArray:
    return np.concatenate([values, np.zeros((length - len(values), *values.shape[1:]), values.dtype)])


class ObjectTable:
    """Stores objects as records on the device of a model."""

    def __init__(self, model: mjw.Model, compiled: mujoco.MjModel, library: ObjectLibrary, physics: PhysicsCfg) -> None:
        self._library, self._physics = library, physics
        self._slots = sum(compiled.geom(i).name.startswith("object_") for i in range(compiled.ngeom))
        self.pool = MeshPool(model, compiled)
        self._numbers: dict[tuple[str, float], int] = {}
        self._columns: dict[str, Tensor] = {}
        self._device = wp.device_to_torch(wp.get_device())

    def find(self, names: Sequence[str], sizes: Sequence[float]) -> tuple[Tensor, bool]:
        """Return record numbers (row,) int64, and whether a new object changed the model's arrays."""
        changed = False
        for key in dict.fromkeys(zip(names, sizes, strict=True)):
            if key not in self._numbers:
                changed |= self._add(*key)
        numbers = [self._numbers[key] for key in zip(names, sizes, strict=True)]
        return torch.tensor(numbers, device=self._device), changed

    def gather(self, numbers: Tensor) -> dict[str, Tensor]:
        """Return copies of the fields of these records."""
        return {name: column[numbers] for name, column in self._columns.items()}

    def _add(self, name: str, size: float) -> bool:
        compiled = build_object(self._library[name].scaled(size), self._physics)
        pieces, changed = self.pool.add(compiled)
        number = len(self._numbers)
        for field, value in self._record(compiled, pieces).items():
            column = self._columns.get(field)
            if column is None or number >= len(column):
                wider = torch.zeros(2 * max(number, 8), *value.shape, dtype=value.dtype, device=self._device)
                if column is not None:
                    wider[:number] = column
                self._columns[field] = column = wider
            column[number] = value.to(self._device)
        self._numbers[name, size] = number
        return changed

    def _record(self, compiled: mujoco.MjModel, pieces: list[int]) -> dict[str, Tensor]:
        """Return the object's part of every field: per slot of the scene, and of the body."""
        body, record = compiled.body("object").id, {}
        for name in OF_GEOMS:
            values = np.asarray(pieces, np.int32) if name == "geom_dataid" else getattr(compiled, name)
            fill = -1 if name == "geom_dataid" else 0
            padded = np.full((self._slots, *values.shape[1:]), fill, values.dtype)
            padded[: len(values)] = values
            record[name] = torch.from_numpy(padded)
        record["geom_aabb"] = record["geom_aabb"].unflatten(1, (2, 3))
        for name in OF_BODY:
            record[name] = torch.from_numpy(np.array(getattr(compiled, name)[body]))
        return {name: value if name == "geom_dataid" else value.float() for name, value in record.items()}


class PerWorldFields:
    """Writes the per-world fields of a device model through tensors that share its memory."""

    def __init__(self, model: mjw.Model, compiled: mujoco.MjModel, slots: SceneIndices, physics: PhysicsCfg) -> None:
        self._slots, self._friction_scale = slots, physics.friction_scale
        self._fields = {name: wp.to_torch(getattr(model, name)) for name in PER_WORLD}
        self._gravity = wp.to_torch(model.opt.gravity)
        self._nominal = {name: self._fields[name][0].clone() for name in VARIED}
        device = self._gravity.device
        self._geoms = torch.tensor(slots.object_geoms, device=device)
        self._fingers, self._palm = (torch.tensor(x, device=device) for x in (slots.actuators, slots.palm_actuators))
        self._hand_mass = float(compiled.body_subtreemass[0] - compiled.body_mass[slots.object_body])

    def write(self, rows: Tensor, records: dict[str, Tensor], variation: PhysicsVariation) -> None:
        """Write objects and variation, both (row, ...) on the device, into the worlds `rows`."""
        fields, slots, body = self._fields, self._slots, self._slots.object_body
        for name in OF_GEOMS:
            fields[name][rows[:, None], self._geoms] = records[name]
        mass, inertia = (
            records["body_mass"] * variation.mass_scale,
            records["body_inertia"] * variation.mass_scale[:, None],
        )
        ipos, iquat = records["body_ipos"] + variation.com_offset, records["body_iquat"]
        for name, value in zip(OF_BODY, (mass, inertia, ipos, iquat), strict=True):
            fields[name][rows, body] = value
        linear, at_origin, angular = inverse_weights(mass, inertia, ipos, iquat)
        fields["body_invweight0"][rows, body] = torch.stack([linear, angular], dim=1)
        weights = torch.stack([at_origin, angular], dim=1).repeat_interleave(3, dim=1)
        fields["dof_invweight0"][rows, slots.object_v] = weights
        fields["body_subtreemass"][rows, body] = mass
        fields["body_subtreemass"][rows, 0] = mass + self._hand_mass
        self._vary(rows, variation)

    def object_mass(self, rows: Tensor) -> Tensor:
        """Return the object masses (row,) [kg]."""
        return self._fields["body_mass"][rows, self._slots.object_body]

    def _vary(self, rows: Tensor, variation: PhysicsVariation) -> None:
        fields, nominal, slots = self._fields, self._nominal, self._slots
        self._gravity[rows] = variation.gravity
        scale = self._friction_scale
        fields["geom_friction"][rows[:, None], self._geoms, 0] = (variation.friction * scale)[:, None]
        fields["geom_friction"][rows, slots.table, 0] = variation.table_friction * scale
        stiffness = variation.palm_stiffness[:, None]
        for servos, kp, kd in (
            (self._fingers, variation.kp_scale, variation.kd_scale),
            (self._palm, stiffness, stiffness.sqrt()),
        ):
            gain, bias = nominal["actuator_gainprm"][servos], nominal["actuator_biasprm"][servos]
            fields["actuator_gainprm"][rows[:, None], servos, 0] = gain[:, 0] * kp
            fields["actuator_biasprm"][rows[:, None], servos, 1] = bias[:, 1] * kp
            fields["actuator_biasprm"][rows[:, None], servos, 2] = bias[:, 2] * kd
        force = nominal["actuator_forcerange"][self._fingers] * variation.effort_scale[..., None]
        fields["actuator_forcerange"][rows[:, None], self._fingers] = force
        damping = nominal["dof_damping"][slots.finger_v] * slots.motors.spread(variation.damping_scale)
        fields["dof_damping"][rows, slots.finger_v] = damping


def inverse_weights(mass: Tensor, inertia: Tensor, ipos: Tensor, iquat: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return the mean inverse inertia (row,) of a free body, as mj_setConst computes it.

    Scales constraints.

    Of translation at the centre of mass and at the body's origin [1/kg], and of rotation [1/(kg m^2)].
    """
    offset_i = quat_rotate_inverse(iquat, ipos)  # principal axes
    turning = (1 / inertia).sum(dim=1)
    lever = offset_i.square().sum(dim=1) * turning - (offset_i.square() / inertia).sum(dim=1)
    return 1 / mass, 1 / mass + lever / 3, turning / 3
