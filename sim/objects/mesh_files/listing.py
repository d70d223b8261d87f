"""Search of a folder for mesh files, and names of things in the layouts of public object sets."""

import fnmatch
import os
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from dexgrasp.sim.objects.mesh_files.reader import SUFFIXES
from dexgrasp.utils.text import comma_separated, counted, did_you_mean

OTHER_SUFFIXES = frozenset(
    f".{word}"
    for word in (
        *("3ds", "3mf", "abc", "amf", "blend", "ctm", "dae", "dxf", "fbx", "gltf", "gz", "iges", "igs", "lwo", "msh"),
        *("off", "pcd", "step", "stp", "usd", "usda", "usdc", "usdz", "vtk", "vtp", "wrl", "x3d", "xyz", "zip"),
    )
)
"""Endings of files that may hold meshes and are not read."""
MAX_FILE_BYTES = 2**29
"""Largest mesh file."""

_VARIANT = (
    r"(google_?\d+k|\d+k|poisson|tsdf|visuals?|collisions?|(non_?)?textured(_\w+)?|textures?|high|low|lod_?\d+|coarse|"
    r"fine|simplified|decimated|watertight|original|raw|mesh(es)?|models?|model_normalized)"
)
_ROUGH = re.compile(r"(^|[/._-])(collisions?|coarse|decimated|low|poisson|simplified|tsdf)(?=[/._-]|$)", re.I)
_WHOLE, _END = re.compile(_VARIANT, re.I), re.compile(rf"[._-]{_VARIANT}$", re.I)


@dataclass(frozen=True)
class MeshListing:
    """Files of a folder."""

    folder: Path
    meshes: list[Path]
    """Mesh files, sorted."""
    refused: dict[str, str] = field(default_factory=dict)
    """Name of a file, or ending of several, that cannot be read -> reason."""
    not_selected: int = 0
    """Mesh files that the patterns leave out."""


def find_meshes(folder: Path, include: Sequence[str] = (), exclude: Sequence[str] = ()) -> MeshListing:
    """Return the mesh files under a folder, nested or not; links to folders are not followed.

    `include`, `exclude`: patterns with * and ? for the path relative to the folder; * also matches "/", and a path
    matches itself whatever its letters. Raises FileNotFoundError where no mesh file remains, ValueError for a pattern
    that fits no file.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f"no folder of meshes at {folder}")
    meshes: list[Path] = []
    refused: dict[str, str] = {}
    others: Counter[str] = Counter()
    not_selected = 0
    paths = sorted(_files(folder), key=os.fsencode)
    _refuse_idle_patterns(folder, paths, include, exclude)
    for path in paths:
        suffix, name = path.suffix.lower(), shown_name(path, folder)
        if not _is_selected(name, include, exclude):
            not_selected += suffix in SUFFIXES
        elif suffix in OTHER_SUFFIXES:
            others[suffix] += 1
        elif suffix in SUFFIXES:
            reason = _refusal(path)
            if reason:
                refused[name] = reason
            else:
                meshes.append(path)
    for suffix, count in sorted(others.items()):
        remedy = "unpack them" if suffix in (".gz", ".zip") else "convert them to OBJ, STL, PLY or GLB"
        refused[f"*{suffix}"] = f"{counted(count, 'file')} of a format that is not read: {remedy}"
    if not meshes:
        reasons = "".join(f"; {name}: {reason}" for name, reason in list(refused.items())[:3])
        left = f"; include/exclude leave out {not_selected}" if not_selected else ""
        raise FileNotFoundError(
            f"{folder} holds no meshes; expected files ending in {', '.join(SUFFIXES)}, nested or not{left}{reasons}"
        )
    return MeshListing(folder=folder, meshes=meshes, refused=refused, not_selected=not_selected)


def shown_name(path: Path, folder: Path) -> str:
    """Return the path relative to the folder as text that can be printed and stored."""
    return os.fsencode(path.relative_to(folder)).decode("utf-8", "backslashreplace")


def thing_of(name: str) -> str:
    """Return the relative path of a mesh without its ending and words for kinds and qualities of files.

    "002_can/google_16k/textured.obj" and "002_can/tsdf/nontextured.ply" give "002_can".
    """
    path = Path(name)
    parts = [part for part in (*path.parts[:-1], path.stem) if not _WHOLE.fullmatch(part)]
    return "/".join(_END.sub("", part) for part in parts)


def is_rough(name: str) -> bool:
    """Return whether the path of a mesh names a rough copy of a thing, by words like "collision" or "low"."""
    return bool(_ROUGH.search(name))


def _files(folder: Path) -> Iterator[Path]:
    for place, _, names in os.walk(folder):  # as text: a name need not be UTF-8
        yield from (Path(place) / name for name in names)


def _is_selected(name: str, include: Sequence[str], exclude: Sequence[str]) -> bool:
    def matches(patterns: Sequence[str]) -> bool:
        return any(_matches(name, pattern) for pattern in patterns)

    return (not include or matches(include)) and not matches(exclude)


def _matches(name: str, pattern: str) -> bool:
    return name == pattern or fnmatch.fnmatchcase(name, pattern)


def _refuse_idle_patterns(folder: Path, paths: Sequence[Path], include: Sequence[str], exclude: Sequence[str]) -> None:
    """Raise ValueError for a pattern that fits no file: as a typing error it would take or leave all files unseen."""
    if not include and not exclude:
        return
    names = [shown_name(path, folder) for path in paths if path.suffix.lower() in (*SUFFIXES, *OTHER_SUFFIXES)]
    for key, patterns in (("include", include), ("exclude", exclude)):
        for pattern in patterns:
            if names and not any(_matches(name, pattern) for name in names):
                hint = did_you_mean(pattern, names) or f" There are {comma_separated(names[:3])}"
                raise ValueError(
                    f"{key}: no mesh file under {folder} fits '{pattern}'; patterns are of paths relative to it, with "
                    f"* and ? (? also for a comma).{hint}"
                )


def pattern_of(name: str) -> str:
    """Return a pattern for one path that can be given as an option."""
    return re.sub(r"[^A-Za-z0-9_./+-]", "?", name)


def _refusal(path: Path) -> str:
    """Return the reason for which a file is not opened, or nothing."""
    try:
        size = path.stat().st_size
    except OSError as error:
        return f"unreadable: {error.strerror}"
    if not path.is_file():  # opening a pipe would wait for ever
        return "unreadable: not a regular file"
    if size > MAX_FILE_BYTES:
        return f"too large: {size / 2**20:.0f} MiB, at most {MAX_FILE_BYTES / 2**20:.0f} MiB: simplify the mesh"
    if not os.access(path, os.R_OK):
        return "unreadable: no permission to read it"
    return ""
