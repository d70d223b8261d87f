"""`dexgrasp calibrate board` and `dexgrasp calibrate camera`: the pose of the camera, written as YAML.

FOLDER/camera.json     intrinsics of the camera that took the images, as in a folder of depth frames
FOLDER/*.png           images of the board
FOLDER/poses.yaml      per image {pos_m, quat_wxyz} of the flange in the world; with the board on the table, of
                       the board; there the file may be missing, then board_pos_m and board_quat_wxyz hold
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from dexgrasp.perception.calibration.board_layout import BoardCfg, BoardLayoutError, find_dictionary, opencv_board
from dexgrasp.perception.calibration.charuco import BoardDetection, draw_board, find_board
from dexgrasp.perception.calibration.contradictions import LimitsCfg
from dexgrasp.perception.calibration.hand_eye import BadCalibrationError, Mounted, calibrate
from dexgrasp.perception.cameras.depth import Intrinsics
from dexgrasp.perception.cameras.extrinsics import CameraPose, pose_from_dict, pose_matrix
from dexgrasp.perception.cameras.numbers import CARRIER
from dexgrasp.perception.cameras.open import read_intrinsics
from dexgrasp.perception.cameras.realsense import RealSense, RealSenseCfg
from dexgrasp.policies.run_directory import Run, log
from dexgrasp.utils.bounds import Bounds, bounded
from dexgrasp.utils.files import atomic_path, write_json
from dexgrasp.utils.readers import read_yaml
from dexgrasp.utils.text import comma_separated, shown

M_PER_INCH = 0.0254
POSES = "poses.yaml"
DICTIONARY_IMAGES = 2
"""Number of images in which markers of other dictionaries are looked for."""
LARGEST_PRINT = 400_000_000
"""Dots of the largest print that is drawn."""


@dataclass(frozen=True)
@bounded
class PrintBoardCfg:
    """Draw the calibration board to print."""

    dpi: Annotated[int, Bounds(30, 4800)] = 300
    """Resolution of the print [dots per inch]; print without scaling, then measure a square."""
    out: str = ""
    """Run directory; empty = a new one under runs/."""
    board: BoardCfg = field(default_factory=BoardCfg)
    """Dimensions of the board."""

    def __post_init__(self) -> None:
        dots = self.board.columns * self.board.rows * (self.board.square_m / M_PER_INCH * self.dpi) ** 2
        if dots > LARGEST_PRINT:
            raise ValueError(
                f"a board of {self.board.columns} by {self.board.rows} squares of {self.board.square_m} m at "
                f"dpi={self.dpi} has {dots:.1e} dots, at most {LARGEST_PRINT:.1e} are drawn: reduce dpi"
            )


@dataclass(frozen=True)
@bounded
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
    board_pos_m: Annotated[tuple[float, float, float], Bounds(-10, 10)] = (0.0, 0.0, 0.0)
    """Position of the print's top left corner in the world [m], for a board on the table without poses.yaml."""
    board_quat_wxyz: Annotated[tuple[float, float, float, float], Bounds(-1, 1)] = (0.0, 1.0, 0.0, 0.0)
    """Orientation of the board: x right on the print, z into it; by default the print's right is the world's x."""
    views: Annotated[int, Bounds(1, 1000)] = 20
    """Number of images taken from a camera; all images of a folder are used."""
    out: str = ""
    """Run directory; empty = a new one under runs/."""
    stated_sd: Annotated[float, Bounds(1e-6, 1)] = 0.1
    """Relative standard deviation of the stated focal length and square size; the images must tell the rest."""
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
        if live:
            images, camera, serial, between = _photograph(cfg)
        else:
            images, camera = _read_images(Path(cfg.source))
            serial, between = cfg.serial, None
        views = _find(cfg.board, images, camera)
        carriers = _carriers(cfg, views, Path(cfg.source) / POSES)
        result = calibrate(views, carriers, cfg.board, camera, cfg.mounted, limits=cfg.limits, stated_sd=cfg.stated_sd)
        for note in result.notes:
            log.warning("within the limits: %s", note)
        summary = result.summary()
        table = zip(result.names, result.reprojection_px, result.position_m, result.rotation_rad, strict=True)
        rows = [dict(zip(("view", "reprojection_px", "position_m", "rotation_rad"), row, strict=True)) for row in table]
        write_json(run.file("residuals.json"), {"summary": summary, "views": rows, "T_world_cam": result.T_world_cam})
        path = run.file("camera.yaml")  # last: whoever reads it finds its residuals
        CameraPose(
            T_world_cam=result.T_world_cam,
            stream=cfg.stream,
            serial=serial,
            residuals=summary,
            T_color_depth=between,
        ).save(path)
        for key, value in summary.items():
            print(f"{key:24s} {value:g}" + (" (95 %)" if key.startswith("uncertainty") else ""))
        print(f"camera: {path}")


def _read_images(folder: Path) -> tuple[dict[str, NDArray[np.uint8]], Intrinsics]:
    camera = read_intrinsics(folder / "camera.json")
    files = sorted(file for file in folder.iterdir() if file.suffix.lower() in (".png", ".jpg", ".jpeg"))
    if not files:
        raise FileNotFoundError(f"{folder} holds no .png or .jpg image of the board")
    images = {}
    for file in files:
        try:
            images[file.name] = _read_gray(file)
        except Exception as error:  # whatever Pillow raises for a damaged file: the others count
            log.warning("left out: %s cannot be read as an image: %s", file.name, error)
    if not images:
        raise BadCalibrationError(f"{folder}: none of the {len(files)} images can be read; take them again")
    return images, camera


def _read_gray(file: Path) -> NDArray[np.uint8]:
    with Image.open(file) as image:
        if not image.mode.startswith(("I", "F")):
            return np.asarray(image.convert("L"))
        values = np.asarray(image).astype(np.float64)  # 16 bit infrared images; Pillow would clip them
        return np.rint(255 * values / max(float(values.max()), 1.0)).astype(np.uint8)


def _photograph(
    cfg: CalibrateCameraCfg,
) -> tuple[dict[str, NDArray[np.uint8]], Intrinsics, str, NDArray[np.float64] | None]:
    """Return colour images of a camera, its colour intrinsics, serial number and T_color_depth."""
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
        return images, frame.intrinsics, source.serial, source.T_color_depth


def _find(board: BoardCfg, images: dict[str, NDArray[np.uint8]], camera: Intrinsics) -> list[BoardDetection]:
    opencv_board(board)  # a board that cannot be made is no fault of the images
    views, errors = [], []
    for name, image in images.items():
        try:
            views.append(find_board(board, image, camera, name))
        except ValueError as error:
            errors.append(error)
    if views:
        for error in errors:
            log.warning("left out: %s", error)
        return views
    other = next((str(error) for error in errors if isinstance(error, BoardLayoutError)), "")
    other = other or find_dictionary(list(images.values())[:DICTIONARY_IMAGES], board.dictionary)
    raise BadCalibrationError(f"the board is in none of {len(images)} images: {other or errors[0]}")


def _carriers(cfg: CalibrateCameraCfg, views: list[BoardDetection], path: Path) -> NDArray[np.float64]:
    """Return the poses (view, 4, 4) of the flange or of the board in the world."""
    if not path.is_file():
        if cfg.mounted == "flange":
            raise FileNotFoundError(f"{path} is missing: the pose of the flange in the world for each image")
        return np.stack([pose_matrix(cfg.board_pos_m, cfg.board_quat_wxyz, "board")] * len(views))
    poses = read_yaml(path)
    if not isinstance(poses, dict):
        raise ValueError(f"{path} must name each image with its pose (NAME: {{pos_m, quat_wxyz}}), got {shown(poses)}")
    if other := [name for name in poses if not (path.parent / str(name)).is_file()]:
        log.warning("left out: %s has poses of images that are not in the folder: %s", path, comma_separated(other))
    missing = [view.name for view in views if view.name not in poses]
    if missing:
        raise ValueError(f"{path} has no pose of {', '.join(missing)}")
    return np.stack([pose_from_dict(poses[view.name], f"{path}: {view.name}", CARRIER) for view in views])
