"""Mesh pool on the device with the convex pieces of all objects; a world selects pieces by number.

All pieces have the same vertices and faces (sim/objects), so that each takes a block of the same size in every array of
the model; addresses follow from its number. Pieces are added as objects are first drawn; a pool that is full doubles.
"""

import mujoco
import mujoco_warp as mjw
import numpy as np
import torch
import warp as wp
from numpy.typing import NDArray
from torch import Tensor

FIRST_PIECES = 64
"""Capacity of a new pool, in pieces."""
VECTORS = ("mesh_vert", "mesh_polynormal")


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
        """Add the meshes of `compiled`; return their numbers, and whether arrays or sizes of the model changed."""
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
