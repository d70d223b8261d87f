"""The geoms of a model as triangle meshes, for renderers other than MuJoCo."""

from collections.abc import Iterable
from dataclasses import dataclass

import mujoco
import numpy as np
import trimesh
from numpy.typing import NDArray

VISIBLE_GROUPS = 3
"""Geoms of the groups 0, 1, 2 are drawn: MuJoCo's own default."""
ROUND = 12
"""Segments about the axis of what is round."""


@dataclass(frozen=True, eq=False)
class GeomMesh:
    """One geom in the frame of its body."""

    name: str
    """Name of the body, and the number of the geom."""
    body: int
    """Number of the body in the model; 0 is the world."""
    vertices_b: NDArray[np.float32]
    """(v, 3) [m]."""
    faces: NDArray[np.int32]
    """(f, 3), outward counter-clockwise."""
    rgb: tuple[int, int, int]
    """Colour, 0 to 255."""


def geom_meshes(model: mujoco.MjModel, bodies: Iterable[int]) -> list[GeomMesh]:
    """Return every visible geom of these bodies, in the order of the model."""
    wanted = set(bodies)
    return [
        _in_body(model, geom)
        for geom in range(model.ngeom)
        if model.geom_bodyid[geom] in wanted
        and model.geom_group[geom] < VISIBLE_GROUPS
        and model.geom_rgba[geom, 3] > 0
        and model.geom_type[geom] != mujoco.mjtGeom.mjGEOM_PLANE
    ]


def _in_body(model: mujoco.MjModel, geom: int) -> GeomMesh:
    vertices, faces = _of_geom(model, geom)
    rotation = np.empty(9)
    mujoco.mju_quat2Mat(rotation, model.geom_quat[geom])
    vertices_b = vertices @ rotation.reshape(3, 3).T + model.geom_pos[geom]
    body = int(model.geom_bodyid[geom])
    red, green, blue = (round(255 * float(part)) for part in model.geom_rgba[geom, :3])
    name = f"{model.body(body).name}_{geom}"
    return GeomMesh(
        name=name,
        body=body,
        vertices_b=vertices_b.astype(np.float32),
        faces=faces.astype(np.int32),
        rgb=(red, green, blue),
    )


def _of_geom(model: mujoco.MjModel, geom: int) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Return vertices (v, 3) and faces (f, 3) of a geom in its own frame."""
    kind, size = mujoco.mjtGeom(model.geom_type[geom]), model.geom_size[geom]
    if kind == mujoco.mjtGeom.mjGEOM_MESH:
        mesh = model.mesh(int(model.geom_dataid[geom]))
        vertices = model.mesh_vert[mesh.vertadr[0] : mesh.vertadr[0] + mesh.vertnum[0]]
        return vertices.astype(float), model.mesh_face[mesh.faceadr[0] : mesh.faceadr[0] + mesh.facenum[0]]
    if kind == mujoco.mjtGeom.mjGEOM_SPHERE:
        solid = trimesh.creation.icosphere(subdivisions=2, radius=size[0])
    elif kind == mujoco.mjtGeom.mjGEOM_ELLIPSOID:
        solid = trimesh.creation.icosphere(subdivisions=2).apply_scale(size)
    elif kind == mujoco.mjtGeom.mjGEOM_CAPSULE:
        solid = trimesh.creation.capsule(height=2 * size[1], radius=size[0], count=(ROUND, ROUND))
        solid.apply_translation(-solid.bounds.mean(axis=0))
    elif kind == mujoco.mjtGeom.mjGEOM_CYLINDER:
        solid = trimesh.creation.cylinder(radius=size[0], height=2 * size[1], sections=2 * ROUND)
    elif kind == mujoco.mjtGeom.mjGEOM_BOX:
        solid = trimesh.creation.box(extents=2 * size)
    else:
        raise ValueError(f"geom '{model.geom(geom).name}' is a {kind.name}, which cannot be drawn")
    return np.asarray(solid.vertices), np.asarray(solid.faces)
