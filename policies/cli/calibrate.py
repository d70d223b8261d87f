"""`dexgrasp calibrate board` and `dexgrasp calibrate camera`: the pose of the camera, written as YAML.

FOLDER/camera.json     intrinsics of the camera that took the images, as in a folder of depth frames
FOLDER/*.png           images of the board
FOLDER/poses.yaml      per image {pos_m, quat_wxyz} of the flange in the world; with the board on the table, of
                       the board; there the file may be missing, then board_pos_m and board_quat_wxyz hold
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
import yaml
from numpy.typing import NDArray
from PIL import Image

from dexgrasp.perception.calibration.charuco import BoardCfg, BoardDetection, draw_board, find_board
from dexgrasp.perception.calibration.hand_eye import BadCalibrationError, LimitsCfg, Mounted, calibrate
from dexgrasp.perception.cameras.depth import Intrinsics
from dexgrasp.perception.cameras.extrinsics import CameraPose, pose_from_dict, pose_matrix
from dexgrasp.perception.cameras.open import read_intrinsics
from dexgrasp.perception.cameras.realsense import RealSense, RealSenseCfg
from dexgrasp.policies.run_directory import Run, log
from dexgrasp.utils.files import atomic_path, write_json

M_PER_INCH = 0.0254
POSES = "poses.yaml"


@dataclass(frozen=True)
class PrintBoardCfg:
    """Draw the calibration board to print."""

    dpi: int = 300
    """Resolution of the print [dots per inch]; print without scaling, then measure a square."""
    out: str = ""
    """Run directory; empty = a new one under runs/."""
    board: BoardCfg = field(default_factory=BoardCfg)
    """Dimensions of the board."""


@dataclass(frozen=True)
class CalibrateCameraCfg:
    """Estimate the pose of the camera from images of the board."""

    source: str
    """Folder of images, or realsense, or realsense:SERIAL (with the board on the table)."""
    mounted: Literal["flange", "table"] = "table"
    """Place of the board: on the robot's flange, or at a known pose on the table."""
    stream: Literal["color", "depth"] = "color"
    """Stream of the images: color, or depth (the left infrared camera)."""
    serial: str = ""
    """Serial number of the camera, for images from a folder; empty = any."""
    board_pos_m: tuple[float, float, float] = (0.0, 0.0, 0.0)
    """Position of the print's top left corner in the world [m], for a board on the table without poses.yaml."""
    board_quat_wxyz: tuple[float, float, float, float] = (0.0, 1.0, 0.0, 0.0)
    """Orientation of the board: x right on the print, z into it; by default the print's right is the world's x."""
    views: int = 20
    """Number of images taken from a camera; all images of a folder are used."""
    out: str = ""
    """Run directory; empty = a new one under runs/."""
    board: BoardCfg = field(default_factory=BoardCfg)
    """Dimensions of the board."""
    limits: LimitsCfg = field(default_factory=LimitsCfg)
    """Limits beyond which the result is refused."""


def print_board(cfg: PrintBoardCfg) -> None:
    """Write RUN/board.png."""
    with Run.open(cfg.out, cfg) as run:
        path = run.file("board.png")
        with atomic_path(path) as partial:
            Image.fromarray(draw_board(cfg.board, cfg.dpi / M_PER_INCH)).save(partial, dpi=(cfg.dpi, cfg.dpi))
        print(f"board: {path}; print it without scaling and measure a square: {1e3 * cfg.board.square_m:g} mm")


def calibrate_camera(cfg: CalibrateCameraCfg) -> None:
    """Write RUN/camera.yaml and RUN/residuals.json. Raises BadCalibrationError for a bad result."""
    with Run.open(cfg.out, cfg) as run:
        live = cfg.source.split(":")[0] == "realsense"
        images, camera, serial = _photograph(cfg) if live else (*_read_images(Path(cfg.source)), cfg.serial)
        views = _find(cfg.board, images, camera)
        carriers = _carriers(cfg, views, Path(cfg.source) / POSES)
        result = calibrate(views, carriers, cfg.board, camera.fx, cfg.mounted, cfg.limits)
        summary = result.summary()
        table = zip(result.names, result.reprojection_px, result.position_m, result.rotation_rad, strict=True)
        rows = [dict(zip(("view", "reprojection_px", "position_m", "rotation_rad"), row, strict=True)) for row in table]
        write_json(run.file("residuals.json"), {"summary": summary, "views": rows, "T_world_cam": result.T_world_cam})
        path = run.file("camera.yaml")  # last: whoever reads it finds its residuals
        CameraPose(T_world_cam=result.T_world_cam, stream=cfg.stream, serial=serial, residuals=summary).save(path)
        for key, value in summary.items():
            print(f"{key:24s} {value:g}")
        print(f"camera: {path}")


def _read_images(folder: Path) -> tuple[dict[str, NDArray[np.uint8]], Intrinsics]:
    camera = read_intrinsics(folder / "camera.json")
    files = sorted(file for file in folder.iterdir() if file.suffix.lower() in (".png", ".jpg", ".jpeg"))
    if not files:
        raise FileNotFoundError(f"{folder} holds no .png or .jpg image of the board")
    return {file.name: np.asarray(Image.open(file).convert("L")) for file in files}, camera


def _photograph(cfg: CalibrateCameraCfg) -> tuple[dict[str, NDArray[np.uint8]], Intrinsics, str]:
    """Return colour images of a camera, its colour intrinsics and serial number."""
    mounted: Mounted = cfg.mounted
    if mounted == "flange" or cfg.stream != "color":
        raise ValueError("a camera is read with mounted=table and stream=color only; give a folder of images else")
    images: dict[str, NDArray[np.uint8]] = {}
    with RealSense.open(RealSenseCfg(color=True, align_to_color=True), serial=cfg.source.partition(":")[2]) as source:
        frame = source.read(timeout_s=5.0)  # the start of a camera needs seconds
        while len(images) < cfg.views:
            frame = source.read()
            if frame.color is not None:
                images[f"frame {len(images)}"] = frame.color
        return images, frame.intrinsics, source.serial


def _find(board: BoardCfg, images: dict[str, NDArray[np.uint8]], camera: Intrinsics) -> list[BoardDetection]:
    views = []
    for name, image in images.items():
        try:
            views.append(find_board(board, image, camera, name))
        except ValueError as error:
            log.warning("left out: %s", error)
    if not views:
        raise BadCalibrationError(f"the board is in none of {len(images)} images")
    return views


def _carriers(cfg: CalibrateCameraCfg, views: list[BoardDetection], path: Path) -> NDArray[np.float64]:
    """Return the poses (view, 4, 4) of the flange or of the board in the world."""
    if not path.is_file():
        if cfg.mounted == "flange":
            raise FileNotFoundError(f"{path} is missing: the pose of the flange in the world for each image")
        return np.stack([pose_matrix(cfg.board_pos_m, cfg.board_quat_wxyz, "board")] * len(views))
    try:
        poses = yaml.safe_load(path.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise ValueError(f"{path}: not a YAML file: {error}") from error
    missing = [view.name for view in views if not isinstance(poses, dict) or view.name not in poses]
    if missing:
        raise ValueError(f"{path} has no pose of {', '.join(missing)}")
    return np.stack([pose_from_dict(poses[view.name], f"{path}: {view.name}") for view in views])
