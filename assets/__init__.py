"""What the simulator is made from: hands, arms, objects, pretrained policies. Files are found here and nowhere else."""

from pathlib import Path

ROOT = Path(__file__).resolve().parent


def path(name: str) -> Path:
    """Path of an asset, such as "hands/allegro" or "arms/ur5e/arm.xml"; a miss lists what lies beside it."""
    found = ROOT / name
    if found.exists():
        return found
    folder = found.parent
    while not folder.is_dir():
        folder = folder.parent
    beside = "assets" if folder == ROOT else f"assets/{folder.relative_to(ROOT).as_posix()}"
    raise FileNotFoundError(f"no asset '{name}'; {beside}/ holds {_entries(folder)}")


def names(kind: str) -> list[str]:
    """Names of all assets of a kind ("hands", "arms", "objects", "policies"), sorted."""
    return _entries(path(kind))


def _entries(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir() if not p.name.startswith(("_", ".")))
