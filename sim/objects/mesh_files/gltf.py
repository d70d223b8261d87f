"""Reader of binary glTF 2.0 (GLB): triangles of the scene, with node transforms.

Quantised and Draco-compressed meshes are read too.
"""

import base64
import json
import struct
from pathlib import Path
from typing import Any
from urllib.parse import unquote_to_bytes

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
NOT_READ = {
    "EXT_mesh_gpu_instancing",
    "KHR_node_visibility",
    "MSFT_lod",
    "EXT_meshopt_compression",
    "KHR_meshopt_compression",
}
"""Extensions of nodes and buffer views that change the geometry, also where the file does not require them."""
MOST_ELEMENTS = 50_000_000
"""Most elements of an accessor that begins with zeros, which take no place in the file."""


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
        for mesh, weights, transform in self._instances():
            for primitive in self._item("meshes", mesh)["primitives"]:
                if primitive.get("mode", TRIANGLES) not in (TRIANGLES, STRIP, FAN):
                    continue  # points and lines bound nothing
                points, triangles = self._primitive(primitive, weights)
                if triangles.size and (triangles.min() < 0 or triangles.max() >= len(points)):
                    raise MeshFileError(f"mesh {mesh}: an index names no vertex of {len(points)}")
                mirrored = np.linalg.det(transform[:3, :3]) < 0
                vertices.append(points @ transform[:3, :3].T + transform[:3, 3])
                faces.append((triangles[:, ::-1] if mirrored else triangles) + count)
                count += len(points)
        if not faces:
            raise MeshFileError("the GLB file holds no triangles")
        return np.concatenate(vertices), np.concatenate(faces)

    def _item(self, kind: str, index: Any) -> dict[str, Any]:
        """Return an entry of a list of the file, as "nodes" or "meshes"; raise MeshFileError where there is none."""
        items = self.tree.get(kind, [])
        if type(index) is not int or not 0 <= index < len(items):
            raise MeshFileError(
                f"the GLB file names number {str(index)[:20]} of its {kind}, of which it has {len(items)}"
            )
        _refuse_extensions(items[index], f"{kind} {index}")
        return items[index]

    def _instances(self) -> list[tuple[int, list[float], Array]]:
        """Return the meshes of the default scene, with weights of morph targets and transforms (4, 4) to its frame."""
        nodes, found = self.tree.get("nodes", []), []
        if "scenes" in self.tree:
            roots = self._item("scenes", self.tree.get("scene", 0)).get("nodes", [])
        else:
            roots = sorted(set(range(len(nodes))) - {child for node in nodes for child in node.get("children", [])})
        open_nodes, seen = [(root, np.eye(4)) for root in roots], set()
        while open_nodes:
            index, parent = open_nodes.pop()
            node = self._item("nodes", index)
            if index in seen:
                raise MeshFileError(f"node {index} of the GLB file is listed twice, or its nodes contain one another")
            seen.add(index)
            transform = parent @ _local_transform(node)
            if "mesh" in node:
                if "skin" in node:
                    raise MeshFileError(f"node {index} has a skin (bones), which is not supported: apply it and export")
                weights = node.get("weights") or self._item("meshes", node["mesh"]).get("weights") or []
                found.append((node["mesh"], weights, transform))
            open_nodes += [(child, transform) for child in reversed(node.get("children", []))]
        return found

    def _primitive(self, primitive: dict[str, Any], weights: list[float]) -> tuple[Array, Faces]:
        extension = primitive.get("extensions", {}).get("KHR_draco_mesh_compression")
        if extension:
            if any(weights):
                raise MeshFileError("morph targets of a Draco-compressed mesh are not supported: apply them and export")
            return self._draco(primitive, extension)
        points = self._points(primitive["attributes"]["POSITION"])
        targets = primitive.get("targets", [])
        if any(weights) and len(weights) != len(targets):
            raise MeshFileError(f"a mesh has {len(weights)} weights for {len(targets)} morph targets")
        for weight, target in zip(weights, targets, strict=False):
            if weight and "POSITION" in target:
                points = points + weight * self._points(target["POSITION"])
        if "indices" in primitive:
            order = self._accessor(primitive["indices"])
            if order.dtype.kind not in "iu":
                raise MeshFileError(f"indices must be integers, got {order.dtype.name}")
            order = order.astype(np.int64).ravel()
        else:
            order = np.arange(len(points))
        mode = primitive.get("mode", TRIANGLES)
        if mode == TRIANGLES:
            if len(order) % 3:
                raise MeshFileError(f"{len(order)} indices make no whole triangles")
            return points, order.reshape(-1, 3)
        if mode == FAN:
            return points, np.stack([np.full(len(order) - 2, order[0]), order[1:-1], order[2:]], axis=1)
        return points, strip_triangles(order)

    def _points(self, index: int) -> Array:
        points = self._accessor(index).astype(np.float64)
        if points.shape[1] != 3:
            raise MeshFileError(f"positions must have three numbers each, got {points.shape[1]}")
        return points

    def _draco(self, primitive: dict[str, Any], extension: dict[str, Any]) -> tuple[Array, Faces]:
        import DracoPy

        mesh = DracoPy.decode(self._view(extension["bufferView"]))
        points, faces = np.asarray(mesh.points, np.float64), np.asarray(mesh.faces, np.int64).reshape(-1, 3)
        return points * self._scale(self._item("accessors", primitive["attributes"]["POSITION"])), faces

    def _accessor(self, index: int) -> np.ndarray:
        """Return the values (count, width) of an accessor; normalised integers become numbers in [-1, 1]."""
        accessor = self._item("accessors", index)
        count, width = accessor["count"], WIDTHS[accessor["type"]]
        kind = np.dtype(COMPONENTS[accessor["componentType"]]).newbyteorder("<")
        if "bufferView" in accessor:
            stride = self._item("bufferViews", accessor["bufferView"]).get("byteStride")
            content = self._view(accessor["bufferView"])
            values = _strided(content, kind, (count, width), accessor.get("byteOffset", 0), stride)
        else:
            if not 0 <= count <= MOST_ELEMENTS:
                raise MeshFileError(f"accessor {index} has {count} elements, at most {MOST_ELEMENTS}")
            values = np.zeros((count, width), kind)
        if "sparse" in accessor:
            sparse = accessor["sparse"]
            places, given = sparse["indices"], sparse["values"]
            index_kind = np.dtype(COMPONENTS[places["componentType"]]).newbyteorder("<")
            where = _strided(
                self._view(places["bufferView"]), index_kind, (sparse["count"], 1), places.get("byteOffset", 0)
            )
            if where.size and not (where.min() >= 0 and where.max() < count):
                raise MeshFileError(f"accessor {index}: a sparse index names no element of {count}")
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
        view = self._item("bufferViews", index)
        buffer = self._item("buffers", view["buffer"])
        if "uri" not in buffer:
            if view["buffer"] != 0:
                raise MeshFileError(f"buffer {view['buffer']} of the GLB file has no data; only the first has a chunk")
            content = self.binary
        elif buffer["uri"].startswith("data:"):
            head, _, data = buffer["uri"].partition(",")
            if head.endswith(";base64"):
                data = unquote_to_bytes(data)
                content = base64.b64decode(data + b"=" * (-len(data) % 4), validate=True)
            else:
                content = unquote_to_bytes(data)
        else:
            raise MeshFileError(f"the GLB file refers to another file, '{buffer['uri'][:60]}': pack it into one GLB")
        start, length = view.get("byteOffset", 0), view["byteLength"]
        if start < 0 or length < 0 or start + length > len(content):
            raise MeshFileError(f"buffer view {index} is cut off: {start + length} bytes, {len(content)} are there")
        return content[start : start + length]


def _refuse_extensions(item: Any, name: str) -> None:
    if named := sorted(NOT_READ & set(item.get("extensions", {}))):
        raise MeshFileError(
            f"{name} uses the glTF extension {', '.join(named)}, which is not supported: export without"
        )


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
        matrix = np.array(node["matrix"], np.float64).reshape(4, 4).T
        if (matrix[3] != [0, 0, 0, 1]).any():
            raise MeshFileError(f"the last row of a node's matrix must be 0 0 0 1, got {matrix[3].tolist()}")
        return matrix
    from scipy.spatial.transform import Rotation

    rotation = Rotation.from_quat(node.get("rotation", (0.0, 0.0, 0.0, 1.0))).as_matrix()
    transform = np.eye(4)
    transform[:3, :3] = rotation * np.array(node.get("scale", (1.0, 1.0, 1.0)))
    transform[:3, 3] = node.get("translation", (0.0, 0.0, 0.0))
    return transform
