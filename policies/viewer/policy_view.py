"""The policy preset of the viewer: solid hands and objects, force arrows, plots."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dexgrasp.perception.hand_features import nearest_vectors
from dexgrasp.policies.viewer import policy_drawing as drawing
from dexgrasp.policies.viewer.drawing import KNOWN, VECTORS
from dexgrasp.policies.viewer.env_status import EnvStatus, env_status
from dexgrasp.policies.viewer.page import Page
from dexgrasp.policies.viewer.rollout import Result, Rollout
from dexgrasp.sim.rendering.env_state import EnvState, env_state
from dexgrasp.sim.rendering.geom_meshes import GeomMesh, geom_meshes

LAYERS = {
    "hand": True,
    "object": True,
    "collision shape": False,
    "table": True,
    "contact forces": True,
    "table force": False,
    drawing.EXTERNAL_FORCE: True,
    "points of the policy": False,
    "vectors": False,
    "planned palm": False,
}
"""Layers that can be shown or hidden, and their initial visibility."""
COMMANDS = (("P", "push"), ("M", "move"), ("pagedown", "next environment"), ("pageup", "previous environment"))
"""Hotkeys of this preset, and what they request."""
SPACING_M, ARM_SPACING_M = 0.9, 1.8
"""Distance between environments, of floating hands and of arms."""
PLOT_STEPS = 4
"""Control steps between updates of the plots while the page plays."""
PUSH_N, MOVE_CM = 5.0, 3.0
"""Initial values of push and move."""
EYE_W, LOOK_AT_W, FOV_RAD = np.array([0.68, -0.68, 0.62]), np.array([0.0, 0.0, 0.19]), 0.75
"""Initial viewpoint of one environment."""
NOWHERE = np.zeros((1, 2, 3), np.float32)
"""Placeholder of empty lines and arrows, which are hidden."""


class PolicyView:
    """Draws the environments of a rollout, the numbers and the plots of one of them."""

    def __init__(self, page: Page, rollout: Rollout) -> None:
        """Add panel and scene to a page that was just rebuilt."""
        self._server, self._numbers, self._page = page.server, page.numbers, page
        self._world = page.server.scene.add_frame("/world", show_axes=False)
        self._light()
        self._build_panel()
        self._layers = {name: self._add_layer(name, box) for name, box in self._boxes.items()}
        self._plots: list[tuple[drawing.Graph, Any]] = []
        self._drawn: list[Any] = []  # nodes that belong to the present rollout
        self._objects: list[list[Any]] = []  # those of each environment's object
        self.open(rollout)

    @property
    def row(self) -> int:
        """Return the environment that numbers, plots, push and move belong to."""
        return min(int(self._row.value), len(self._offsets_m) - 1)

    @property
    def push_n(self) -> float:
        """Return the force of a push [N]."""
        return float(self._push.value)

    @property
    def move_m(self) -> float:
        """Return the distance of a move [m]."""
        return float(self._move.value) / 100

    def open(self, rollout: Rollout) -> None:
        """Draw another rollout, perhaps of another hand or number of environments, from now on."""
        self._rollout, task = rollout, rollout.task
        model = task.engine.get_model(0)
        bodies = [number for number in range(1, model.nbody) if model.body(number).name != "object"]
        spacing_m = ARM_SPACING_M if any(model.body(number).name == "arm_base" for number in bodies) else SPACING_M
        self._offsets_m = drawing.grid_offsets(task.num_envs, spacing_m)
        with self._server.atomic():
            for node in (*self._drawn, *(node for nodes in self._objects for node in nodes)):
                node.remove()
            self._drawn = []
            self._add_tables()
            self._robot = [self._add_robot(mesh) for mesh in drawing.merge_meshes(geom_meshes(model, bodies))]
            self._objects, self._radii_m = [[] for _ in range(task.num_envs)], [0.0] * task.num_envs
            self._objects_of: list[tuple[str, float]] = [("", 0.0)] * task.num_envs
            self._labels = [self._add_label(row) for row in range(task.num_envs)]
            self._row.max, self._row.value = max(task.num_envs - 1, 1), 0
            self._row.visible = self._only.visible = task.num_envs > 1
        self._plotted: tuple[int, int] | None = None  # steps and environment
        self._place_camera(task.num_envs, spacing_m)

    def select(self, step: int) -> None:
        """Select the next (1) or previous (-1) environment."""
        self._row.value = (self.row + step) % len(self._offsets_m)

    def show(self, results: Sequence[Result], speed: float) -> None:
        """Show the present state; `speed` reached, in multiples of real time."""
        task, row = self._rollout.task, self.row
        rows = [row] if self._only.value else list(range(task.num_envs))
        envs = [env_state(task.engine.get_model(i), task.engine.get_data(i)) for i in rows]
        offsets_m = self._offsets_m[rows]
        status = env_status(self._rollout, row)
        speeds = speed, self._page.speed
        with self._server.atomic():
            self._show_robot(envs, offsets_m)
            self._show_objects(rows, envs)
            self._show_forces(rows, envs)
            self._show_observation(row, status)
            self._show_labels(rows)
            palm_w = task.engine.state.palm_pos_w[row].numpy() + self._offsets_m[row] - LOOK_AT_W
            self._world.position = -palm_w if self._follow.value else np.zeros(3)
            self._numbers.content = drawing.status_html(status, self._rollout.history, row, results, speeds)
            self._show_plots(row)

    def _build_panel(self) -> None:
        gui = self._server.gui
        with gui.add_folder("By hand"):
            self._push = gui.add_number("push [N]", PUSH_N, step=0.5, hint="Horizontal force for 0.2 s.")
            gui.add_button("Push the object").on_click(lambda _: self._page.request("push"))
            hint = "Across the table, clear of the hand; the policy is not told."
            self._move = gui.add_number("move [cm]", MOVE_CM, step=0.5, hint=hint)
            gui.add_button("Move the object").on_click(lambda _: self._page.request("move"))
        with gui.add_folder("Show"):
            self._row = gui.add_slider("environment", 0, 1, 1, 0, hint="Environment of numbers, plots, push and move.")
            self._only = gui.add_checkbox("this environment only", False)
            self._follow = gui.add_checkbox("follow the hand", False)
            self._scale = gui.add_slider("force scale [cm/N]", 0.1, 5.0, 0.1, 0.6)
            for control in (self._row, self._only, self._follow, self._scale):
                control.on_update(lambda _: self._page.request("redraw"))
            self._boxes = {name: gui.add_checkbox(name, shown) for name, shown in LAYERS.items()}
        self._plot_panel = gui.add_panel()
        self._plot_tab = self._plot_panel.add_tab("Plots")
        self._plot_panel.dock_left()
        self._plot_panel.set_width(330)

    def _light(self) -> None:
        """Light the scene softly from the surroundings, and with shadows from a lamp above."""
        scene = self._server.scene
        scene.configure_default_lights(enabled=False)
        scene.configure_environment_map("warehouse", environment_intensity=0.25)
        scene.add_light_hemisphere("/lights/sky", ground_color=(150, 150, 160), intensity=0.7)
        scene.add_light_directional("/lights/lamp", intensity=1.6, cast_shadow=True, position=(0.6, -0.5, 1.6))

    def _add_layer(self, name: str, box: Any) -> Any:
        """Add the scene node of a layer; its checkbox shows or hides all of its content."""
        layer = self._server.scene.add_frame(_node(name), show_axes=False, visible=box.value)
        box.on_update(lambda event: self._set_visible(layer, event.target.value))
        scene, nodes = self._server.scene, {}
        colors = {
            "contact forces": drawing.CONTACT,
            "table force": drawing.SUPPORT,
            drawing.EXTERNAL_FORCE: drawing.EXTERNAL,
        }
        if name in colors:
            look = {"shaft_radius": 0.003, "head_radius": 0.0075, "head_length": 0.018}
            nodes["arrows"] = scene.add_arrows(f"{_node(name)}/arrows", NOWHERE, colors[name], visible=False, **look)
        elif name == "points of the policy":
            look = {"point_size": 0.0025, "point_shape": "circle", "point_shading": "flat", "precision": "float32"}
            nodes["points"] = scene.add_point_cloud(f"{_node(name)}/points", NOWHERE[0], KNOWN, **look)
        elif name == "vectors":
            look = {"thickness": 2.5, "thickness_units": "screen"}
            nodes["lines"] = scene.add_line_segments(f"{_node(name)}/lines", NOWHERE, VECTORS, **look)
        elif name == "planned palm":
            nodes["frame"] = scene.add_frame(f"{_node(name)}/start", axes_length=0.06, axes_radius=0.0015)
        return nodes

    def _set_visible(self, layer: Any, visible: bool) -> None:
        layer.visible = visible
        self._page.request("redraw")

    def _add_tables(self) -> None:
        scene, half, thick = self._server.scene, drawing.TABLE_HALF_M, drawing.TABLE_THICKNESS_M
        for number, offset_m in enumerate(self._offsets_m):
            box = scene.add_box(
                f"{_node('table')}/{number}",
                drawing.TABLE,
                (2 * half, 2 * half, thick),
                position=offset_m - (0.0, 0.0, thick / 2),
                cast_shadow=False,
            )
            self._drawn.append(box)
        lines = np.concatenate([drawing.table_lines() + offset_m for offset_m in self._offsets_m]).astype(np.float32)
        look = {"thickness": 1.0, "thickness_units": "screen"}
        self._drawn.append(scene.add_line_segments(f"{_node('table')}/lines", lines, drawing.TABLE_LINES, **look))

    def _add_robot(self, mesh: GeomMesh) -> tuple[int, Any]:
        """Add one mesh of the robot, drawn once per environment; return its body and its node."""
        count = len(self._offsets_m)
        node = self._server.scene.add_batched_meshes_simple(
            f"{_node('hand')}/{mesh.name}",
            mesh.vertices_b,
            mesh.faces,
            batched_wxyzs=np.tile((1.0, 0.0, 0.0, 0.0), (count, 1)),
            batched_positions=np.zeros((count, 3)),
            batched_colors=mesh.rgb,
            lod="off",
        )
        self._drawn.append(node)
        return mesh.body, node

    def _add_label(self, row: int) -> Any:
        place_m = self._offsets_m[row] + (-drawing.TABLE_HALF_M, -drawing.TABLE_HALF_M, 0.0)
        label = self._server.scene.add_label(
            f"/world/labels/{row}", "", position=place_m, visible=len(self._offsets_m) > 1, anchor="bottom-left"
        )
        self._drawn.append(label)
        return label

    def _place_camera(self, num_envs: int, spacing_m: float) -> None:
        """Place the initial viewpoint so that all environments are in view."""
        wide = (spacing_m / SPACING_M) ** 0.6 * (1 + 1.1 * (np.ceil(np.sqrt(num_envs)) - 1))
        first = self._server.initial_camera
        first.position, first.look_at, first.fov = LOOK_AT_W + wide * (EYE_W - LOOK_AT_W), LOOK_AT_W, FOV_RAD

    def _show_robot(self, envs: Sequence[EnvState], offsets_m: NDArray[np.float64]) -> None:
        pos_w = np.stack([env.bodies_pos_w for env in envs]) + offsets_m[:, None]
        quat_w = np.stack([env.bodies_quat_w for env in envs])
        for body, node in self._robot:
            node.batched_positions = pos_w[:, body - 1].astype(np.float32)
            node.batched_wxyzs = quat_w[:, body - 1].astype(np.float32)

    def _show_objects(self, rows: Sequence[int], envs: Sequence[EnvState]) -> None:
        task = self._rollout.task
        for row, env in zip(rows, envs, strict=True):
            kind = task.objects[row], float(task.draws.size[row])
            if kind != self._objects_of[row]:
                self._objects_of[row] = kind
                self._add_object(row)
            for node in self._objects[row][: 2 if self._boxes["collision shape"].value else 1]:
                node.position, node.wxyz = env.bodies_pos_w[-1] + self._offsets_m[row], env.bodies_quat_w[-1]
        for row, nodes in enumerate(self._objects):
            for node in nodes:
                node.visible = row in rows

    def _add_object(self, row: int) -> None:
        """Add mesh and collision shape of a new object of one environment in place of the last ones."""
        scene, model = self._server.scene, self._rollout.task.engine.get_model(row)
        for node in self._objects[row]:
            node.remove()
        mesh = self._rollout.task.object_mesh(row)
        self._radii_m[row] = float(np.median(np.linalg.norm(mesh[0], axis=1)))
        solid = scene.add_mesh_simple(f"{_node('object')}/{row}", *mesh, color=drawing.OBJECT, flat_shading=True)
        pieces = drawing.joined(geom_meshes(model, [model.body("object").id]))
        name, mesh = f"{_node('collision shape')}/{row}", (pieces.vertices_b, pieces.faces)
        self._objects[row] = [solid, scene.add_mesh_simple(name, *mesh, color=drawing.PIECES, wireframe=True)]

    def _show_forces(self, rows: Sequence[int], envs: Sequence[EnvState]) -> None:
        radii_m = [self._radii_m[row] for row in rows]
        arrows_of = drawing.force_arrows(envs, self._offsets_m[list(rows)], radii_m, self._scale.value / 100)
        for name, arrows in arrows_of.items():
            node = self._layers[name]["arrows"]
            node.visible = len(arrows) > 0
            if len(arrows):
                node.points = arrows

    def _show_observation(self, row: int, status: EnvStatus) -> None:
        """Show points, vectors and planned palm of the selected environment, if their layers are visible."""
        task, offset_m = self._rollout.task, self._offsets_m[row]
        if self._boxes["points of the policy"].value or self._boxes["vectors"].value:
            points_w, keypoints_w = task.object_camera.points_w[row], task.sensed.keypoints_w[row].float()
            vectors_w = nearest_vectors(keypoints_w[None], points_w[None])[0].numpy()
            points_w, keypoints_w = points_w.numpy(), keypoints_w.numpy()
            lines = np.stack([keypoints_w, keypoints_w + vectors_w], axis=1)
            self._layers["points of the policy"]["points"].points = (points_w + offset_m).astype(np.float32)
            self._layers["vectors"]["lines"].points = (lines + offset_m).astype(np.float32)
        frame = self._layers["planned palm"]["frame"]
        frame.position, frame.wxyz = status.plan[0] + offset_m, status.plan[1]

    def _show_labels(self, rows: Sequence[int]) -> None:
        for row, label in enumerate(self._labels):
            status = env_status(self._rollout, row)
            text = f"{row}: trial {status.trial}, {status.verdict or status.phase}"
            label.visible = len(self._labels) > 1 and row in rows
            if label.text != text:
                label.text = text

    def _show_plots(self, row: int) -> None:
        """Update the plots every PLOT_STEPS steps, at the end of a trial, and whenever the page stands still."""
        history = self._rollout.history
        if not history.time_s:
            return
        self._create_plots()
        key = len(history.time_s), row
        due = len(history.time_s) % PLOT_STEPS == 0 or self._rollout.finished or not self._page.playing
        if key != self._plotted and due:
            self._plotted = key
            for graph, plot in self._plots:
                plot.data = graph.data(history, row)

    def _create_plots(self) -> None:
        """Create the plots at the first step, and again where another policy records other quantities."""
        graphs = drawing.graphs(self._rollout.history.names)
        if graphs == tuple(graph for graph, _ in self._plots):
            return
        for _, plot in self._plots:
            plot.remove()
        nothing = np.zeros(1)
        with self._plot_tab:
            self._plots = [
                (graph, self._server.gui.add_uplot((nothing,) * (1 + len(graph.lines)), **graph.uplot()))
                for graph in graphs
            ]


def _node(layer: str) -> str:
    return "/world/" + layer.partition(",")[0].replace(" ", "_")
