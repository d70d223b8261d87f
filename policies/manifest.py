"""What made a checkpoint, inside it: the zip file holds a manifest.yaml beside what Stable-Baselines3 writes.

A file that was copied out of its run directory still says which configuration, commit, versions and command it is of.
"""

import os
import zipfile
from pathlib import Path
from typing import Any

import yaml

NAME = "manifest.yaml"


def add(checkpoint: Path, manifest: dict[str, Any]) -> None:
    """Put the manifest into a checkpoint that has none."""
    with zipfile.ZipFile(checkpoint, "a", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(NAME, yaml.safe_dump(manifest, sort_keys=False, allow_unicode=True))


def read(checkpoint: Path) -> dict[str, Any]:
    """The manifest; empty for a checkpoint that has none."""
    with zipfile.ZipFile(checkpoint) as archive:
        return yaml.safe_load(archive.read(NAME)) if NAME in archive.namelist() else {}


def copy(checkpoint: Path, out: Path, manifest: dict[str, Any]) -> None:
    """Copy a checkpoint with another manifest, an empty one for none; the file appears complete."""
    partial = out.with_name(f".{out.name}.{os.getpid()}.zip")
    with zipfile.ZipFile(checkpoint) as source, zipfile.ZipFile(partial, "w") as target:
        for item in source.infolist():
            if item.filename != NAME:
                target.writestr(item, source.read(item))
    if manifest:
        add(partial, manifest)
    os.replace(partial, out)
