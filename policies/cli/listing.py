"""`dexgrasp list`: tables of the shipped policies, hands, arms, object libraries and camera modes."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from dexgrasp import assets, configs
from dexgrasp.utils.bounds import bounded
from dexgrasp.utils.files import cache_folder
from dexgrasp.utils.text import terminal_width, text_table

OBSERVATIONS = {
    "teacher": "contacts, forces, the whole object and its motion (simulation only)",
    "student": "joints, palm pose, points of one depth camera",
}


@dataclass(frozen=True)
@bounded
class ListCfg:
    """List what is shipped, as a table."""

    what: Literal["policies", "hands", "arms", "objects", "cameras"]
    """Table to print; cameras: the camera modes that `camera=` takes."""


def list_assets(cfg: ListCfg) -> None:
    """Print the table."""
    tables = {"policies": policies, "hands": hands, "arms": arms, "objects": objects, "cameras": cameras}
    print(text_table(tables[cfg.what](), terminal_width()))


def policies() -> list[Sequence[str]]:
    """Return the rows of the shipped policies, with the first measurement of their model cards."""
    rows: list[Sequence[str]] = [("policy", "hand", "observes", "success (95 % interval)", "trials", "objects")]
    for name in assets.policies():
        folder = assets.path(f"policies/{name}")
        measured = next(_measured(folder / "README.md"), {})
        found = [measured.get(column, "not measured") for column in ("success", "trials", "objects")]
        config = configs.read_plain(folder / "config.yaml")
        rows.append((name, f"{config['hand']}, {config['side']}", OBSERVATIONS[config["stage"]], *found))
    return rows


def hands() -> list[Sequence[str]]:
    """Return the rows of the hands."""
    rows: list[Sequence[str]] = [("hand", "joints", "sides", "source of its numbers")]
    for name in assets.names("hands"):
        hand = configs.read_plain(assets.path(f"hands/{name}") / "hand.yaml")
        other = "left" if hand["side"] == "right" else "right"
        rows.append((name, str(len(hand["joints"])), f"{hand['side']}, {other} (mirrored)", hand.get("source", "")))
    return rows


def arms() -> list[Sequence[str]]:
    """Return the rows of the arms, which `mount=` takes."""
    rows: list[Sequence[str]] = [("arm", "joints", "use", "source of its numbers")]
    for name in assets.names("arms"):
        arm = configs.read_plain(assets.path(f"arms/{name}") / "arm.yaml")
        rows.append((name, str(len(arm["joints"])), f"mount={name}", arm.get("source", "")))
    return rows


def objects() -> list[Sequence[str]]:
    """Return the rows of the object libraries: shipped, made on first use, and those in the cache."""
    rows: list[Sequence[str]] = [("objects=", "objects", "content")]
    rows.append(("shipped", str(_count(assets.path("objects"))), "one of each family and size class, test split"))
    rows += [
        ("generated:N", "N", "training objects, made on first use; :validation or :test behind it for other splits"),
        ("random_urdfs", "1000", "public objects of PyBullet, downloaded once; random_urdfs:N takes the first N"),
        ("DIR", "", "library folder, or a folder of OBJ, STL, PLY or GLB meshes, imported once"),
    ]
    for manifest in sorted(cache_folder().glob("*/manifest.json")):
        rows.append((str(manifest.parent), str(_count(manifest.parent)), "in the cache"))
    return rows


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
