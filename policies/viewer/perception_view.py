"""The perception preset of the viewer: depth image, pipeline results and hand of one snapshot."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from dexgrasp.perception.segmentation.pipeline import SegmentationCfg
from dexgrasp.perception.segmentation.table_plane import TABLE
from dexgrasp.perception.transforms import quat_from_matrix
from dexgrasp.policies.viewer import drawing
from dexgrasp.policies.viewer.page import Page
from dexgrasp.policies.viewer.snapshot import HandPose, Seen, Snapshot
from dexgrasp.sim.rendering.geom_meshes import GeomMesh
from dexgrasp.sim.rendering.studio import Mesh

LAYERS = (
    "object",
    "points of the policy",
    "vectors",
    "hand",
    "planned palm",
    "table",
    "workspace",
    "camera",
    "everything else",
    "true object",
)
"""Layers that can be shown or hidden, all shown at first."""
HAND_OPACITY, TRUTH_OPACITY = 0.6, 0.35
"""Opacities that keep points behind the hand and on the object's surface visible."""
NOWHERE = np.zeros((1, 3), np.float32)
"""Placeholder of an empty point cloud, which is hidden."""
EYE_M, EYE_TURN_RAD, EYE_HEIGHT_M, EYE_FOV_RAD = 1.0, 0.9, 0.62, 0.75
"""Initial viewpoint: distance from the table's centre, angle beside the camera, height, field of view."""


class PerceptionView:
    """Draws snapshots: depth image, points, vectors, table and hand."""

    def __init__(self, page: Page, segment: SegmentationCfg, robot: Sequence[GeomMesh]) -> None:
        """Add panel and scene to a page that was just rebuilt; `robot`: meshes of hand and arm."""
        self._server, self._numbers = page.server, page.numbers
        self._build_panel()
        self._build_layers()
        self._build_scene(segment)
        self._robot: list[tuple[GeomMesh, Any]] = []
        self._add_robot(robot)
        self._truth: Any = None
        self._true_vertices: NDArray[np.float32] | None = None

    def stand_beside(self, T_world_cam: NDArray[np.float64], target_w: NDArray[np.floating]) -> None:
        """Place the initial viewpoint beside the camera, towards target_w (3,)."""
        offset = T_world_cam[:2, 3] - target_w[:2]
        turn = np.arctan2(offset[1], offset[0]) + EYE_TURN_RAD
        eye_w = target_w + np.array([EYE_M * np.cos(turn), EYE_M * np.sin(turn), EYE_HEIGHT_M])
        first = self._server.initial_camera
        first.position, first.look_at, first.fov = eye_w, target_w, EYE_FOV_RAD

    def show(self, snapshot: Snapshot, speed: float) -> None:
        """Show one snapshot; `speed` in multiples of real time."""
        with self._server.atomic():
            self._show_seen(snapshot.seen)
            _put_points(self._known, snapshot.known_w)
            self._show_hand(snapshot.hand)
            self._show_truth(snapshot.object_pose, snapshot.object_mesh)
            self._numbers.content = drawing.panel_html(snapshot, speed)

    def _build_panel(self) -> None:
        gui = self._server.gui
        nothing, order = np.zeros((240, 320, 3), np.uint8), self._numbers.order + 0.5
        self._depth = gui.add_image(nothing, label="depth", format="jpeg", order=order)
        with gui.add_folder("Show"):
            self._boxes = {name: gui.add_checkbox(name, True) for name in LAYERS}
        with gui.add_folder("Colours"):
            gui.add_html(drawing.legend_html())

    def _build_layers(self) -> None:
        """Create one scene node per layer; its checkbox shows or hides all of its content."""
        for name, box in self._boxes.items():
            layer = self._server.scene.add_frame(_node(name), show_axes=False, visible=box.value)
            box.on_update(lambda event, layer=layer: setattr(layer, "visible", event.target.value))

    def _build_scene(self, segment: SegmentationCfg) -> None:
        scene, lower_m, upper_m = self._server.scene, segment.box_lower_m, segment.box_upper_m
        scene.configure_default_lights(cast_shadow=False)
        scene.configure_environment_map()
        self._scene = self._add_points("everything else", drawing.SCENE, 0.002)
        self._object = self._add_points("object", drawing.OBJECT, 0.0034)
        self._known = self._add_points("points of the policy", drawing.KNOWN, 0.0016)
        self._vectors = self._add_lines("vectors", drawing.VECTORS, 2.5)
        self._approach = self._add_lines("planned palm", drawing.APPROACH, 3.0)
        self._add_lines("workspace", drawing.WORKSPACE, 1.0).points = drawing.box_edges(lower_m, upper_m)
        self._plan = scene.add_frame(f"{_node('planned palm')}/start", axes_length=0.06, axes_radius=0.0015)
        self._palm = scene.add_frame(f"{_node('hand')}/palm", axes_length=0.03, axes_radius=0.001)
        sides_m = np.subtract(upper_m, lower_m)
        look = {"section_thickness": 0.0, "cell_color": drawing.PLANE, "cell_size": 0.05, "cell_thickness": 0.6}
        self._table = scene.add_grid(f"{_node('table')}/grid", float(sides_m[0]), float(sides_m[1]), **look)
        look = {"scale": 0.08, "thickness": 2.0, "thickness_units": "screen", "format": "jpeg"}
        self._camera = scene.add_camera_frustum(f"{_node('camera')}/frustum", 1.0, 1.0, **look)

    def _add_robot(self, meshes: Sequence[GeomMesh]) -> None:
        """Add the meshes of the hand, which `show` moves."""
        add = self._server.scene.add_mesh_simple
        for mesh in meshes:
            handle = add(f"/hand/{mesh.name}", mesh.vertices_b, mesh.faces, color=mesh.rgb, opacity=HAND_OPACITY)
            self._robot.append((mesh, handle))

    def _add_points(self, layer: str, color: drawing.Rgb, size_m: float) -> Any:
        look = {"point_size": size_m, "point_shape": "circle", "point_shading": "flat", "precision": "float32"}
        return self._server.scene.add_point_cloud(f"{_node(layer)}/points", NOWHERE, color, visible=False, **look)

    def _add_lines(self, layer: str, color: drawing.Rgb, width_px: float) -> Any:
        nothing, look = np.zeros((1, 2, 3), np.float32), {"thickness": width_px, "thickness_units": "screen"}
        return self._server.scene.add_line_segments(f"{_node(layer)}/lines", nothing, color, **look)

    def _show_seen(self, seen: Seen) -> None:
        lens, depth_m = seen.frame.intrinsics, seen.frame.depth_m
        span_m = drawing.depth_span(depth_m)
        picture = drawing.depth_picture(depth_m, span_m)
        self._depth.image, self._depth.label = picture, f"depth, {span_m[0]:.2f} m red to {span_m[1]:.2f} m violet"
        self._camera.image = picture
        self._camera.fov, self._camera.aspect = 2 * np.arctan(lens.height / 2 / lens.fy), lens.width / lens.height
        self._camera.position = seen.T_world_cam[:3, 3]
        self._camera.wxyz = quat_from_matrix(torch.from_numpy(seen.T_world_cam[:3, :3])).numpy()
        _put_points(self._scene, seen.scene_w)
        _put_points(self._object, seen.object_w)
        self._table.position, self._table.wxyz = drawing.plane_pose(seen.plane or TABLE)

    def _show_hand(self, hand: HandPose | None) -> None:
        moving = [self._vectors, self._approach, self._plan, self._palm, *(handle for _, handle in self._robot)]
        for handle in moving:
            handle.visible = hand is not None
        if hand is None:
            return
        self._vectors.points = drawing.vector_segments(hand)
        self._approach.points = drawing.approach_segment(hand)
        (self._plan.position, self._plan.wxyz), (self._palm.position, self._palm.wxyz) = hand.plan, hand.palm
        for mesh, handle in self._robot:
            handle.position, handle.wxyz = hand.bodies_pos_w[mesh.body - 1], hand.bodies_quat_w[mesh.body - 1]

    def _show_truth(self, pose: tuple[NDArray[np.float64], NDArray[np.float64]] | None, mesh: Mesh | None) -> None:
        if pose is None or mesh is None:
            return
        if self._true_vertices is not mesh[0]:
            self._true_vertices = mesh[0]
            self._truth = self._server.scene.add_mesh_simple(
                f"{_node('true object')}/mesh", *mesh, color=drawing.TRUTH, opacity=TRUTH_OPACITY, flat_shading=True
            )
        self._truth.position, self._truth.wxyz = pose


def _node(layer: str) -> str:
    return "/" + layer.replace(" ", "_")


def _put_points(cloud: Any, points_w: NDArray[np.float32]) -> None:
    """Write points (n, 3) into a cloud; an empty cloud is hidden."""
    cloud.visible = len(points_w) > 0
    if len(points_w):
        cloud.points = points_w
