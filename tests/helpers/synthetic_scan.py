"""RGB-D scans of a thing on a ChArUco board, rendered with the depth errors of a D435, and their true shape.

Table frame: origin in the middle of the board, x along its rows, z up. The camera moves around the thing in rings;
a turntable under a fixed camera gives the same images.
"""

import json
from dataclasses import asdict, dataclass, field

import mujoco
import numpy as np
from PIL import Image
from scipy.spatial.transform import Rotation

from dexgrasp.perception.calibration.board_layout import BoardCfg, opencv
from dexgrasp.perception.calibration.charuco import draw_board
from dexgrasp.perception.cameras.depth import Intrinsics
from dexgrasp.sim.sensors.depth_noise import DepthNoiseDraws, add_depth_errors
from dexgrasp.sim.sensors.synthetic_scenes import cast

BOARD = BoardCfg()
CAMERA = Intrinsics(width=640, height=480, fx=610.0, fy=610.0, cx=319.5, cy=239.5)
"""The colour camera of a D435, to which depth is aligned."""
DEPTH_CAMERA = Intrinsics(width=640, height=480, fx=385.0, fy=385.0, cx=319.5, cy=239.5)
"""The depth camera, whose focal length decides the noise also of depth that is aligned to colour."""
SMALL = Intrinsics(width=320, height=240, fx=305.0, fy=305.0, cx=159.5, cy=119.5)
TABLE_M = (0.5, 0.4)
DOTS_PER_M = 4000
GREY = {0: 150, -1: 60}
"""Brightness of the table and of the empty background; things are textured."""


@dataclass
class RenderedScan:
    """Frames of one pass, as a camera delivers them."""

    depth_m: list[np.ndarray] = field(default_factory=list)
    color: list[np.ndarray] = field(default_factory=list)
    T_table_cam: list[np.ndarray] = field(default_factory=list)
    camera: Intrinsics = CAMERA

    def save(self, folder, **changes):
        """Write camera.json, color/NNNNNN.png and depth/NNNNNN.png; `changes`: keys of camera.json."""
        for name in ("color", "depth"):
            (folder / name).mkdir(parents=True, exist_ok=True)
        settings = {**asdict(self.camera), "stream": "color", "depth_unit_m": 0.001, "rate_hz": 10, **changes}
        (folder / "camera.json").write_text(json.dumps(settings))
        for number, (depth, color) in enumerate(zip(self.depth_m, self.color, strict=True)):
            Image.fromarray(np.rint(depth * 1000).astype(np.uint16)).save(folder / f"depth/{number:06d}.png")
            Image.fromarray(color).save(folder / f"color/{number:06d}.png")
        return folder


def ring(count, elevation_deg, distance_m, *, first_deg=0.0, turn_deg=360.0, target=(0, 0, 0.04)):
    """Return camera poses (count, 4, 4) in the table frame, in a ring around the thing."""
    poses = []
    for azimuth in np.radians(first_deg + turn_deg * np.arange(count) / count):
        elevation = np.radians(elevation_deg)
        away = np.array([np.cos(elevation) * np.cos(azimuth), np.cos(elevation) * np.sin(azimuth), np.sin(elevation)])
        right = np.array([-np.sin(azimuth), np.cos(azimuth), 0.0])
        T = np.eye(4)
        T[:3, :3] = np.stack([right, np.cross(-away, right), -away], axis=1)
        T[:3, 3] = np.asarray(target) + distance_m * away
        poses.append(T)
    return np.stack(poses)


def hand_held(count=60, distance_m=0.42, seed=0, target=(0, 0, 0.04)):
    """Return poses of three rings, low, middle and from above, with the unsteadiness of a hand."""
    rng = np.random.default_rng(seed)
    low, middle = count // 2, count * 3 // 10
    rings = [(low, 22, 0), (middle, 50, 7), (count - low - middle, 76, 3)]
    poses = np.concatenate([ring(n, angle, distance_m, first_deg=first, target=target) for n, angle, first in rings])
    for T in poses:
        T[:3, 3] += rng.normal(0, 0.008, 3)
        T[:3, :3] = T[:3, :3] @ Rotation.from_rotvec(rng.normal(0, 0.02, 3)).as_matrix()
    return poses


def scene_of(model, rest=0, place=None):
    """Return a compiled scene of an object of a library at rest on the table, and T_table_object.

    `place`: T (4, 4) of the object in place of a resting pose.
    """
    T = np.eye(4)
    T[:3, :3] = Rotation.from_quat(model.rest_quat[rest], scalar_first=True).as_matrix()
    T[2, 3] -= (model.vertices @ T[:3, :3].T)[:, 2].min()  # convex pieces differ from the mesh by tenths of mm
    T = T if place is None else place

    def add(spec):
        mesh = spec.add_mesh(
            name="object1", uservert=model.vertices.ravel().tolist(), userface=model.faces.ravel().tolist()
        )
        mesh.inertia = mujoco.mjtMeshInertia.mjMESH_INERTIA_SHELL
        body = spec.worldbody.add_body(pos=T[:3, 3], quat=Rotation.from_matrix(T[:3, :3]).as_quat(scalar_first=True))
        body.add_geom(name="object1", type=mujoco.mjtGeom.mjGEOM_MESH, meshname="object1", contype=0, conaffinity=0)

    return table_scene(add), T


def table_scene(add=lambda spec: None):
    """Return a compiled scene of a table with what `add` adds to the MjSpec; geoms named objectN are things."""
    spec = mujoco.MjSpec()
    spec.worldbody.add_geom(name="table", type=mujoco.mjtGeom.mjGEOM_BOX, size=(*TABLE_M, 0.01), pos=(0, 0, -0.01))
    add(spec)
    return spec.compile()


def box_scene(half_m, pos_m=(0.0, 0.0), yaw_rad=0.0, more=()):
    """Return the scene of a box that stands on the table; `more`: (half_m, pos_m) of further ones."""

    def add(spec):
        for number, (half, pos, yaw) in enumerate(
            [(half_m, pos_m, yaw_rad), *((half, pos, 0.0) for half, pos in more)], start=1
        ):
            quat = (np.cos(yaw / 2), 0, 0, np.sin(yaw / 2))
            spec.worldbody.add_geom(
                name=f"object{number}", type=mujoco.mjtGeom.mjGEOM_BOX, size=half, pos=(*pos, half[2]), quat=quat
            )

    return table_scene(add)


def render(scene, poses, *, camera=CAMERA, board=BOARD, seed=0, errors=True, missing=0.02, T_texture_table=None):
    """Return the scan of a scene from camera poses (n, 4, 4); `board=None`: a plain textured table.

    `T_texture_table`: pose of the table in the frame of the thing's texture, for a thing that was turned over.
    """
    rng = np.random.default_rng(seed)
    scan = RenderedScan(camera=camera)
    for T in poses:
        depth_m, labels = cast(scene, camera, T)
        scan.color.append(_colour(depth_m, labels, camera, T, board, T_texture_table))
        if errors:
            draws = DepthNoiseDraws.draw((camera.height, camera.width), rng, missing)
            add_depth_errors(depth_m, DEPTH_CAMERA, draws)
        scan.depth_m.append(depth_m)
        scan.T_table_cam.append(T)
    return scan


def table_board(board=BOARD):
    """Return the pose of the board, whose z axis points into it, in the table frame."""
    T = np.diag([1.0, -1.0, -1.0, 1.0])
    T[:2, 3] = -board.columns * board.square_m / 2, board.rows * board.square_m / 2
    return T


def points_of(depth_m, camera, T):
    """Return the points (3, rows, columns) of a depth image, in the frame into which T (4, 4) leads."""
    points = np.concatenate([camera.rays() * depth_m, depth_m[None]]).reshape(3, -1)
    return (T[:3, :3] @ points + T[:3, 3:]).reshape(3, *depth_m.shape)


def _colour(depth_m, labels, camera, T, board, T_texture_table):
    """Return the colour image (rows, columns, 3): texture of table and thing by place, the print of the board."""
    x, y, z = points_of(depth_m, camera, T)
    if T_texture_table is not None:
        turned = points_of(depth_m, camera, T_texture_table @ T)
        x, y, z = np.where(labels > 0, turned, (x, y, z))
    waves = sum(np.sin(k * (np.cos(a) * x + np.sin(a) * y + np.cos(3 * a) * z)) for k, a in WAVES)
    image = np.clip(150 + 18 * waves, 60, 230)
    image[labels < 0] = GREY[-1]
    if board is not None:
        cv2 = opencv()
        print_ = draw_board(board, DOTS_PER_M)
        margin = board.square_m
        into = table_board(board)
        # pixel of the print -> board frame -> table -> camera -> pixel of the image
        P = np.diag([1 / DOTS_PER_M, 1 / DOTS_PER_M, 1.0])
        P[:2, 2] = -margin
        cam_board = np.linalg.inv(T) @ into
        K = np.array([[camera.fx, 0, camera.cx], [0, camera.fy, camera.cy], [0, 0, 1]])
        H = K @ cam_board[:3, [0, 1, 3]] @ P
        factor = 3
        S = np.array([[factor, 0, (factor - 1) / 2], [0, factor, (factor - 1) / 2], [0, 0, 1]])
        size = (factor * camera.width, factor * camera.height)
        large = cv2.warpPerspective(print_, S @ H, size, flags=cv2.INTER_LINEAR, borderValue=0)
        inside = cv2.warpPerspective(np.full_like(print_, 255), S @ H, size, flags=cv2.INTER_NEAREST, borderValue=0)
        small = cv2.resize(large, (camera.width, camera.height), interpolation=cv2.INTER_AREA)
        covered = cv2.resize(inside, (camera.width, camera.height), interpolation=cv2.INTER_AREA) / 255
        on_table = labels == 0
        image = np.where(on_table, covered * (20 + 0.85 * small) + (1 - covered) * image, image)
    grey = np.clip(image, 0, 255).astype(np.uint8)
    return np.stack([grey, grey, np.where(labels > 0, grey // 2, grey)], axis=-1)


WAVES = [(40 + 37 * i, 2.4 * i) for i in range(12)]
"""Wave numbers [1/m] and directions of the texture."""
