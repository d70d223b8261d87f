"""Sources of depth frames: a camera, a recording of a camera, or a folder of images.

FOLDER/camera.json      {"width": 640, "height": 480, "fx": ..., "fy": ..., "cx": ..., "cy": ...,
                         "depth_unit_m": 0.001, "rate_hz": 30}; may hold distortion, coeffs, T_world_cam, and
                        "stream": "color" where depth is aligned to the colour camera
FOLDER/000000.png       16 bit depth in units of depth_unit_m; or .npy: uint16 as in a PNG, or float metres
FOLDER/depth/000000.png with FOLDER/color/000000.png, where each depth image has a colour image of one name
"""

import json
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from dexgrasp.perception.cameras.depth import (
    CameraError,
    DepthFrame,
    DepthSource,
    EndOfFramesError,
    Intrinsics,
    Stream,
    check_stream,
)
from dexgrasp.perception.cameras.extrinsics import CameraPose, pose_from_dict, pose_to_dict
from dexgrasp.perception.cameras.numbers import DEPTH_UNIT, FRAME_RATE, check_depth
from dexgrasp.perception.cameras.realsense import RealSense, RealSenseCfg
from dexgrasp.utils.readers import DamagedFileError, read_json_object
from dexgrasp.utils.text import counted, shown

CAMERA_FILE = "camera.json"
DEPTH_UNIT_M = 0.001
"""Default depth unit of RealSense cameras and ROS: millimetres."""
RECORDINGS = (".db3", ".bag")


def open_camera(spec: str, pose: CameraPose | None = None, cfg: RealSenseCfg | None = None) -> DepthSource:
    """Open `realsense`, `realsense:SERIAL`, a recording (.db3, .bag) or a folder of frames.

    `pose` is the camera pose; without it, frames of a camera have none, and a folder may define its own.
    """
    word, _, serial = spec.partition(":")
    if word == "realsense":
        return RealSense.open(cfg or RealSenseCfg(), pose, serial)
    check_source(spec)
    path = Path(spec)
    if path.suffix in RECORDINGS:
        return RealSense.play(path, cfg or RealSenseCfg(), pose)
    return FrameFolder(path, pose)


def check_source(spec: str) -> None:
    """Raise FileNotFoundError where a source of frames is neither a camera nor a recording nor a folder."""
    path = Path(spec)
    if spec.partition(":")[0] == "realsense" or (path.suffix not in RECORDINGS and path.is_dir()):
        return
    if path.suffix not in RECORDINGS:
        raise FileNotFoundError(
            f"no source of frames '{spec}'; known: realsense, realsense:SERIAL, a recording "
            f"({', '.join(RECORDINGS)}), a folder with {CAMERA_FILE} and .png or .npy images"
        )
    if not path.is_file():
        raise FileNotFoundError(f"no recording '{path}'")


def demand_camera_file(path: Path) -> None:
    """Raise FileNotFoundError where a camera.json does not exist."""
    if not path.exists():
        raise FileNotFoundError(f"{path} is missing: it holds width, height, fx, fy, cx, cy of the camera")


class FrameFolder(DepthSource):
    """A folder of depth images in the order of their names."""

    def __init__(self, path: str | Path, pose: CameraPose | None = None) -> None:
        self.path = Path(path)
        self._intrinsics, settings = _read_camera(self.path / CAMERA_FILE)
        self._unit_m, self._rate_hz = settings["depth_unit_m"], settings["rate_hz"]
        self._stream: Stream = settings["stream"]
        self._T_world_cam = settings["T_world_cam"]
        if pose is not None:
            try:
                self._T_world_cam = pose.of_stream(self._stream)
            except ValueError as error:
                advice = f"{CAMERA_FILE} states the stream of its images"
                raise CameraError(f"{self.path}: {error}; {advice}: {self._stream}") from error
        depth, color = self.path / "depth", self.path / "color"
        folder = depth if depth.is_dir() else self.path
        self._files = sorted(file for file in folder.iterdir() if file.suffix in (".png", ".npy"))
        self._next = 0
        if not self._files:
            raise FileNotFoundError(f"{folder} holds no .png or .npy image")
        self._color_files = _color_files(self._files, color) if color.is_dir() else {}

    def __len__(self) -> int:
        return len(self._files)

    def read(self, timeout_s: float = 1.0) -> DepthFrame:
        """Return the next image.

        Raises EndOfFramesError after the last one, CameraError for a file that is not a depth image.
        """
        if self._next == len(self._files):
            raise EndOfFramesError(f"{self.path} has no more than {len(self._files)} frames")
        file, stamp_s = self._files[self._next], self._next / self._rate_hz
        self._next += 1
        return DepthFrame(
            depth_m=self._metres(file),
            intrinsics=self._intrinsics,
            stamp_s=stamp_s,
            T_world_cam=self._T_world_cam,
            stream=self._stream,
            color=_read_color(self._color_files[file]) if self._color_files else None,
        )

    def close(self) -> None:
        """Do nothing: no file stays open."""

    def _metres(self, file: Path) -> NDArray[np.float32]:
        image = _read_image(file)
        expected = (self._intrinsics.height, self._intrinsics.width)
        if image.shape != expected:
            raise CameraError(f"{file}: {image.shape} pixels, but {CAMERA_FILE} says {expected}")
        if image.dtype == np.uint16:
            depth_m = np.multiply(image, self._unit_m, dtype=np.float32)
        elif np.issubdtype(image.dtype, np.floating):
            depth_m = np.where(np.isfinite(image) & (image > 0), image, 0.0).astype(np.float32)
        else:
            raise CameraError(f"{file}: expected 16 bit depth or metres as floats, got {image.dtype}")
        try:
            check_depth(depth_m, str(file))
        except ValueError as error:
            raise CameraError(str(error)) from error
        return depth_m


def _color_files(depth_files: list[Path], folder: Path) -> dict[Path, Path]:
    """Return the colour image of each depth image. Raises CameraError unless their names are equal."""
    names = {file.stem: file for file in folder.iterdir() if file.suffix.lower() in (".png", ".jpg", ".jpeg")}
    depths = {file.stem for file in depth_files}
    if alone := sorted(depths ^ set(names)):
        said = f"{counted(len(alone), 'name')} without a partner, the first {shown(alone[0])}"
        raise CameraError(
            f"{folder.parent}: depth/ and color/ must hold images of equal names, got {len(depths)} and {len(names)}, "
            f"{said}: record depth and colour together"
        )
    return {file: names[file.stem] for file in depth_files}


def _read_color(file: Path) -> NDArray[np.uint8]:
    try:
        with Image.open(file) as image:
            return np.asarray(image.convert("RGB"))
    except (OSError, ValueError, EOFError, SyntaxError) as error:
        raise CameraError(f"{file} cannot be read: {error}") from error


def save_folder(path: str | Path, images: list[DepthFrame], rate_hz: float = 30.0) -> None:
    """Write frames of one camera as 16 bit PNG (millimetres) and camera.json, in FrameFolder's format."""
    path = Path(path)
    path.mkdir(parents=True, exist_ok=True)
    camera: dict[str, Any] = {**asdict(images[0].intrinsics), "depth_unit_m": DEPTH_UNIT_M, "rate_hz": rate_hz}
    camera["stream"] = images[0].stream
    if images[0].T_world_cam is not None:
        camera["T_world_cam"] = pose_to_dict(images[0].T_world_cam)
    (path / CAMERA_FILE).write_text(json.dumps(camera, indent=1), encoding="utf-8")
    for number, frame in enumerate(images):
        units = np.clip(np.rint(frame.depth_m / DEPTH_UNIT_M), 0, np.iinfo(np.uint16).max)
        Image.fromarray(units.astype(np.uint16)).save(path / f"{number:06d}.png")


def read_intrinsics(path: Path) -> Intrinsics:
    """Return the camera of a camera.json file."""
    return _read_camera(path)[0]


def _read_camera(path: Path) -> tuple[Intrinsics, dict[str, Any]]:
    """Return intrinsics and the other settings; unknown keys are errors."""
    demand_camera_file(path)
    try:
        values = read_json_object(path)
    except DamagedFileError as error:
        raise CameraError(str(error)) from error
    names = {item.name for item in fields(Intrinsics)}
    others = {"depth_unit_m", "rate_hz", "T_world_cam", "stream"}
    missing = {"width", "height", "fx", "fy", "cx", "cy"} - set(values)
    unknown = set(values) - names - others
    if missing or unknown:
        known = ", ".join(sorted(names | others))
        raise CameraError(f"{path}: missing {sorted(missing)}, unknown {sorted(unknown)}; known keys: {known}")
    defaults = {"depth_unit_m": DEPTH_UNIT_M, "rate_hz": 30.0, "T_world_cam": None, "stream": "depth"}
    settings = defaults | {key: values[key] for key in others & set(values)}
    given: dict[str, Any] = {key: values[key] for key in names & set(values)}
    try:
        for key, quantity in (("depth_unit_m", DEPTH_UNIT), ("rate_hz", FRAME_RATE)):
            settings[key] = quantity.read(settings[key], key)
        check_stream(settings["stream"], "stream")
        if (own := settings["T_world_cam"]) is not None:
            settings["T_world_cam"] = pose_from_dict(own, "T_world_cam")
        if isinstance(given.setdefault("coeffs", (0.0,) * 5), list):
            given["coeffs"] = tuple(given["coeffs"])
        return Intrinsics(**given), settings
    except (TypeError, ValueError) as error:
        raise CameraError(f"{path}: {error}") from error


def _read_image(file: Path) -> NDArray[Any]:
    try:
        if file.suffix == ".npy":
            return np.load(file, allow_pickle=False)
        with Image.open(file) as image:
            return np.asarray(image)
    except (OSError, ValueError, EOFError, SyntaxError) as error:  # Pillow raises SyntaxError for a broken PNG
        raise CameraError(f"{file} cannot be read: {error}") from error
