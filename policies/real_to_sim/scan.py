"""`dexgrasp objects scan`: frames of a depth camera to an object of a library.

LIB/scans/NAME.ply    the closed mesh with colours [m], as it stood on the table
LIB/scans/NAME.png    photographs beside the mesh from the same places
LIB/scans/NAME.json   frames that were used and left out, scale, residuals, holes, what was not seen
"""

import contextlib
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from PIL import Image

from dexgrasp.perception.calibration.board_layout import BoardCfg, opencv_board
from dexgrasp.perception.cameras.open import open_camera
from dexgrasp.perception.cameras.realsense import RealSenseCfg
from dexgrasp.perception.scanning.board_poses import poses_from_board
from dexgrasp.perception.scanning.frames import ScanError, ScanFrame, read_frames
from dexgrasp.perception.scanning.fusion import ply_bytes
from dexgrasp.perception.scanning.odometry import poses_from_odometry
from dexgrasp.perception.scanning.open3d_import import open3d
from dexgrasp.perception.scanning.recording import RecordedSource, demand_empty
from dexgrasp.perception.scanning.scan import (
    FusionCfg,
    ScannedMesh,
    cast_depth,
    join_passes,
    scan_pass,
)
from dexgrasp.policies.real_to_sim.scan_watch import LOOK_S, LiveWatch, ScanWatch
from dexgrasp.sim.objects.import_settings import ImportSettings
from dexgrasp.sim.objects.importer import add_mesh
from dexgrasp.sim.objects.library import MANIFEST, ObjectEntry
from dexgrasp.utils.bounds import Bounds, bounded
from dexgrasp.utils.files import LOCK, PARTIAL, atomic_path, expand_user, write_bytes, write_json
from dexgrasp.utils.output import FolderKind, claimed_folder, png_with_mark
from dexgrasp.utils.readers import read_json_object
from dexgrasp.utils.text import counted, safe_name

SCANS = "scans"
VIEWS = 3
"""Photographs in the picture of a scan."""
CAMERA = RealSenseCfg(color=True, align_to_color=True)


@dataclass(frozen=True)
@bounded
class ScanCfg:
    """Scan a thing with a depth camera and add it to a library of objects."""

    sources: tuple[str, ...]
    """realsense, realsense:SERIAL, recordings (.db3, .bag) or folders with camera.json, color/ and depth/: one per
    pass, between which the thing is turned over."""
    out: str
    """Folder of the library; a new one, or one of scans, to which the thing is added."""
    name: str = ""
    """Name of the object; empty = that of the first source."""
    poses: Literal["board", "odometry"] = "board"
    """Where the camera is: by the ChArUco board on which the thing stands, or by RGB-D odometry without a board."""
    mass: Annotated[float | None, Bounds(0.0001, 100)] = None
    """Mass of the thing [kg]; without it by density."""
    density: Annotated[float, Bounds(1, 30_000)] = 600.0
    """Density [kg/m^3] where no mass is given; the mass is clipped to 0.03..0.5 kg."""
    frames: Annotated[int, Bounds(12, 1000)] = 100
    """Largest number of frames that are used, evenly spread over the recording."""
    seconds: Annotated[float, Bounds(1, 3600)] = 45.0
    """Length of a pass with a live camera."""
    record: str = ""
    """New folder in which the frames of a live camera are kept, one folder per pass, to scan from them again."""
    preview: bool = False
    """Show in a browser what was seen of the thing, and which sides are missing."""
    port: Annotated[int, Bounds(0, 65_535)] = 8080
    """Port of the preview; 0 = any free one."""
    board: BoardCfg = field(default_factory=BoardCfg)
    """Dimensions of the board, as `calibrate board` drew it; one of 11 by 7 squares leaves more of it visible."""
    fusion: FusionCfg = field(default_factory=FusionCfg)
    """Settings of the fusion."""

    def __post_init__(self) -> None:
        if not self.sources:
            raise ValueError("sources: give a camera, a recording or a folder of frames")
        if self.record and not any(_is_live(source) for source in self.sources):
            raise ValueError("record: keeps the frames of a live camera, and no source is one: leave it out")
        stored = [Path(source).resolve() for source in self.sources if not _is_live(source)]
        if twice := [str(path) for path in dict.fromkeys(stored) if stored.count(path) > 1]:
            raise ValueError(f"sources: {twice[0]} is given twice: give each pass, with the thing turned over, once")
        safe_name(self.object_name, "name")

    @property
    def object_name(self) -> str:
        """Return the name of the object: letters, digits, - and _."""
        return self.name or "".join(c if c.isalnum() or c in "-_" else "_" for c in Path(self.sources[0]).stem)


def _is_scans(folder: Path) -> bool:
    if not (folder / MANIFEST).is_file():
        names = {entry.name for entry in folder.iterdir() if not entry.name.startswith(PARTIAL)}
        return LOCK in names and names <= {LOCK, SCANS, "objects"}
    try:
        return "scans" in read_json_object(folder / MANIFEST)["request"]
    except (ValueError, TypeError, KeyError):
        return False


SCANNED = FolderKind("library of scanned objects", _is_scans)


def scan(cfg: ScanCfg) -> None:
    """Scan the thing and add it to the library; print what was seen, its size and its mass."""
    for folder in _recordings(cfg).values():
        demand_empty(folder)  # also that of the last pass before the first one
    with claimed_folder(cfg.out, SCANNED) as out:  # refused before minutes of work; empty again where the scan fails
        open3d()  # before minutes of work
        known = read_json_object(out / MANIFEST)["request"]["scans"] if (out / MANIFEST).is_file() else {}
        if cfg.object_name in known:
            raise ValueError(f"out={out} holds a scan '{cfg.object_name}' already: choose another name=")
        if cfg.poses == "board":
            opencv_board(cfg.board)  # a board that cannot be made is no fault of the frames
        with ScanWatch(preview=cfg.preview, port=cfg.port) as watch:
            scanned = _scanned_mesh(cfg, watch)
        entry = _add(cfg, out, scanned, known)
    print(_summary(scanned, entry, cfg, out))


def _scanned_mesh(cfg: ScanCfg, watch: ScanWatch) -> ScannedMesh:
    passes = []
    for number in range(1, len(cfg.sources) + 1):
        try:
            passes.append(_scan_source(number, cfg, watch))
        except ScanError as error:
            where = f"pass {number} ({cfg.sources[number - 1]}): " if len(cfg.sources) > 1 else ""
            raise ScanError(f"{where}{error}") from error
    return join_passes(passes, cfg.fusion)


def _scan_source(number: int, cfg: ScanCfg, watch: ScanWatch) -> ScannedMesh:
    spec, what = cfg.sources[number - 1], f"pass {number}"
    if _is_live(spec):
        frames = _live_frames(number, cfg, watch)
    else:
        with open_camera(spec, cfg=CAMERA) as source:
            frames = read_frames(source, cfg.frames)
    with watch.begin(what, len(frames)):
        if cfg.poses == "board":
            posed = poses_from_board(frames, cfg.board, watch.frame)
        else:
            posed = poses_from_odometry(frames, watch.frame)
    return scan_pass(posed, cfg.fusion)


def _live_frames(number: int, cfg: ScanCfg, watch: ScanWatch) -> list[ScanFrame]:
    if number > 1:
        try:
            input(f"turn the thing over for pass {number}, then press Enter: ")
        except EOFError as error:
            raise ScanError("a further pass of a live camera needs a terminal, to say when the thing lies") from error
    with contextlib.ExitStack() as stack:
        source = stack.enter_context(open_camera(cfg.sources[number - 1], cfg=CAMERA))
        if folder := _recordings(cfg).get(number):
            source = RecordedSource(source, folder)
        stack.enter_context(watch.begin(f"pass {number}, live", round(cfg.seconds / LOOK_S)))
        look = LiveWatch(watch, cfg.board) if cfg.poses == "board" else lambda frame: None
        return read_frames(source, cfg.frames, cfg.seconds, look)


def _recordings(cfg: ScanCfg) -> dict[int, Path]:
    """Return the folders in which frames of live cameras are kept, by the number of the pass."""
    live = [number for number, source in enumerate(cfg.sources, start=1) if _is_live(source)]
    return {number: expand_user(cfg.record) / f"pass_{number}" for number in live} if cfg.record else {}


def _is_live(spec: str) -> bool:
    return spec.partition(":")[0] == "realsense"


def _add(cfg: ScanCfg, out: Path, scanned: ScannedMesh, known: dict[str, Any]) -> ObjectEntry:
    name = cfg.object_name
    settings = ImportSettings(scale=1.0, density=cfg.density)
    if cfg.mass is not None:
        settings = replace(settings, mass_min=cfg.mass, mass_max=cfg.mass)
    mesh = out / SCANS / f"{name}.ply"
    with atomic_path(mesh) as partial:
        write_bytes(partial, ply_bytes(scanned.surface))
    facts = _facts(scanned, cfg)
    command = f"dexgrasp objects scan {' '.join(cfg.sources)} out=LIB"
    try:
        entry = add_mesh(out, mesh, name, settings, scans={**known, name: facts}, command=command)
    except Exception:
        mesh.unlink()
        if not any(mesh.parent.iterdir()):
            mesh.parent.rmdir()
        raise
    write_bytes(mesh.with_suffix(".png"), png_with_mark(Image.fromarray(_picture(scanned))))
    write_json(mesh.with_suffix(".json"), {**facts, "left_out": scanned.left_out})
    return entry


def _facts(scanned: ScannedMesh, cfg: ScanCfg) -> dict[str, Any]:
    return {
        "sources": list(cfg.sources),
        "poses": cfg.poses,
        "frames": len(scanned.frames),
        "frames_left_out": len(scanned.left_out),
        "depth_scale": scanned.scale,
        "residual_m": scanned.residual_m,
        "holes": scanned.holes,
        "largest_gap_deg": scanned.largest_gap_deg,
        "unseen": scanned.unseen,
        "bottom": "closed flat on the table" if not scanned.registered else "seen where the passes show it",
        "passes": [
            {"misfit_m": one.misfit_m, "overlap": one.overlap, "T_first": one.T_fixed_moving.tolist()}
            for one in scanned.registered
        ],
        "mass": "given" if cfg.mass is not None else f"density {cfg.density:g} kg/m^3",
        "fusion": asdict(cfg.fusion),
    }


def _picture(scanned: ScannedMesh) -> np.ndarray:
    """Return photographs (rows, columns, 3) above the mesh, seen from the same places."""
    surface = scanned.surface
    scene, normals = surface.raycasting_scene(), surface.area_normals()
    normals /= np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-12)
    colors = surface.color[surface.faces].mean(1)
    columns = []
    for i in np.linspace(0, len(scanned.frames) - 1, VIEWS).astype(int):
        frame = scanned.frames[i]
        depth_m, face = cast_depth(scene, frame, 1)
        hit = np.isfinite(depth_m)
        drawn = np.full((*depth_m.shape, 3), 245.0)
        shade = 0.35 + 0.65 * np.abs(normals[face[hit]] @ frame.T_table_cam[:3, 2])
        drawn[hit] = 255 * np.clip(1.2 * colors[face[hit]] * shade[:, None], 0, 1)
        columns.append(np.concatenate([frame.color, drawn.astype(np.uint8)]))
    return np.concatenate(columns, axis=1)[::2, ::2]


def _summary(scanned: ScannedMesh, entry: ObjectEntry, cfg: ScanCfg, out: Path) -> str:
    sides = " x ".join(f"{1000 * side:.0f}" for side in sorted(entry.extents, reverse=True))
    used = f"{counted(len(scanned.frames), 'frame')} used, {len(scanned.left_out)} left out"
    scale = "" if cfg.poses == "odometry" else f", depth {100 * (scanned.scale - 1):+.1f} % of the board's (corrected)"
    return "\n".join(
        [
            f"{entry.name}: {sides} mm, {1000 * entry.mass:.0f} g "
            f"({'given' if cfg.mass is not None else 'by density'}), {entry.pieces} convex pieces, "
            f"{counted(entry.poses, 'resting pose')}, added to {out}",
            f"{used}, widest gap {scanned.largest_gap_deg:.0f} deg{scale}",
            f"measured points lie {1000 * scanned.residual_m:.1f} mm from the mesh (median), "
            f"{100 * scanned.holes:.0f} % of its pixels had no depth",
            *(
                f"pass {number} joined: {1000 * one.misfit_m:.2f} mm off, {100 * one.overlap:.0f} % of what it saw was "
                "seen before"
                for number, one in enumerate(scanned.registered, start=2)
            ),
            f"{100 * scanned.unseen:.0f} % of its surface was seen by no frame and is closed: "
            f"{'' if scanned.registered else 'the bottom flat on the table, '}hidden hollows filled",
            f"look at it: {out}/{SCANS}/{entry.name}.png, {entry.name}.ply; report in {entry.name}.json",
        ]
    )
