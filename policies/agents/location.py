"""Trained policies on disk: run directories, checkpoints, bundles, shipped ones.

Needs neither torch nor the simulator, so that a name which does not exist is refused at once.
"""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal
from zipfile import is_zipfile

from dexgrasp.policies.deploy.bundle import CONTRACT
from dexgrasp.policies.deploy.shipped import PolicyNotFoundError, bundle_of, place
from dexgrasp.utils.readers import foreign_file
from dexgrasp.utils.text import os_error_text

NAMES = ("best.zip", "last.zip", "policy.zip")
"""Checkpoints of a run directory; the first that exists is used."""
UNTRAINED = ("random", "synergy", "zero")
"""Policies without files."""

PolicyKind = Literal["any", "checkpoint", "bundle"]


@dataclass(frozen=True)
class PolicyLocation:
    """Location of a trained policy."""

    path: Path
    """Folder of a bundle, or a checkpoint."""
    bundle: bool
    """Whether `path` is a bundle."""


def find_checkpoint(path: str | Path) -> Path:
    """Return the checkpoint at `path`, a file or a run directory."""
    path = Path(path)
    if path.is_file():
        return path
    found = [path / name for name in NAMES if (path / name).is_file()]
    if not found:
        raise FileNotFoundError(f"no checkpoint at '{path}': neither a zip file nor a folder with one of {list(NAMES)}")
    return found[0]


def find_policy(
    name: str, key: str = "policy", kind: PolicyKind = "any", also: Sequence[str] = (), stage: str = ""
) -> PolicyLocation:
    """Return the policy `name`: a shipped name, run directory, checkpoint file or bundle directory.

    `kind`: what is needed; any prefers a bundle. `key`: the option in messages; `also`: other names that it takes;
    `stage`: stage of the shipped policies in messages, empty: any.
    Raises PolicyNotFoundError, or ValueError where the policy is not of that kind.
    """
    if not name:
        raise ValueError(f"{key} is empty: give a shipped policy (dexgrasp list policies), a run or a checkpoint")
    bundle = bundle_of(name)
    if bundle is not None and kind != "checkpoint":
        return PolicyLocation(bundle, bundle=True)
    checkpoint = None
    if place(name).exists():
        with suppress(FileNotFoundError):
            checkpoint = find_checkpoint(place(name))
    if checkpoint is not None and kind != "bundle":
        return PolicyLocation(checkpoint, bundle=False)
    if checkpoint is not None and (kind_of_file := foreign_file(checkpoint, is_zip=True)):
        raise ValueError(f"{key}: {checkpoint}: {kind_of_file}; expected a bundle directory ({CONTRACT})")
    if checkpoint is not None and not is_zipfile(checkpoint):
        raise ValueError(f"{key}: {checkpoint} is no policy; expected a bundle directory ({CONTRACT})")
    if checkpoint is not None:
        raise ValueError(f"{key}: '{name}' is a checkpoint, a bundle is needed: dexgrasp export policy={name} out=...")
    if bundle is not None:
        raise ValueError(f"{key}: '{name}' is a bundle, a checkpoint is needed: give the run it was exported from")
    expected = f"a run directory or checkpoint ({', '.join(NAMES)})"
    if kind != "checkpoint":
        expected += f", or of a bundle directory ({CONTRACT})"
    raise PolicyNotFoundError(name, key, expected, also, stage)


def check_policy(name: str, key: str = "policy") -> None:
    """Raise ValueError if there is no policy `name`; `key` is the option in the message."""
    if name in UNTRAINED:
        return
    try:
        find_policy(name, key, also=UNTRAINED)
    except OSError as error:
        raise ValueError(os_error_text(error)) from error


def demand_checkpoint(name: str, key: str, stage: str, recipe: str) -> Path:
    """Return the checkpoint that the option `key` of a training names.

    Raises an error that says what to give where it names none. `stage`: of the policy that is needed; `recipe`: of the
    training.
    """
    if not name:
        raise FileNotFoundError(
            f"{key}: none is given, recipe={recipe} needs one: give {key}=RUN, the out= of `dexgrasp train "
            f"recipe={stage}`, or a shipped policy such as {key}=allegro/{stage}"
        )
    return find_policy(name, key, "checkpoint", stage=stage).path
