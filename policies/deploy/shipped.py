"""Policies on disk by name: shipped policies, run directories, bundles.

Needs neither torch nor the simulator.
"""

from collections.abc import Sequence
from pathlib import Path

from dexgrasp import assets
from dexgrasp.policies.deploy.bundle import CONTRACT
from dexgrasp.utils.text import did_you_mean


class PolicyNotFoundError(FileNotFoundError):
    """Error of an unknown policy name; the message lists accepted paths and shipped policies."""

    def __init__(self, name: str, key: str, expected: str, also: Sequence[str] = (), stage: str = "") -> None:
        """`key`: the option that was given; `expected`: accepted paths, in words; `also`: further accepted names.

        `stage`: stage of the shipped policies that fit; empty: any.
        """
        path, names = place(name), [*also, *(known for known in assets.policies() if known.endswith(stage))]
        what = f"no policy '{name}'.{did_you_mean(name, names)}"
        if path.exists():
            what = f"{path} holds no such policy."
        super().__init__(f"{key}: {what} Expected {', '.join(names)}, or the path of {expected}")


def place(name: str) -> Path:
    """Return the path `name`, or the folder of the shipped policy HAND/STAGE where no such path exists."""
    folder = assets.ROOT / "policies" / name
    return folder if not Path(name).exists() and folder.is_dir() else Path(name)


def bundle_of(name: str) -> Path | None:
    """Return the bundle directory of a policy, or None.

    The directory is the path itself or its subfolder `bundle`.
    """
    path = place(name)
    return next((folder for folder in (path, path / "bundle") if (folder / CONTRACT).is_file()), None)


def find_bundle(name: str, key: str = "policy") -> Path:
    """Return the bundle directory of a policy; raises PolicyNotFoundError.

    `key`: the option in its message.
    """
    found = bundle_of(name)
    if found is None:
        raise PolicyNotFoundError(name, key, f"a bundle directory ({CONTRACT}): dexgrasp export policy=... out=...")
    return found
