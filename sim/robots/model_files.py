"""Files that the model of a hand reads: includes, meshes, textures, height fields, attached models."""

import os
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree

from dexgrasp.sim.robots.hand_file import current_keys
from dexgrasp.sim.robots.models.model_reader import SCHEMES, resolved
from dexgrasp.sim.robots.models.model_sources import model_path
from dexgrasp.utils.readers import regular_bytes

FOLDERS = ("meshdir", "texturedir", "assetdir")
"""Attributes of <compiler> that name folders of assets."""


def hand_files(hand_yaml: Path) -> dict[str, bytes]:
    """Return the content of a hand.yaml and of all files that its model reads, by path.

    Paths are relative to the folder of hand.yaml; those of a package's model start with its name, and are relative to
    its folder. A name is looked up in each folder in which MuJoCo may, so that a file which only might be read counts
    too.
    """
    from dexgrasp.configs.loader import read_plain

    name = str(current_keys(read_plain(hand_yaml), hand_yaml).get("model", ""))
    try:
        model = model_path(name, hand_yaml.parent)
    except (ValueError, OSError):  # the reader of the hand says what is wrong
        return {hand_yaml.name: regular_bytes(hand_yaml)}
    contents = files_read_by(model)
    if ":" in name and not (hand_yaml.parent / name).is_file():
        named = {f"{name}/{os.path.relpath(path, model.parent)}": content for path, content in contents.items()}
    else:
        named = {os.path.relpath(path, hand_yaml.parent): content for path, content in contents.items()}
    return {hand_yaml.name: regular_bytes(hand_yaml), **named}


def files_read_by(model: Path) -> dict[Path, bytes]:
    """Return the content of a model and of the files that it reads, by path."""
    contents: dict[Path, bytes] = {}
    pending, folders = [model], {model.parent}
    texts: list[tuple[Path, list[str]]] = []
    while pending:
        file = pending.pop()
        contents[file] = regular_bytes(file)
        named, own_folders = _names(contents[file])
        folders |= {file.parent} | {base / folder for base in (model.parent, file.parent) for folder in own_folders}
        texts.append((file, named))
        found = {path for base, names in texts for path in _existing(names, {*folders, base.parent})}
        for path in sorted(found - contents.keys() - set(pending)):
            if path.suffix.lower() in (".xml", ".mjcf", ".urdf"):
                pending.append(path)
            else:
                contents[path] = regular_bytes(path)
    return contents


def _names(content: bytes) -> tuple[list[str], list[str]]:
    """Return the files and the folders of assets that an MJCF or URDF names; none where it cannot be parsed."""
    try:
        elements = list(ElementTree.fromstring(content).iter())
    except ElementTree.ParseError:
        return [], []  # the reader of the hand says what is wrong
    files = [value for element in elements for key, value in element.attrib.items() if key.startswith("file")]
    return files, [element.attrib[key] for element in elements for key in FOLDERS if key in element.attrib]


def _existing(names: list[str], folders: set[Path]) -> Iterator[Path]:
    for name in names:
        for folder in folders:
            for path in (
                (resolved(name, folder),) if name.startswith(SCHEMES) else (folder / name, folder / Path(name).name)
            ):
                if path.is_file():
                    yield Path(os.path.normpath(path))
