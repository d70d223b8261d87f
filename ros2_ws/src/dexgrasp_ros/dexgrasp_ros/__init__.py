"""Nodes that grasp with a real or simulated robot over ROS 2: thin wires around `perception` and `policies.runtime`."""

from pathlib import Path

CONFIG = Path(__file__).resolve().parent / "config"
"""Shipped configuration: adapters of hands and arms, transport profiles."""


def config(name: str) -> Path:
    """A shipped configuration file, for instance "hands/allegro.yaml"; a file of one's own is given by its path."""
    for path in (Path(name), CONFIG / name):
        if path.is_file():
            return path
    known = sorted(path.relative_to(CONFIG).as_posix() for path in CONFIG.rglob("*") if path.is_file())
    raise FileNotFoundError(f"no file '{name}', and none of that name is shipped. Shipped: {', '.join(known)}")
