"""Access to object libraries by name, number or folder."""

import json
import re
from pathlib import Path

from dexgrasp import assets
from dexgrasp.sim.objects.library import MANIFEST, ObjectLibrary
from dexgrasp.utils.text import did_you_mean


def open_library(spec: str | Path) -> ObjectLibrary:
    """Return the object library named by `spec`.

    "shipped"; "generated:N": N training objects, generated on first use and cached, "generated:N:validation" or ":test"
    for another split; "random_urdfs": the 1,000 objects of PyBullet, "random_urdfs:N" the first N;
    a library folder; or a folder of meshes, imported into the cache on first use.
    """
    if str(spec) == "shipped":
        return ObjectLibrary(assets.path("objects"))
    if made := re.fullmatch(r"generated:(\d+)(?::(train|validation|test))?", str(spec)):
        from dexgrasp.sim.objects.generator import cached_library

        return cached_library(int(made[1]), split=made[2] or "train")
    if public := re.fullmatch(r"random_urdfs(?::(\d+))?", str(spec)):
        from dexgrasp.sim.objects import random_urdfs

        return random_urdfs.cached_library(int(public[1] or random_urdfs.COUNT))
    path = Path(spec).expanduser()
    if (path / MANIFEST).is_file() and _is_library(path / MANIFEST):
        return ObjectLibrary(path)
    if not path.is_dir():
        raise FileNotFoundError(
            f"objects: '{spec}' is neither a known name nor a folder.{_suggestion(str(spec))} Expected 'shipped', "
            f"'generated:N' (N training objects), 'generated:N:validation', 'generated:N:test', 'random_urdfs' "
            f"(PyBullet's 1,000), a library folder (with {MANIFEST}) or a folder of OBJ, STL, PLY or GLB meshes"
        )
    from dexgrasp.sim.objects.importer import import_to_cache

    return import_to_cache(path)


def _suggestion(spec: str) -> str:
    """Return " Did you mean ...?" with the number of objects that was given, or nothing."""
    number = ":".join(re.findall(r"\d+", spec)[:1])
    names = ["shipped", "random_urdfs"]
    if number:
        names += [f"random_urdfs:{number}"] + [f"generated:{number}{part}" for part in ("", ":validation", ":test")]
    return did_you_mean(spec, names)


def _is_library(manifest: Path) -> bool:
    try:
        return "format" in json.loads(manifest.read_text())
    except json.JSONDecodeError:
        return False
