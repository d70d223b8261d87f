"""List hands, mounts, and the files that the model of a hand reads.

Needs neither torch nor MuJoCo.
"""

import os
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree

from dexgrasp import assets
from dexgrasp.utils.readers import regular_bytes
from dexgrasp.utils.text import did_you_mean

FOLDERS = ("meshdir", "texturedir", "assetdir")
"""Attributes of <compiler> that name folders of assets."""


def find_hand(name_or_path: str | Path) -> Path:
    """Return the path of a hand.yaml: by name in assets/hands, by folder, or the file itself."""
    path = Path(name_or_path)
    if path.suffix in (".yaml", ".yml") and path.is_file():
        return path
    if path.is_dir() and (path / "hand.yaml").is_file():
        return path / "hand.yaml"
    known = assets.names("hands")
    if str(name_or_path) in known:
        return assets.path(f"hands/{name_or_path}/hand.yaml")
    raise FileNotFoundError(
        f"no hand '{name_or_path}': expected one of {known}, a folder with hand.yaml and hand.xml, or a hand.yaml."
        + did_you_mean(str(name_or_path), known)
    )


def mounts() -> list[str]:
    """Return the names of all mounts: floating, and every arm in assets/arms."""
    return ["floating", *assets.names("arms")]


def hand_files(hand_yaml: Path) -> dict[str, bytes]:
    """Return the content of a hand.yaml and of all files that its model reads, by path.

    Paths are relative to the folder of hand.yaml. A name is looked up in each folder in which MuJoCo may, so that a
    file which only might be read counts too.
    """
    from dexgrasp.configs.loader import read_plain

    contents = {hand_yaml: regular_bytes(hand_yaml)}
    xml = hand_yaml.parent / str(read_plain(hand_yaml).get("xml", ""))
    pending, folders = [xml] if xml.is_file() else [], {xml.parent}
    texts: list[tuple[Path, list[str]]] = []
    while pending:
        file = pending.pop()
        contents[file] = regular_bytes(file)
        named, own_folders = _names(contents[file])
        folders |= {file.parent} | {base / folder for base in (xml.parent, file.parent) for folder in own_folders}
        texts.append((file, named))
        found = {path for base, names in texts for path in _existing(names, {*folders, base.parent})}
        for path in sorted(found - contents.keys() - set(pending)):
            if path.suffix.lower() in (".xml", ".mjcf", ".urdf"):
                pending.append(path)
            else:
                contents[path] = regular_bytes(path)
    return {os.path.relpath(path, hand_yaml.parent): content for path, content in contents.items()}


def _names(content: bytes) -> tuple[list[str], list[str]]:
    """Return the files and the folders of assets that an MJCF names; none where it cannot be parsed."""
    try:
        elements = list(ElementTree.fromstring(content).iter())
    except ElementTree.ParseError:
        return [], []  # the reader of the hand says what is wrong
    files = [value for element in elements for key, value in element.attrib.items() if key.startswith("file")]
    return files, [element.attrib[key] for element in elements for key in FOLDERS if key in element.attrib]


def _existing(names: list[str], folders: set[Path]) -> Iterator[Path]:
    for name in names:
        for folder in folders:
            for path in (folder / name, folder / Path(name).name):
                if path.is_file():
                    yield Path(os.path.normpath(path))
