"""Mesh files: ten solids of known area, volume and inertia in every way that the formats allow."""

import base64
import json
import re
import struct

import mujoco
import numpy as np
import pytest
import trimesh

from dexgrasp.sim.objects.mesh_files import MeshFileError, read_surface
from dexgrasp.sim.objects.mesh_files.polygons import newell_normal, strip_triangles, triangulate_faces


def prism(outline, height):
    """A prism over a counter-clockwise outline, with whole polygons as caps."""
    count = len(outline)
    flat = np.array(outline, float)
    vertices = np.concatenate([np.c_[flat, np.zeros(count)], np.c_[flat, np.full(count, height)]])
    sides = [[i, (i + 1) % count, count + (i + 1) % count, count + i] for i in range(count)]
    faces = [list(range(count))[::-1], list(range(count, 2 * count)), *sides]
    x, y = flat.T
    cross = x * np.roll(y, -1) - np.roll(x, -1) * y
    cap = cross.sum() / 2
    perimeter = np.linalg.norm(np.roll(flat, -1, axis=0) - flat, axis=1).sum()
    return vertices, faces, 2 * cap + perimeter * height, cap * height


def ring(count, radius, inner=None):
    """A regular polygon, or a star where `inner` is given."""
    angles = 2 * np.pi * np.arange(count) / count
    radii = np.where(np.arange(count) % 2, inner, radius) if inner else radius
    return np.c_[radii * np.cos(angles), radii * np.sin(angles)]


def pyramid(count, radius, height):
    base = ring(count, radius)
    vertices = np.concatenate([np.c_[base, np.zeros(count)], [[0.0, 0.0, height]]])
    faces = [list(range(count))[::-1], *([i, (i + 1) % count, count] for i in range(count))]
    side, apothem = 2 * radius * np.sin(np.pi / count), radius * np.cos(np.pi / count)
    cap = count * side * apothem / 2
    return vertices, faces, cap + count * side * np.hypot(apothem, height) / 2, cap * height / 3


def octahedron(a):
    vertices = a * np.array([[1, 0, 0], [-1, 0, 0], [0, 1, 0], [0, -1, 0], [0, 0, 1], [0, 0, -1]], float)
    faces = [[0, 2, 4], [2, 1, 4], [1, 3, 4], [3, 0, 4], [2, 0, 5], [1, 2, 5], [3, 1, 5], [0, 3, 5]]
    return vertices, faces, 4 * np.sqrt(3) * a * a, 4 / 3 * a**3


SOLIDS = {
    "box": prism([(0, 0), (0.08, 0), (0.08, 0.05), (0, 0.05)], 0.03),
    "channel": prism(
        [(0, 0), (0.08, 0), (0.08, 0.06), (0.065, 0.06), (0.065, 0.014), (0.015, 0.014), (0.015, 0.06), (0, 0.06)], 0.05
    ),
    "angle": prism([(0, 0), (0.09, 0), (0.09, 0.015), (0.02, 0.02), (0.015, 0.07), (0, 0.07)], 0.04),
    "comb": prism(
        [
            (0, 0),
            (0.1, 0),
            (0.1, 0.05),
            (0.09, 0.05),
            (0.09, 0.01),
            (0.06, 0.01),
            (0.055, 0.05),
            (0.04, 0.05),
            (0.035, 0.01),
            (0.01, 0.01),
            (0.01, 0.04),
            (0, 0.04),
        ],
        0.02,
    ),
    "star": prism(ring(10, 0.05, 0.02), 0.03),
    "cylinder": prism(ring(24, 0.03), 0.1),
    "arrow": prism([(0, 0), (0.05, -0.03), (0.02, 0), (0.05, 0.03)], 0.03),
    "wedge": prism([(0, 0), (0.07, 0), (0, 0.04)], 0.06),
    "pyramid": pyramid(5, 0.04, 0.07),
    "octahedron": octahedron(0.05),
}


def triangles_of(vertices, faces):
    return triangulate_faces(vertices, faces)


def obj(vertices, faces, *, newline="\n", corner="{}", relative=False, before="", after="", extra=""):
    count = len(vertices)
    lines = [before, *(f"v {x:.9f} {y:.9f} {z:.9f}{extra}" for x, y, z in vertices)]
    lines += ["f " + " ".join(corner.format(i - count if relative else i + 1) for i in face) for face in faces]
    return newline.join([*lines, after, ""]).encode()


def split_obj(vertices, faces):
    """Every face with vertices of its own, written between them, with negative indices."""
    lines = []
    for number, face in enumerate(faces):
        lines += [f"o part{number}", *("v {:.9f} {:.9f} {:.9f}".format(*vertices[i]) for i in face)]
        lines.append("f " + " ".join(str(i - len(face)) for i in range(len(face))))
    return "\n".join(lines).encode()


def ply(vertices, faces, form, *, real="float", index="int", name="vertex_indices", extra=False):
    order = {"ascii": "", "binary_little_endian": "<", "binary_big_endian": ">"}[form]
    code = {"float": "f", "double": "d", "int": "i", "uint": "I", "short": "h", "uchar": "B"}
    head = f"ply\nformat {form} 1.0\ncomment zoo\nelement vertex {len(vertices)}\n"
    axes = "zyx" if extra else "xyz"
    head += "".join(f"property {real} {axis}\n" for axis in axes) + ("property uchar red\n" if extra else "")
    head += f"element face {len(faces)}\n" + ("property uchar flags\n" if extra else "")
    head += f"property list uchar {index} {name}\nend_header\n"
    values = vertices[:, ::-1] if extra else vertices
    if form == "ascii":
        rows = [" ".join(f"{x:.9f}" for x in v) + (" 255" if extra else "") for v in values]
        rows += [("7 " if extra else "") + f"{len(f)} " + " ".join(map(str, f)) for f in faces]
        return (head + "\n".join(rows) + "\n").encode()
    body = b"".join(struct.pack(order + code[real] * 3, *v) + (b"\xff" if extra else b"") for v in values)
    body += b"".join(
        (b"\x07" if extra else b"") + struct.pack(order + "B" + code[index] * len(f), len(f), *f) for f in faces
    )
    return head.encode() + body


def stl(vertices, faces, *, text=False, header=b"zoo"):
    corners = vertices[triangles_of(vertices, faces)]
    if text:
        rows = ["solid zoo"]
        for a, b, c in corners:
            rows += ["facet normal 0 0 0", "outer loop", *("vertex {:.9e} {:.9e} {:.9e}".format(*p) for p in (a, b, c))]
            rows += ["endloop", "endfacet"]
        return "\n".join([*rows, "endsolid zoo", ""]).encode()
    body = b"".join(struct.pack("<12fH", 0, 0, 0, *corner.ravel(), 0) for corner in corners)
    return header.ljust(80, b"\0") + struct.pack("<I", len(corners)) + body


class GlbWriter:
    """Collects the binary chunk of a GLB with its views and accessors."""

    COMPONENTS = {"float32": 5126, "int8": 5120, "uint8": 5121, "int16": 5122, "uint16": 5123, "uint32": 5125}  # noqa: RUF012

    def __init__(self):
        self.chunks, self.views, self.accessors = [], [], []

    def view(self, content, **words):
        start = sum(map(len, self.chunks))
        self.chunks.append(content + b"\0" * (-len(content) % 4))
        self.views.append({"buffer": 0, "byteOffset": start, "byteLength": len(content)} | words)
        return len(self.views) - 1

    def accessor(self, kind, count, shape, **words):
        self.accessors.append(
            {"componentType": self.COMPONENTS[np.dtype(kind).name], "count": count, "type": shape} | words
        )
        return len(self.accessors) - 1

    def positions(self, values, *, normalised, stride, sparse):
        words = {"normalized": True} if normalised else {}
        if sparse:
            where = np.arange(len(values), dtype=np.uint16)
            words["sparse"] = {
                "count": len(values),
                "indices": {"bufferView": self.view(where.tobytes()), "componentType": 5123},
                "values": {"bufferView": self.view(values.tobytes())},
            }
        else:
            step = stride or values.itemsize * 3 + (-values.itemsize * 3 % 4)
            rows = b"".join(row.tobytes().ljust(step, b"\xee") for row in values)
            words["bufferView"] = self.view(rows, byteStride=step)
        return self.accessor(values.dtype, len(values), "VEC3", **words)

    def primitive(self, position, order, kind, mode):
        view = self.view(order.astype(kind).tobytes())
        indices = self.accessor(kind, order.size, "SCALAR", bufferView=view)
        return {"attributes": {"POSITION": position}, "mode": mode, "indices": indices}

    def draco(self, vertices, triangles):
        import DracoPy

        content = DracoPy.encode(vertices, faces=triangles.astype(np.uint32), quantization_bits=16)
        position = self.accessor(np.float32, len(vertices), "VEC3")
        indices = self.accessor(np.uint32, triangles.size, "SCALAR")
        place = {"bufferView": self.view(content), "attributes": {"POSITION": 0}}
        attributes = {"POSITION": position}
        return {"attributes": attributes, "indices": indices, "extensions": {"KHR_draco_mesh_compression": place}}

    def pack(self, primitives, nodes, required, buffer_uri):
        binary = b"".join(self.chunks)
        tree = {
            "asset": {"version": "2.0"},
            "scene": 0,
            "scenes": [{"nodes": [len(nodes) - 1]}],
            "nodes": nodes,
            "meshes": [{"primitives": primitives}],
            "accessors": self.accessors,
            "bufferViews": self.views,
            "buffers": [{"byteLength": len(binary)}],
        }
        if required:
            tree |= {"extensionsUsed": required, "extensionsRequired": required}
        return pack_glb(tree, binary, buffer_uri)


def glb(
    vertices, faces, *, quantised=None, normalised=False, node=None, stride=0, indices=np.uint16, mode=4, sparse=False,
    draco=False, parts=1, buffer_uri=False, parent=None,
):  # fmt: skip
    triangles, positions, node = triangles_of(vertices, faces), vertices.astype(np.float32), dict(node or {})
    writer, required = GlbWriter(), []
    if quantised is not None:
        positions, placed = quantise(vertices, quantised, normalised)
        node |= placed
        required.append("KHR_mesh_quantization")
    if draco:
        primitives = [writer.draco(vertices, triangles)]
        required.append("KHR_draco_mesh_compression")
    else:
        position = writer.positions(positions, normalised=normalised, stride=stride, sparse=sparse)
        orders = np.array_split(triangles, parts) if mode == 4 else triangles  # strips and fans of one triangle each
        primitives = [writer.primitive(position, order, indices, mode) for order in orders]
    nodes = [{"mesh": 0} | node]
    if parent:
        nodes.append(parent | {"children": [0]})
    return writer.pack(primitives, nodes, required, buffer_uri)


def quantise(vertices, kind, normalised):
    """Integers in place of the vertices, and the node that undoes it."""
    most, unsigned = np.iinfo(kind).max, np.iinfo(kind).min == 0
    offset = vertices.min(axis=0) if unsigned else np.zeros(3)
    size = float(np.abs(vertices - offset).max())
    scale = size if normalised else size / most
    return np.round((vertices - offset) / size * most).astype(kind), {
        "scale": [scale] * 3,
        "translation": offset.tolist(),
    }


def pack_glb(tree, binary, buffer_uri):
    if buffer_uri:
        tree["buffers"][0]["uri"] = "data:application/octet-stream;base64," + base64.b64encode(binary).decode()
    text = json.dumps(tree).encode()
    text += b" " * (-len(text) % 4)
    chunks = struct.pack("<I4s", len(text), b"JSON") + text
    if not buffer_uri:
        chunks += struct.pack("<I4s", len(binary), b"BIN\0") + binary
    return b"glTF" + struct.pack("<II", 2, 12 + len(chunks)) + chunks


TURNED = {"rotation": [0.0, 0.0, np.sin(0.4), np.cos(0.4)], "translation": [0.3, -0.2, 0.1]}
MIRROR = {"matrix": [-1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1, 0, 0.1, 0.2, 0.3, 1]}
VARIANTS = {
    "obj": ("obj", obj),
    "obj_relative": ("obj", lambda v, f: obj(v, f, relative=True)),
    "obj_of_parts_relative": ("obj", split_obj),
    "obj_byte_order_mark": ("obj", lambda v, f: b"\xef\xbb\xbf" + obj(v, f).lstrip()),
    "obj_utf16": ("obj", lambda v, f: obj(v, f).decode().encode("utf-16")),
    "obj_windows_lines": ("obj", lambda v, f: obj(v, f, newline="\r\n")),
    "obj_corners_with_textures": ("obj", lambda v, f: obj(v, f, corner="{}/1", before="vt 0 0")),
    "obj_corners_with_normals": ("obj", lambda v, f: obj(v, f, corner="{}//1", before="vn 0 0 1")),
    "obj_coloured_vertices": ("obj", lambda v, f: obj(v, f, extra=" 0.5 0.5 0.5", after="l 1 2\np 1")),
    "obj_continued_lines": ("obj", lambda v, f: obj(v, f).replace(b"f ", b"f \\\n")),
    "obj_continued_corners": ("obj", lambda v, f: obj(v, f, corner="{}\\\n").replace(b"\\\n\n", b"\n")),
    "obj_paths_that_end_in_a_backslash": (
        "obj",
        lambda v, f: (b"# from C:\\parts\\\nv" + obj(v, f).lstrip()[1:]).replace(b"\nf ", b"\no D:\\\nf ", 1),
    ),
    "obj_comments": ("obj", lambda v, f: obj(v, f, before="# v 1 2 3\nmtllib none.mtl\ng a b\ns off", extra=" # c")),
    "obj_weights": ("obj", lambda v, f: obj(2 * v, f, extra=" 2.0")),
    "obj_weights_of_one": ("obj", lambda v, f: obj(v, f, extra=" 1")),
    "obj_form_feed_in_a_comment": ("obj", lambda v, f: obj(v, f, before="# x\x0cv 9 9 9\x0b\u2028v 9 9 9")),
    "obj_old_face_keyword": ("obj", lambda v, f: obj(v, f).replace(b"f ", b"fo ")),
    "obj_old_mac_lines": ("obj", lambda v, f: obj(v, f, newline="\r")),
    "ply_ascii": ("ply", lambda v, f: ply(v, f, "ascii")),
    "ply_ascii_extra": ("ply", lambda v, f: ply(v, f, "ascii", extra=True)),
    "ply_little": ("ply", lambda v, f: ply(v, f, "binary_little_endian")),
    "ply_big_double": ("ply", lambda v, f: ply(v, f, "binary_big_endian", real="double", index="uint")),
    "ply_little_extra": ("ply", lambda v, f: ply(v, f, "binary_little_endian", extra=True, name="vertex_index")),
    "ply_short": ("ply", lambda v, f: ply(v, f, "binary_little_endian", index="short")),
    "stl_text": ("stl", lambda v, f: stl(v, f, text=True)),
    "stl_text_byte_order_mark": ("stl", lambda v, f: b"\xef\xbb\xbf" + stl(v, f, text=True)),
    "stl_binary": ("stl", stl),
    "stl_binary_with_a_tail": ("stl", lambda v, f: stl(v, f) + b"\0" * 49),
    "stl_binary_that_says_solid": ("stl", lambda v, f: stl(v, f, header=b"solid made by a program")),
    "glb": ("glb", glb),
    "glb_32_bit_indices": ("glb", lambda v, f: glb(v, f, indices=np.uint32)),
    "glb_8_bit_indices": ("glb", lambda v, f: glb(v, f, indices=np.uint8)),
    "glb_int16": ("glb", lambda v, f: glb(v, f, quantised=np.int16)),
    "glb_int16_normalised": ("glb", lambda v, f: glb(v, f, quantised=np.int16, normalised=True)),
    "glb_uint16_normalised": ("glb", lambda v, f: glb(v, f, quantised=np.uint16, normalised=True)),
    "glb_strided": ("glb", lambda v, f: glb(v, f, stride=32)),
    "glb_sparse": ("glb", lambda v, f: glb(v, f, sparse=True)),
    "glb_strips": ("glb", lambda v, f: glb(v, f, mode=5)),
    "glb_fans": ("glb", lambda v, f: glb(v, f, mode=6)),
    "glb_two_primitives": ("glb", lambda v, f: glb(v, f, parts=2)),
    "glb_turned_node": ("glb", lambda v, f: glb(v, f, node=TURNED)),
    "glb_nested_nodes": ("glb", lambda v, f: glb(v, f, node=TURNED, parent=TURNED)),
    "glb_mirrored_matrix": ("glb", lambda v, f: glb(v, f, node=MIRROR)),
    "glb_draco": ("glb", lambda v, f: glb(v, f, draco=True)),
    "glb_buffer_in_uri": ("glb", lambda v, f: glb(v, f, buffer_uri=True)),
}


def measures(vertices, faces):
    """Area, volume and the sorted principal moments of inertia of a closed surface of unit density."""
    a, b, c = (vertices[faces[:, i]] for i in range(3))
    cross = np.cross(b - a, c - a)
    six_volumes = (a * cross).sum(axis=1)
    volume = six_volumes.sum() / 6
    centre = ((a + b + c) / 4 * six_volumes[:, None]).sum(axis=0) / six_volumes.sum()
    a, b, c = a - centre, b - centre, c - centre
    weights = (a * np.cross(b, c)).sum(axis=1)
    total = a + b + c
    second = sum(np.einsum("n,ni,nj->ij", weights, p, p) for p in (a, b, c, total)) / 120
    moments = np.trace(second) - np.linalg.eigvalsh(second)[::-1]
    return np.linalg.norm(cross, axis=1).sum() / 2, volume, np.sort(moments)


@pytest.mark.parametrize("solid", SOLIDS)
@pytest.mark.parametrize("variant", VARIANTS)
def test_a_file_gives_the_solid_that_was_written(variant, solid, tmp_path):
    vertices, faces, area, volume = SOLIDS[solid]
    suffix, write = VARIANTS[variant]
    path = tmp_path / f"{solid}.{suffix}"
    path.write_bytes(write(vertices, faces))
    read = measures(*read_surface(path))
    precise = 2e-3 if "int16" in variant or "draco" in variant else 1e-5
    assert read[0] == pytest.approx(area, rel=precise)
    assert read[1] == pytest.approx(volume, rel=precise)  # also the sign: faces point outwards
    moments = measures(vertices, triangles_of(vertices, faces))[2]
    np.testing.assert_allclose(read[2], moments, rtol=2 * precise)
    assert len(VARIANTS) * len(SOLIDS) >= 200


@pytest.mark.parametrize("solid", SOLIDS)
@pytest.mark.parametrize(
    "variant", ["stl_binary", "stl_text", "glb", "glb_turned_node", "glb_nested_nodes", "glb_strided"]
)
def test_trimesh_reads_the_same_points(variant, solid, tmp_path):
    """An independent reader, on what it reads rightly."""
    vertices, faces, *_ = SOLIDS[solid]
    suffix, write = VARIANTS[variant]
    path = tmp_path / f"{solid}.{suffix}"
    path.write_bytes(write(vertices, faces))
    theirs = trimesh.load_scene(path, process=False).to_mesh()
    ours = measures(*read_surface(path))
    assert ours[0] == pytest.approx(theirs.area, rel=1e-6)
    assert ours[1] == pytest.approx(theirs.volume, rel=1e-6)
    np.testing.assert_allclose(ours[2], np.sort(theirs.principal_inertia_components), rtol=1e-5)


@pytest.mark.parametrize("solid", SOLIDS)
@pytest.mark.parametrize(
    "variant", ["stl_binary", "stl_binary_that_says_solid", "obj", "obj_corners_with_normals", "obj_comments"]
)
def test_mujoco_reads_the_same_surface(variant, solid, tmp_path):
    """A second independent reader; it keeps single precision, and moves the mesh to its principal axes."""
    vertices, faces, *_ = SOLIDS[solid]
    suffix, write = VARIANTS[variant]
    path = tmp_path / f"{solid}.{suffix}"
    path.write_bytes(write(vertices, triangles_of(vertices, faces).tolist()))  # it covers no concave polygon
    spec = mujoco.MjSpec()
    spec.add_mesh(name="m", file=str(path), inertia=mujoco.mjtMeshInertia.mjMESH_INERTIA_EXACT)
    spec.worldbody.add_geom(type=mujoco.mjtGeom.mjGEOM_MESH, meshname="m")
    model = spec.compile()
    ours, theirs = measures(*read_surface(path)), measures(model.mesh_vert.astype(float), model.mesh_face)
    assert ours[0] == pytest.approx(theirs[0], rel=1e-4)
    assert ours[1] == pytest.approx(theirs[1], rel=1e-4)
    np.testing.assert_allclose(ours[2], theirs[2], rtol=1e-3)


def test_a_concave_polygon_is_covered_once():
    """Area of the triangles by hand: an arrow head of 0.05 x 0.06 m with a notch of 0.02 m."""
    vertices, faces, *_ = SOLIDS["arrow"]
    triangles = triangulate_faces(vertices, faces[1:2])
    areas = [np.linalg.norm(newell_normal(vertices[t])) / 2 for t in triangles]
    assert sum(areas) == pytest.approx(0.02 * 0.06 / 2)
    assert all((newell_normal(vertices[t]) * newell_normal(vertices[faces[1]])).sum() > 0 for t in triangles)


def test_a_strip_turns_every_second_triangle_and_leaves_out_those_that_join():
    assert strip_triangles(np.array([0, 1, 2, 3])).tolist() == [[0, 1, 2], [2, 1, 3]]
    assert strip_triangles(np.array([0, 1, 2, 2, 3, 3, 4, 5])).tolist() == [[0, 1, 2], [4, 3, 5]]
    assert strip_triangles(np.array([0, 1])).shape == (0, 3)


ASCII_STL = stl(*SOLIDS["box"][:2], text=True)
DAMAGED = {
    "index_out_of_range.obj": (b"v 0 0 0\nv 1 0 0\nv 0 1 0\nv 0 0 1\nf 1 2 9\n", "face 1 names a vertex that is not"),
    "index_before_the_first.obj": (b"v 0 0 0\nv 1 0 0\nv 0 1 0\nv 0 0 1\nf -9 -1 -2\n", "face 1 names a vertex"),
    "index_zero.obj": (b"v 0 0 0\nv 1 0 0\nv 0 1 0\nv 0 0 1\nf 0 1 2\n", "line 5 cannot be read.*indices start at 1"),
    "underscore.obj": (b"v 0.0_8 0 0\n", "line 1 cannot be read.*'0.0_8' is no number"),
    "underscore_index.obj": (b"v 0 0 0\n" * 12 + b"f 1 2 1_0\n", "line 13 cannot be read.*'1_0' is no number"),
    "digits.obj": ("v \u0661 0 0\n".encode(), "line 1 cannot be read"),
    "weight.obj": (b"v 1 1 1 0\n", "weight w of a vertex must not be 0"),
    "inf.obj": (b"v inf 0 0\nv 1 0 0\nv 1 1 0\nv 0 1 0\nf 1 2 3 4\n", "not finite: 1 of 4"),
    "inf.ply": (
        re.sub(rb"\n0\.08\S*", b"\ninf", ply(*SOLIDS["box"][:2], "ascii")),
        "not finite: 4 of 8",
    ),
    "large.obj": (b"v 1e200 0 0\nv 1 0 0\nv 1 1 0\nv 0 1 0\nf 1 2 3 4\n", "not finite: 1 of 4"),
    "glb.obj": (glb(*SOLIDS["box"][:2]), "by its content it is a GLB file: rename it to .glb"),
    "stl.obj": (stl(*SOLIDS["box"][:2]), "by its content it is a STL file: rename it to .stl"),
    "ply.stl": (ply(*SOLIDS["box"][:2], "binary_big_endian"), "by its content it is a PLY file: rename it to .ply"),
    "text_stl.ply": (stl(*SOLIDS["box"][:2], text=True), "by its content it is a STL file: rename it to .stl"),
    "word.obj": (b"v 0 0 zero\n", "line 1 cannot be read: 'v 0 0 zero'"),
    "short.obj": (b"v 0 0\n", "line 1 has fewer than three values"),
    "nan.obj": (b"v 0 0 nan\nv 1 0 0\nv 0 1 0\nv 0 0 1\nf 1 2 3\n", "not finite: 1 of 4"),
    "empty.obj": (b"# nothing", "empty: 0 vertices, 0 faces; expected the closed surface"),
    "cut.ply": (ply(*SOLIDS["box"][:2], "binary_little_endian")[:-5], "not a PLY file: .*early end-of-file"),
    "points.ply": (
        b"ply\nformat ascii 1.0\nelement vertex 1\nproperty float x\nproperty float y\nproperty float z\n"
        b"end_header\n0 0 0\n",
        "points without faces",
    ),
    "text.ply": (b"hello\n", "not a PLY file"),
    "text.glb": (b"hello, this is no binary file", "does not begin with 'glTF'"),
    "cut.glb": (glb(*SOLIDS["box"][:2])[:-20], "is cut off"),
    "version.glb": (b"glTF" + struct.pack("<II", 1, 20) + b"\0" * 8, "glTF of version 1"),
    "meshopt.glb": (
        glb(*SOLIDS["box"][:2], quantised=np.int16).replace(b"KHR_mesh_quantization", b"EXT_meshopt_compressn"),
        "requires the glTF extension EXT_meshopt_compressn",
    ),
    "solid_cut.stl": (stl(*SOLIDS["box"][:2], header=b"solid cube")[:-70], "its header announces 12 triangles, 10 are"),
    "more_than_announced.stl": (
        stl(*SOLIDS["box"][:2])[:80] + struct.pack("<I", 6) + stl(*SOLIDS["box"][:2])[84:],
        "not an STL file, or cut off: its header announces 6 triangles, 12 are there",
    ),
    "zeros.obj": (obj(*SOLIDS["box"][:2]).replace(b"v 0.0", b"\0\0\0\0\0", 1), "it holds NUL bytes"),
    "solid_header.stl": (b"solid cube".ljust(80, b"\0"), "80 bytes, the header of a binary one takes 84"),
    "solid_text_cut.stl": (
        ASCII_STL[: ASCII_STL.rfind(b"endsolid")],
        "cut off: no 'endsolid' at its end, after 12 facets",
    ),
    "solid_text_half.stl": (ASCII_STL[:300], "cut off: no 'endsolid' at its end, after . facets"),
    "far_index.glb": (
        glb(*SOLIDS["box"][:2]).replace(b'"mesh": 0', b'"mesh": 7'),
        "names number 7 of its meshes, of which it has 1",
    ),
}


CONTENTS = {
    b"\x1f\x8b\x08\0more": "compressed with gzip",
    b"PK\x03\x04more": "a ZIP archive",
    b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 12\n": "a Git LFS pointer.*git lfs pull",
    b"\n<!DOCTYPE html>\n<html><body>404</body></html>": "a web page, as an error of a download",
    b"": "it is empty",
    b"\0" * 600: "all zeros",
}
"""Beginnings of files that are not what their names say, and what is said about them."""


@pytest.mark.parametrize("ending", ["obj", "stl", "ply", "glb"])
def test_a_file_of_another_kind_is_recognised_in_every_format(tmp_path, ending):
    for content, said in CONTENTS.items():
        (tmp_path / f"a.{ending}").write_bytes(content)
        with pytest.raises(MeshFileError, match=f"unreadable: .*{said}"):
            read_surface(tmp_path / f"a.{ending}")


@pytest.mark.parametrize("name", DAMAGED)
@pytest.mark.filterwarnings("error")
def test_a_damaged_file_is_refused_with_the_reason(name, tmp_path):
    content, message = DAMAGED[name]
    (tmp_path / name).write_bytes(content)
    with pytest.raises(MeshFileError, match=message):
        read_surface(tmp_path / name)


BOX_VERTICES, BOX_FACES = SOLIDS["box"][:2]


def box_glb(node=None, mesh=None, edit=None, nodes=None, buffer_uri=False, **tree):
    """A box of 0.08 x 0.05 x 0.03 m with a morph target that lifts its top by 0.03 m, and with changes."""
    writer = GlbWriter()
    words = {"normalised": False, "stride": 0, "sparse": False}
    position = writer.positions(BOX_VERTICES.astype(np.float32), **words)
    lift = np.where(BOX_VERTICES[:, 2:] > 0, [[0.0, 0.0, 0.03]], 0.0).astype(np.float32)
    primitive = writer.primitive(position, triangles_of(BOX_VERTICES, BOX_FACES), np.uint16, 4)
    primitive["targets"] = [{"POSITION": writer.positions(lift, **words)}]
    if edit:
        edit(writer, primitive)
    binary = b"".join(writer.chunks)
    whole = {
        "asset": {"version": "2.0"},
        "scene": 0,
        "scenes": [{"nodes": [0]}],
        "nodes": nodes or [{"mesh": 0} | (node or {})],
        "meshes": [{"primitives": [primitive]} | (mesh or {})],
        "accessors": writer.accessors,
        "bufferViews": writer.views,
        "buffers": [{"byteLength": len(binary)}],
    }
    return pack_glb(whole | tree, binary, buffer_uri)


def sparse_alone(writer, primitive):
    where = np.arange(len(BOX_VERTICES), dtype=np.uint8)
    accessor = writer.accessors[primitive["attributes"]["POSITION"]]
    del accessor["bufferView"]
    accessor["sparse"] = {
        "count": len(where),
        "indices": {"bufferView": writer.view(where.tobytes()), "componentType": 5121},
        "values": {"bufferView": writer.view(BOX_VERTICES.astype(np.float32).tobytes())},
    }


@pytest.mark.parametrize(
    ("content", "height"),
    [
        (box_glb(), 0.03),
        (box_glb(mesh={"weights": [1.0]}), 0.06),
        (box_glb(mesh={"weights": [1.0]}, node={"weights": [0.5]}), 0.045),
        (box_glb(mesh={"weights": [0.0]}), 0.03),
        (box_glb(edit=sparse_alone), 0.03),
        (box_glb(edit=sparse_alone, buffer_uri=True), 0.03),
    ],
)
def test_morph_targets_and_sparse_accessors_give_the_height_worked_by_hand(content, height, tmp_path):
    (tmp_path / "box.glb").write_bytes(content)
    vertices, faces = read_surface(tmp_path / "box.glb")
    np.testing.assert_allclose(np.ptp(vertices, axis=0), [0.08, 0.05, height], rtol=1e-6)
    assert measures(vertices, faces)[1] == pytest.approx(0.08 * 0.05 * height, rel=1e-5)


def set_accessor(name, **words):
    return lambda writer, primitive: writer.accessors[
        primitive["attributes"]["POSITION"] if name == "POSITION" else primitive["indices"]
    ].update(words)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (box_glb(mesh={"weights": [1.0, 0.5]}), "2 weights for 1 morph targets"),
        (box_glb(node={"extensions": {"EXT_mesh_gpu_instancing": {}}}), "EXT_mesh_gpu_instancing, which is not supp"),
        (box_glb(node={"skin": 0}), "node 0 has a skin .* not supported"),
        (box_glb(scene=-1), "names number -1 of its scenes, of which it has 1"),
        (box_glb(scene=1), "names number 1 of its scenes"),
        (box_glb(scene=True), "names number True of its scenes"),
        (box_glb(nodes=[{"mesh": -1}]), "names number -1 of its meshes"),
        (box_glb(scenes=[{"nodes": [-1]}]), "names number -1 of its nodes"),
        (box_glb(node={"children": [-1]}), "names number -1 of its nodes"),
        (box_glb(edit=lambda w, p: p.update(indices=-1)), "names number -1 of its accessors"),
        (box_glb(edit=lambda w, p: w.views[0].update(buffer=-1)), "names number -1 of its buffers"),
        (box_glb(edit=lambda w, p: w.views[0].update(byteOffset=-24)), "buffer view 0 is cut off"),
        (box_glb(edit=set_accessor("POSITION", bufferView=-1)), "names number -1 of its bufferViews"),
        (box_glb(edit=set_accessor("POSITION", type="VEC2")), "three numbers each, got 2"),
        (box_glb(edit=set_accessor("indices", componentType=5126, count=18)), "indices must be integers, got float32"),
        (box_glb(edit=set_accessor("indices", count=35)), "35 indices make no whole triangles"),
        (box_glb(scenes=[{"nodes": [0, 0]}]), "node 0 .* is listed twice"),
        (box_glb(nodes=[{"children": [1]}, {"mesh": 0}], scenes=[{"nodes": [0, 1]}]), "node 1 .* is listed twice"),
        (box_glb(node={"children": [0]}), "contain one another"),
        (box_glb(node={"matrix": [1, 0, 0, 0.5, 0, 1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1]}), "must be 0 0 0 1"),
    ],
)
def test_a_glb_that_would_be_read_half_is_refused(content, reason, tmp_path):
    (tmp_path / "box.glb").write_bytes(content)
    with pytest.raises(MeshFileError, match=f"unreadable: .*{reason}"):
        read_surface(tmp_path / "box.glb")
