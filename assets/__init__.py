"""Assets of the simulator: hands, arms, objects, pretrained policies, and their lookup by name."""

from pathlib import Path

ROOT = Path(__file__).resolve().parent


def path(name: str) -> Path:
    """Return the path of an asset such as "hands/allegro"; the error for a missing one lists the others."""
    found = ROOT / name
    if ".." in found.parts:
        raise FileNotFoundError(f"no asset '{name}': a name leads to no other folder")
    if found.exists():
        return found
    folder = found.parent
    while not folder.is_dir():
        folder = folder.parent
    beside = "assets" if folder == ROOT else f"assets/{folder.relative_to(ROOT).as_posix()}"
    raise FileNotFoundError(f"no asset '{name}'; {beside}/ holds {_entries(folder)}")


def names(kind: str) -> list[str]:
    """Return the sorted names of all assets of a kind ("hands", "arms", "objects", "policies")."""
    return _entries(path(kind))


def policies() -> list[str]:
    """Return the names of the shipped policies, HAND/STAGE."""
    return sorted(f"{hand}/{stage}" for hand in names("policies") for stage in names(f"policies/{hand}"))


def _entries(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir() if not p.name.startswith(("_", ".")))
