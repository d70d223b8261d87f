"""Access to object libraries by name, number or folder."""

import re
from pathlib import Path

from dexgrasp import assets
from dexgrasp.sim.objects.library import MANIFEST, ObjectLibrary
from dexgrasp.utils.files import expand_user
from dexgrasp.utils.readers import DamagedFileError, read_json_object
from dexgrasp.utils.text import did_you_mean

GENERATED = re.compile(r"generated:(\d+)(?::(train|validation|test))?")
RANDOM_URDFS = re.compile(r"random_urdfs(?::(\d+))?")

MOST = 1_000_000
"""Largest number of objects that a name may ask for."""


def open_library(spec: str | Path) -> ObjectLibrary:
    """Return the object library named by `spec`.

    "shipped"; "generated:N": N training objects, built when they are used and cached, "generated:N:validation" or
    ":test" for another split; "random_urdfs": the 1,000 objects of PyBullet, "random_urdfs:N" the first N; a library
    folder; or a folder of meshes, imported into the cache on first use.
    """
    check_spec(spec)
    if str(spec) == "shipped":
        return ObjectLibrary(assets.path("objects"))
    if made := GENERATED.fullmatch(str(spec)):
        from dexgrasp.sim.objects.generated_library import cached_library

        return cached_library(int(made[1]), split=made[2] or "train")
    if public := RANDOM_URDFS.fullmatch(str(spec)):
        from dexgrasp.sim.objects import random_urdfs

        return random_urdfs.cached_library(int(public[1] or random_urdfs.COUNT))
    path = expand_user(spec)
    if (path / MANIFEST).is_file() and _is_library(path / MANIFEST):
        return ObjectLibrary(path)
    from dexgrasp.sim.objects.importer import RECORDS, import_to_cache

    try:
        return import_to_cache(path)
    except FileNotFoundError:
        if (path / RECORDS).is_dir():
            raise FileNotFoundError(
                f"{path} holds an unfinished import: give its `objects import` command again, which goes on from there"
            ) from None
        raise


def check_spec(spec: str | Path, key: str = "objects") -> None:
    """Raise FileNotFoundError if `spec` names no library; nothing is opened, generated or imported.

    `key`: the option in the message.
    """
    text = str(spec)
    if not text:
        raise ValueError(f"{key} is empty: give shipped, generated:N, random_urdfs, a library or a folder of meshes")
    if (made := GENERATED.fullmatch(text) or RANDOM_URDFS.fullmatch(text)) and not 1 <= int(made[1] or 1) <= MOST:
        raise ValueError(f"{key}: '{text[:60]}': the number of objects must lie in 1..{MOST}")
    if text == "shipped" or GENERATED.fullmatch(text) or RANDOM_URDFS.fullmatch(text):
        return
    if not expand_user(text).is_dir():
        raise FileNotFoundError(
            f"{key}: '{spec}' is neither a known name nor a folder.{_suggestion(text)} "
            f"Expected 'shipped', 'generated:N' (N training objects; 'generated:N:validation', 'generated:N:test'), "
            f"'random_urdfs' (PyBullet's 1,000), a library folder (with {MANIFEST}) or a folder of OBJ, STL, PLY or "
            "GLB meshes"
        )


def _suggestion(spec: str) -> str:
    """Return " Did you mean ...?" with the number of objects that was given, or nothing."""
    number = ":".join(re.findall(r"\d+", spec)[:1])
    names = ["shipped", "random_urdfs"]
    if number:
        names += [f"random_urdfs:{number}"] + [f"generated:{number}{part}" for part in ("", ":validation", ":test")]
    return did_you_mean(spec, names)


def _is_library(manifest: Path) -> bool:
    """Return whether a manifest.json is that of a library; one that cannot be read is, where objects lie beside it."""
    try:
        return "format" in read_json_object(manifest)
    except DamagedFileError:
        return (manifest.parent / "objects").is_dir()
