"""Fusion of depth images in a truncated signed distance function (TSDF), and its closed surface.

Space that no camera has seen counts as inside, so that the surface is always closed: hidden hollows are filled.
"""

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from dexgrasp.perception.cameras.depth import Intrinsics
from dexgrasp.perception.scanning.frames import ScanError, ScanFrame
from dexgrasp.perception.scanning.open3d_import import open3d

TRUNCATION_VOXELS = 2.0
"""Truncation distance of the TSDF [voxels]: thin walls need it small, noise is averaged over many frames."""
LEAST_WEIGHT = 2
"""Frames in which a voxel must be seen."""
FLOOR_M = 0.0015
"""Height below which the table's noise hides the surface: there the outline at this height goes straight down."""
BELOW_M = 0.01
"""Depth of the volume below the table."""
SECOND_SHARE = 0.3
"""Share of the largest thing from which another one is a second thing."""
MOST_VOXELS = 320
"""Most voxels per side of a volume."""


@dataclass(frozen=True)
class Volume:
    """A cube of voxels in the table frame."""

    lower_m: NDArray[np.float64]
    """(3,) its lower corner."""
    voxel_m: float
    tsdf: NDArray[np.float32] = field(repr=False)
    """(n, n, n) signed distance / truncation distance; positive outside, -1 where nothing was seen."""
    color: NDArray[np.float32] = field(repr=False)
    """(n, n, n, 3) RGB from 0 to 1."""

    def heights(self) -> NDArray[np.float64]:
        """Return the heights (n,) of the centres of the voxels [m]."""
        return self.lower_m[2] + (np.arange(len(self.tsdf)) + 0.5) * self.voxel_m


@dataclass(frozen=True)
class Surface:
    """A triangle mesh in the table frame."""

    vertices: NDArray[np.float64] = field(repr=False)
    """(v, 3) [m]."""
    faces: NDArray[np.int32] = field(repr=False)
    """(f, 3), counter-clockwise from outside."""
    color: NDArray[np.float64] = field(repr=False)
    """(v, 3) RGB from 0 to 1."""

    def area_normals(self) -> NDArray[np.float64]:
        """Return the outward normals of the faces (f, 3), as long as twice their areas [m^2]."""
        corners = self.vertices[self.faces]
        return np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])

    def raycasting_scene(self) -> Any:
        """Return the open3d scene for rays to, and distances from, the surface."""
        o3d = open3d()
        scene = o3d.t.geometry.RaycastingScene()
        scene.add_triangles(
            o3d.core.Tensor(self.vertices.astype(np.float32)), o3d.core.Tensor(self.faces.astype(np.uint32))
        )
        return scene


def fuse(frames: list[ScanFrame], lower_m: NDArray[np.float64], side_m: float, voxel_m: float) -> Volume:
    """Return the TSDF of frames in a cube.

    Voxels grow where the cube would need more than MOST_VOXELS per side.
    """
    o3d = open3d()
    voxel_m = max(voxel_m, side_m / MOST_VOXELS)
    count = int(np.ceil(side_m / voxel_m))
    volume = _open3d_volume(lower_m, voxel_m, count, o3d.pipelines.integration.TSDFVolumeColorType.RGB8)
    for frame in frames:
        volume.integrate(rgbd_image(frame), pinhole(frame.camera), np.linalg.inv(frame.T_table_cam))
    values = np.asarray(volume.extract_volume_tsdf(), np.float32).reshape(count, count, count, 2)
    tsdf = np.where(values[..., 1] < LEAST_WEIGHT, np.float32(-1), values[..., 0])
    color = np.asarray(volume.extract_volume_color(), np.float32).reshape(count, count, count, 3)
    return Volume(lower_m=np.asarray(lower_m, float), voxel_m=voxel_m, tsdf=tsdf, color=color / np.float32(255))


def pinhole(camera: Intrinsics) -> Any:
    """Return the open3d intrinsics of a camera without distortion."""
    return open3d().camera.PinholeCameraIntrinsic(
        camera.width, camera.height, camera.fx, camera.fy, camera.cx, camera.cy
    )


def rgbd_image(frame: ScanFrame, gray: bool = False) -> Any:
    """Return the open3d image of a frame; `gray`: with intensity in place of colour, for odometry."""
    o3d = open3d()
    return o3d.geometry.RGBDImage.create_from_color_and_depth(
        o3d.geometry.Image(np.ascontiguousarray(frame.color)),
        o3d.geometry.Image(np.ascontiguousarray(frame.depth_m)),
        depth_scale=1.0,
        depth_trunc=10.0,
        convert_rgb_to_intensity=gray,
    )


def thing_mask(volume: Volume) -> NDArray[np.bool_]:
    """Return the voxels (n, n, n) of the thing on the table.

    Raises ScanError where nothing, or more than one thing, stands in the volume.
    """
    inside = volume.tsdf < 0
    inside[:, :, volume.heights() < FLOOR_M] = False
    return largest_piece(inside, volume.voxel_m)


def largest_piece(inside: NDArray[np.bool_], voxel_m: float) -> NDArray[np.bool_]:
    """Return the largest connected piece (n, n, n) that touches no side of a volume, except its lower one.

    Raises ScanError where there is none, or a second one of its size.
    """
    labels: Any = ndimage.label(inside)[0]  # pyright: ignore[reportIndexIssue]
    sizes = np.bincount(labels.reshape(-1))
    sides = [labels[0], labels[-1], labels[:, 0], labels[:, -1], labels[:, :, -1]]
    sizes[np.unique(np.concatenate([side.reshape(-1) for side in sides]))] = 0
    sizes[0] = 0
    order = np.argsort(sizes)[::-1]
    if sizes[order[0]] * voxel_m**3 < 1e-6:
        raise ScanError(
            "nothing stands on the table: put the thing in the middle, at least a hand's breadth from the edge of what "
            "the camera sees, and show it from all sides"
        )
    if len(order) > 1 and sizes[order[1]] > SECOND_SHARE * sizes[order[0]]:
        raise ScanError(
            "more than one thing stands on the table: leave the one to scan, and take hands out of the view"
        )
    return labels == order[0]


def closed_surface(volume: Volume) -> Surface:
    """Return the closed surface of the thing in a volume, its bottom flat on the table."""
    heights = volume.heights()
    ground, floor = (int(np.searchsorted(heights, level)) for level in (0.0, FLOOR_M))
    tsdf = _only_thing(volume.tsdf, thing_mask(volume))
    tsdf[:, :, ground:floor] = tsdf[:, :, floor, None]
    tsdf[:, :, :ground] = 1
    # the crossing between the last layer below the table and the first one above it lies at z = 0
    share = -heights[ground - 1] / volume.voxel_m
    first = tsdf[:, :, ground]
    tsdf[:, :, ground - 1] = np.where(first < 0, np.clip(-first * share / max(1 - share, 1e-3), 1e-3, None), 1)
    return zero_crossing(volume, tsdf)


def merged_surface(volumes: list[Volume], T_tables: list[NDArray[np.float64]]) -> Surface:
    """Return the closed surface of a thing from volumes of several passes in one cube.

    `T_tables`: (4, 4) of each, the volume's frame to the frame of that pass, whose table is at z = 0. Space counts as
    inside that no pass has seen and that lies above all tables; what only the noise of a table hides, as just above it.
    """
    first = volumes[0]
    value, color = np.zeros_like(first.tsdf), np.zeros_like(first.color)
    count, colored = np.zeros(first.tsdf.shape, np.uint8), np.zeros(first.tsdf.shape, np.uint8)
    below, ground = np.zeros(first.tsdf.shape, bool), np.full(first.tsdf.shape, np.float32(-1))
    for volume, T in zip(volumes, T_tables, strict=True):
        height_m = _heights_above(volume, T)
        seen = (volume.tsdf > -1) & (height_m > FLOOR_M)
        near = seen & (volume.tsdf < 1) & volume.color.any(-1)
        value[seen] += volume.tsdf[seen]
        color[near] += volume.color[near]
        count += seen
        colored += near
        below |= height_m < -FLOOR_M
        at_table = np.abs(height_m) <= FLOOR_M
        ground[at_table] = np.maximum(ground[at_table], _outlines(volume, T, at_table, height_m[at_table]))
    tsdf = np.where(count > 0, value / np.maximum(count, 1), ground)
    tsdf[below] = 1
    tsdf = _only_thing(tsdf, largest_piece(tsdf < 0, first.voxel_m))
    return zero_crossing(replace(first, color=color / np.maximum(colored, 1)[..., None]), tsdf)


def _heights_above(volume: Volume, T: NDArray[np.float64]) -> NDArray[np.float32]:
    """Return the heights (n, n, n) of the voxels above the table of a pass; T (4, 4): volume's frame to the pass."""
    steps = (np.arange(len(volume.tsdf)) + 0.5) * volume.voxel_m
    x, y, z = (T[2, axis] * (volume.lower_m[axis] + steps) for axis in range(3))
    return (x[:, None, None] + y[:, None] + z + T[2, 3]).astype(np.float32)


def _outlines(
    volume: Volume, T: NDArray[np.float64], chosen: NDArray[np.bool_], height_m: NDArray[np.float32]
) -> NDArray[np.float32]:
    """Return the TSDF of chosen voxels at a table as just above it, cut off at the table."""
    rise = (FLOOR_M + volume.voxel_m - height_m) / volume.voxel_m
    above = np.argwhere(chosen) + rise[:, None] * T[2, :3]
    place = tuple(above.round().astype(int).clip(0, len(volume.tsdf) - 1).T)
    return np.maximum(volume.tsdf[place], -height_m / np.float32(TRUNCATION_VOXELS * volume.voxel_m))


def _only_thing(tsdf: NDArray[np.float32], thing: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Return a TSDF without what is beside the thing, and without hollows that nothing could have seen."""
    alone = np.where((tsdf < 0) & ~thing, np.float32(1), tsdf)
    filled: Any = ndimage.binary_fill_holes(thing)
    alone[filled & ~thing] = -1
    return alone


def _open3d_volume(lower_m: NDArray[np.float64], voxel_m: float, count: int, color_type: Any) -> Any:
    """Return an empty open3d volume of `count` voxels per side."""
    return open3d().pipelines.integration.UniformTSDFVolume(
        length=count * voxel_m,
        resolution=count,
        sdf_trunc=TRUNCATION_VOXELS * voxel_m,
        color_type=color_type,
        origin=lower_m,
    )


def zero_crossing(volume: Volume, tsdf: NDArray[np.float32]) -> Surface:
    """Return the surface where a TSDF (n, n, n) changes its sign, closed, with a volume's colours."""
    o3d = open3d()
    tsdf = tsdf.copy()
    for axis in range(3):
        ends: list[Any] = [slice(None)] * 3
        for ends[axis] in (0, -1):
            tsdf[tuple(ends)] = np.maximum(tsdf[tuple(ends)], 1e-3)
    count = len(tsdf)
    plain = o3d.pipelines.integration.TSDFVolumeColorType.NoColor
    cube = _open3d_volume(volume.lower_m, volume.voxel_m, count, plain)
    rows = np.stack([tsdf, np.ones_like(tsdf)], -1).reshape(-1, 2).astype(float)
    cube.inject_volume_tsdf(o3d.utility.Vector2dVector(rows))
    mesh = cube.extract_triangle_mesh()
    vertices = np.asarray(mesh.vertices)
    return Surface(
        vertices=vertices, faces=np.asarray(mesh.triangles, np.int32), color=_colors_at(volume, tsdf, vertices)
    )


def _colors_at(volume: Volume, tsdf: NDArray[np.float32], vertices: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the colours (v, 3) of the nearest voxels that were seen near the surface."""
    seen = (np.abs(tsdf) < 1) & volume.color.any(-1)
    if not seen.any():
        return np.full((len(vertices), 3), 0.7)
    nearest = ndimage.distance_transform_edt(~seen, return_distances=False, return_indices=True)
    cell = ((vertices - volume.lower_m) / volume.voxel_m - 0.5).round().astype(int).clip(0, len(tsdf) - 1)
    place = np.asarray(nearest)[:, cell[:, 0], cell[:, 1], cell[:, 2]]
    return volume.color[place[0], place[1], place[2]].astype(float)


def simplified(surface: Surface, most_faces: int) -> Surface:
    """Return a surface of at most `most_faces` triangles; the input where it has no more."""
    if len(surface.faces) <= most_faces:
        return surface
    o3d = open3d()
    mesh = o3d.geometry.TriangleMesh(
        o3d.utility.Vector3dVector(surface.vertices), o3d.utility.Vector3iVector(surface.faces)
    )
    mesh.vertex_colors = o3d.utility.Vector3dVector(surface.color)
    few = mesh.simplify_quadric_decimation(most_faces)
    few = few if few.is_edge_manifold(allow_boundary_edges=False) else mesh
    return Surface(
        vertices=np.asarray(few.vertices),
        faces=np.asarray(few.triangles, np.int32),
        color=np.asarray(few.vertex_colors),
    )


def ply_bytes(surface: Surface) -> bytes:
    """Return a surface as the bytes of a binary PLY file with colours."""
    vertices = np.zeros(
        len(surface.vertices),
        [(axis, "<f4") for axis in ("x", "y", "z")] + [(name, "u1") for name in ("red", "green", "blue")],
    )
    for column, axis in enumerate(("x", "y", "z")):
        vertices[axis] = surface.vertices[:, column]
    for column, name in enumerate(("red", "green", "blue")):
        vertices[name] = np.rint(255 * surface.color[:, column].clip(0, 1))
    faces = np.zeros(len(surface.faces), [("count", "u1"), ("vertices", "<i4", 3)])
    faces["count"], faces["vertices"] = 3, surface.faces
    kinds = [f"property float {axis}" for axis in ("x", "y", "z")]
    kinds += [f"property uchar {name}" for name in ("red", "green", "blue")]
    head = ["ply", "format binary_little_endian 1.0", f"element vertex {len(vertices)}", *kinds]
    head += [f"element face {len(faces)}", "property list uchar int vertex_indices", "end_header", ""]
    return "\n".join(head).encode() + vertices.tobytes() + faces.tobytes()
