"""`dexgrasp list`: tables of the shipped policies, hands, arms, object libraries and camera modes."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from dexgrasp import assets, configs
from dexgrasp.utils.bounds import bounded
from dexgrasp.utils.files import cache_folder
from dexgrasp.utils.text import counted, print_table

OBSERVATIONS = {"teacher": "true state", "student": "camera"}
"""Words for what a policy observes."""

EXPLAINED = """\
camera: joints, palm pose, points of one depth camera
true state: contacts, forces, the whole object and its motion (simulation only)"""


@dataclass(frozen=True)
@bounded
class ListCfg:
    """List what is shipped, as a table."""

    what: Literal["all", "policies", "hands", "arms", "objects", "cameras"] = "all"
    """Table to print; cameras: the camera modes that `camera=` takes; all: every table."""


def list_assets(cfg: ListCfg) -> None:
    """Print the table, or all of them with the words that print one alone."""
    tables = {"policies": policies, "hands": hands, "arms": arms, "objects": objects, "cameras": cameras}
    for what, rows in tables.items():
        if cfg.what not in ("all", what):
            continue
        print_table(rows(), f"dexgrasp list {what}" if cfg.what == "all" else "")
        if note := notes(what):
            print(note)
        if cfg.what == "all" and what != "cameras":
            print()


def notes(what: str) -> str:
    """Return the lines below a table; empty without any."""
    if what == "policies":
        return EXPLAINED
    if what == "arms":
        return "mount= takes a folder, an arm.yaml, or the MJCF or URDF of another arm as well"
    if what == "objects" and (made := cached()):
        return f"made earlier, objects={cache_folder()}/NAME:\n" + "\n".join(made)
    return ""


def policies() -> list[Sequence[str]]:
    """Return the rows of the shipped policies, with the first measurement of their model cards."""
    rows: list[Sequence[str]] = [("policy", "hand", "observes", "success (95 % interval)", "trials", "objects")]
    for name in assets.policies():
        folder = assets.path(f"policies/{name}")
        measured = next(_measured(folder / "README.md"), {})
        found = [measured.get(column, "not measured") for column in ("success", "trials", "objects")]
        config = configs.read_plain(folder / "config.yaml")
        side = "" if config["side"] == "right" else f", {config['side']}"
        rows.append((name, f"{config['hand']}{side}", OBSERVATIONS[config["stage"]], *found))
    return rows


def hands() -> list[Sequence[str]]:
    """Return the rows of the hands."""
    rows: list[Sequence[str]] = [("hand", "motors", "joints", "sides", "source of its numbers")]
    for name in assets.names("hands"):
        hand = configs.read_plain(assets.path(f"hands/{name}") / "hand.yaml")
        other = "left" if hand["side"] == "right" else "right"
        joints = len(hand["joints"])
        motors, sides = joints - len(hand.get("coupled", {})), f"{hand['side']}, {other} (mirrored)"
        rows.append((name, str(motors), str(joints), sides, hand.get("source", "")))
    return rows


def arms() -> list[Sequence[str]]:
    """Return the rows of the arms, which `mount=` takes."""
    rows: list[Sequence[str]] = [("arm", "joints", "use", "source of its numbers")]
    for name in assets.names("arms"):
        arm = configs.read_plain(assets.path(f"arms/{name}") / "arm.yaml")
        rows.append((name, str(len(arm["joints"])), f"mount={name}", arm.get("source", "")))
    return rows


def objects() -> list[Sequence[str]]:
    """Return the rows of the object libraries: shipped, and made on first use."""
    rows: list[Sequence[str]] = [("objects=", "objects", "content")]
    rows.append(("shipped", str(_count(assets.path("objects"))), "one of each family and size class, test split"))
    rows += [
        ("generated:N", "N", "training objects, made on first use; :validation or :test behind it for other splits"),
        ("random_urdfs", "1000", "public objects of PyBullet, downloaded once; random_urdfs:N takes the first N"),
        ("DIR", "", "library folder, or a folder of OBJ, STL, PLY or GLB meshes, imported once"),
    ]
    return rows


def cached() -> list[str]:
    """Return a line with name and number of objects for each library in the cache."""
    libraries = [manifest.parent for manifest in sorted(cache_folder().glob("*/manifest.json"))]
    return [f"  {path.name}: {counted(_count(path), 'object')}" for path in libraries]


def cameras() -> list[Sequence[str]]:
    """Return the rows of the camera modes, with the first comment of their YAML files."""
    rows: list[Sequence[str]] = [("camera=", "mode", "content")]
    for name in configs.options("camera"):
        file = configs.ROOT / "camera" / f"{name}.yaml"
        comment = []
        for line in file.read_text(encoding="utf-8").splitlines():
            if not line.startswith("#"):
                break
            comment.append(line.lstrip("# "))
        rows.append((name, configs.read_plain(file)["mode"], " ".join(comment)))
    return rows


def _measured(card: Path) -> Iterator[dict[str, str]]:
    """Yield the rows of the table below `## Measured` of a model card, by column."""
    _, _, text = card.read_text(encoding="utf-8").partition("## Measured")
    lines = [line for line in text.splitlines() if line.startswith("|")]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    if cells:
        yield from (dict(zip(cells[0], row, strict=True)) for row in cells[2:])


def _count(folder: Path) -> int:
    return len(json.loads((folder / "manifest.json").read_text(encoding="utf-8"))["objects"])
