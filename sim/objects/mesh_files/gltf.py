"""Reader of binary glTF 2.0 (GLB): triangles of the scene, with node transforms.

Quantised and Draco-compressed meshes are read too.
"""

import base64
import json
import struct
from pathlib import Path
from typing import Any

import numpy as np

from dexgrasp.sim.objects.mesh_files.polygons import Array, Faces, MeshFileError, strip_triangles

COMPONENTS = {5120: np.int8, 5121: np.uint8, 5122: np.int16, 5123: np.uint16, 5125: np.uint32, 5126: np.float32}
WIDTHS = {"SCALAR": 1, "VEC2": 2, "VEC3": 3, "VEC4": 4}
KNOWN = {
    "KHR_mesh_quantization",
    "KHR_draco_mesh_compression",
    "KHR_materials_unlit",
    "KHR_materials_specular",
    "KHR_materials_ior",
    "KHR_texture_transform",
    "KHR_texture_basisu",
    "EXT_texture_webp",
}
"""Extensions that a file may require: of geometry, which are read here, and of materials, which are ignored."""
TRIANGLES, STRIP, FAN = 4, 5, 6
DEEPEST = 256
"""Largest depth of nested nodes."""


def read_glb(path: Path) -> tuple[Array, Faces]:
    """Return vertices (v, 3) and triangles (t, 3) of the default scene, in its frame."""
    return _Glb(path.read_bytes()).surface()


class _Glb:
    def __init__(self, content: bytes) -> None:
        if len(content) < 20 or content[:4] != b"glTF":
            raise MeshFileError("not a GLB file: it does not begin with 'glTF'")
        version, total = struct.unpack_from("<II", content, 4)
        if version != 2:
            raise MeshFileError(f"glTF of version {version}; only version 2 is read: convert it")
        if total > len(content):
            raise MeshFileError(f"the GLB file is cut off: {len(content)} of {total} bytes are there")
        chunks, at = {}, 12
        while at + 8 <= total:
            length, kind = struct.unpack_from("<I4s", content, at)
            chunks.setdefault(kind, content[at + 8 : at + 8 + length])
            at += 8 + length
        self.tree: dict[str, Any] = json.loads(chunks[b"JSON"])
        self.binary = chunks.get(b"BIN\0", b"")
        if unknown := sorted(set(self.tree.get("extensionsRequired", [])) - KNOWN):
            raise MeshFileError(
                f"the file requires the glTF extension {', '.join(unknown)}, which is not read: convert it"
            )

    def surface(self) -> tuple[Array, Faces]:
        """Return vertices and triangles of the default scene."""
        vertices: list[Array] = []
        faces: list[Faces] = []
        count = 0
        for mesh, transform in self._instances():
            for primitive in self.tree["meshes"][mesh]["primitives"]:
                if primitive.get("mode", TRIANGLES) not in (TRIANGLES, STRIP, FAN):
                    continue  # points and lines bound nothing
                points, triangles = self._primitive(primitive)
                if triangles.size and (triangles.min() < 0 or triangles.max() >= len(points)):
                    raise MeshFileError(f"mesh {mesh}: an index names no vertex of {len(points)}")
                mirrored = np.linalg.det(transform[:3, :3]) < 0
                vertices.append(points @ transform[:3, :3].T + transform[:3, 3])
                faces.append((triangles[:, ::-1] if mirrored else triangles) + count)
                count += len(points)
        if not faces:
            raise MeshFileError("the GLB file holds no triangles")
        return np.concatenate(vertices), np.concatenate(faces)

    def _instances(self) -> list[tuple[int, Array]]:
        """Return the meshes of the default scene with their transforms (4, 4) to the scene's frame."""
        nodes, found = self.tree.get("nodes", []), []
        if "scenes" in self.tree:
            roots = self.tree["scenes"][self.tree.get("scene", 0)].get("nodes", [])
        else:
            roots = sorted(set(range(len(nodes))) - {child for node in nodes for child in node.get("children", [])})
        open_nodes = [(root, np.eye(4), 0) for root in roots]
        while open_nodes:
            index, parent, depth = open_nodes.pop()
            if depth > DEEPEST:
                raise MeshFileError("the nodes of the GLB file contain one another")
            node = nodes[index]
            transform = parent @ _local_transform(node)
            if "mesh" in node:
                found.append((node["mesh"], transform))
            open_nodes += [(child, transform, depth + 1) for child in reversed(node.get("children", []))]
        return found

    def _primitive(self, primitive: dict[str, Any]) -> tuple[Array, Faces]:
        extension = primitive.get("extensions", {}).get("KHR_draco_mesh_compression")
        if extension:
            return self._draco(primitive, extension)
        points = self._accessor(primitive["attributes"]["POSITION"]).astype(np.float64)
        if "indices" in primitive:
            order = self._accessor(primitive["indices"]).astype(np.int64).ravel()
        else:
            order = np.arange(len(points))
        mode = primitive.get("mode", TRIANGLES)
        if mode == TRIANGLES:
            return points, order[: len(order) // 3 * 3].reshape(-1, 3)
        if mode == FAN:
            return points, np.stack([np.full(len(order) - 2, order[0]), order[1:-1], order[2:]], axis=1)
        return points, strip_triangles(order)

    def _draco(self, primitive: dict[str, Any], extension: dict[str, Any]) -> tuple[Array, Faces]:
        import DracoPy

        mesh = DracoPy.decode(self._view(extension["bufferView"]))
        points, faces = np.asarray(mesh.points, np.float64), np.asarray(mesh.faces, np.int64).reshape(-1, 3)
        return points * self._scale(self.tree["accessors"][primitive["attributes"]["POSITION"]]), faces

    def _accessor(self, index: int) -> np.ndarray:
        """Return the values (count, width) of an accessor; normalised integers become numbers in [-1, 1]."""
        accessor = self.tree["accessors"][index]
        count, width = accessor["count"], WIDTHS[accessor["type"]]
        kind = np.dtype(COMPONENTS[accessor["componentType"]]).newbyteorder("<")
        if "bufferView" in accessor:
            stride = self.tree["bufferViews"][accessor["bufferView"]].get("byteStride")
            content = self._view(accessor["bufferView"])
            values = _strided(content, kind, (count, width), accessor.get("byteOffset", 0), stride)
        else:
            values = np.zeros((min(count, len(self.binary) + 1), width), kind)
        if "sparse" in accessor:
            sparse = accessor["sparse"]
            places, given = sparse["indices"], sparse["values"]
            index_kind = np.dtype(COMPONENTS[places["componentType"]]).newbyteorder("<")
            where = _strided(
                self._view(places["bufferView"]), index_kind, (sparse["count"], 1), places.get("byteOffset", 0)
            )
            values = values.copy()
            values[where.ravel()] = _strided(
                self._view(given["bufferView"]), kind, (sparse["count"], width), given.get("byteOffset", 0)
            )
        scale = self._scale(accessor)
        return values if scale == 1.0 else np.maximum(values * scale, -1.0)

    def _scale(self, accessor: dict[str, Any]) -> float:
        """Return the factor of a normalised integer accessor, 1 for others."""
        kind = COMPONENTS[accessor["componentType"]]
        return 1.0 / np.iinfo(kind).max if accessor.get("normalized") and kind is not np.float32 else 1.0

    def _view(self, index: int) -> bytes:
        view = self.tree["bufferViews"][index]
        buffer = self.tree["buffers"][view["buffer"]]
        if "uri" not in buffer:
            content = self.binary
        elif buffer["uri"].startswith("data:"):
            content = base64.b64decode(buffer["uri"].partition(",")[2], validate=True)
        else:
            raise MeshFileError(f"the GLB file refers to another file, '{buffer['uri'][:60]}': pack it into one GLB")
        start = view.get("byteOffset", 0)
        return content[start : start + view["byteLength"]]


def _strided(
    content: bytes, kind: np.dtype, shape: tuple[int, int], offset: int, stride: int | None = None
) -> np.ndarray:
    stride = stride or kind.itemsize * shape[1]
    needed = offset + (stride * (shape[0] - 1) + kind.itemsize * shape[1] if shape[0] else 0)
    if offset < 0 or shape[0] < 0 or needed > len(content):
        raise MeshFileError(f"the data of the GLB file is cut off: {needed} bytes are needed, {len(content)} are there")
    return np.ndarray(shape, kind, content, offset, (stride, kind.itemsize))


def _local_transform(node: dict[str, Any]) -> Array:
    """Return the transform (4, 4) of a node: its matrix, or translation, rotation (xyzw) and scale."""
    if "matrix" in node:
        return np.array(node["matrix"], np.float64).reshape(4, 4).T
    from scipy.spatial.transform import Rotation

    rotation = Rotation.from_quat(node.get("rotation", (0.0, 0.0, 0.0, 1.0))).as_matrix()
    transform = np.eye(4)
    transform[:3, :3] = rotation * np.array(node.get("scale", (1.0, 1.0, 1.0)))
    transform[:3, 3] = node.get("translation", (0.0, 0.0, 0.0))
    return transform
