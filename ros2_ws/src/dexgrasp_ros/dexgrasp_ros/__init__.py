"""ROS 2 nodes for grasping with a real or simulated robot.

They use `dexgrasp.perception` and `dexgrasp.policies.deploy.policy`.
"""

from pathlib import Path

CONFIG = Path(__file__).resolve().parent / "config"
"""Folder of the shipped configuration: drivers of hands and arms, cameras, transport profiles."""
SIMULATED = "sim:"
"""Prefix of a hand or an arm that is driven in the simulated robot."""


def hand_file(place: str) -> Path | None:
    """Return the hand.yaml of a folder, or of a path to it; None for the name of a hand in assets/hands."""
    path = Path(place)
    file = path / "hand.yaml" if path.is_dir() else path
    return file.resolve() if file.is_file() else None


def config(name: str) -> Path:
    """Return the path of a shipped configuration file ("hands/leap.yaml") or of a file given by its path."""
    for path in (Path(name), CONFIG / name):
        if path.is_file():
            return path
    known = sorted(path.relative_to(CONFIG).as_posix() for path in CONFIG.rglob("*") if path.is_file())
    raise FileNotFoundError(f"no file '{name}', and none of that name is shipped. Shipped: {', '.join(known)}")
