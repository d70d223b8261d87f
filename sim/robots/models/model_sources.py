"""Names and files of hands and models, also of mujoco-menagerie and robot_descriptions.

Needs neither torch nor MuJoCo.
"""

import importlib
import os
import re
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType

from dexgrasp import assets
from dexgrasp.utils.text import comma_separated, did_you_mean, install_command, one_line

MODEL_ENDINGS = (".xml", ".mjcf", ".urdf")

_PATHS = re.compile(r"(?:MJCF|URDF)_PATH(?:_(\w+))?")
"""Constants of a module of robot_descriptions: MJCF_PATH, URDF_PATH_RIGHT."""


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
    if is_model(str(name_or_path)):
        raise FileNotFoundError(
            f"'{name_or_path}' is a model without a hand.yaml, which names palm, joints and keypoints; draft one with "
            f"`dexgrasp hands new {name_or_path} out=FOLDER`, then give hand=FOLDER"
        )
    raise FileNotFoundError(
        f"no hand '{name_or_path}': expected one of {known}, a folder with a hand.yaml, or a hand.yaml."
        + did_you_mean(str(name_or_path), known)
    )


def is_model(name: str) -> bool:
    """Return whether a name is that of a model, not of a hand: a file, or PACKAGE:NAME."""
    path = Path(name)
    return name.partition(":")[0] in _PACKAGES or (path.suffix.lower() in MODEL_ENDINGS and path.is_file())


def given_model(model: str) -> str:
    """Return the name of a model for a hand.yaml in any folder: PACKAGE:NAME, or the absolute path."""
    if is_model(model) or Path(model).is_file():
        return model if model.partition(":")[0] in _PACKAGES else os.path.abspath(model)
    packages = " or ".join(f"{package}:NAME" for package in _PACKAGES)
    raise FileNotFoundError(f"model: '{model}' is no file; expected the MJCF or URDF of the hand, {packages}")


def model_path(model: str, folder: Path) -> Path:
    """Return the file of a model: by path relative to `folder`, or by name in a package.

    Names are menagerie:NAME[/FILE] and robot_descriptions:NAME[/SIDE]. Packages download a model when it is first asked
    for. Raises ValueError and FileNotFoundError in one line.
    """
    package, colon, name = model.partition(":")
    if colon and package in _PACKAGES:
        robot, _, entry = name.partition("/")
        return _PACKAGES[package](robot, entry)
    path = folder / model
    if not path.is_file():
        raise FileNotFoundError(f"{path} is no file; expected the MJCF or URDF of the hand")
    return path


def _of_menagerie(name: str, entry: str) -> Path:
    menagerie = _package("mujoco_menagerie")
    _demand(name, menagerie.names(), [robot.name for robot in menagerie.robots("end_effector")], "menagerie")
    robot = menagerie.get(name)
    files = {point.name: point.name for point in robot.entry_points if point.kind == "robot" and not point.is_mjx}
    entry = _entry(f"menagerie:{name}", entry, files)
    try:
        return Path(robot.xml(entry))
    except (menagerie.MenagerieError, OSError) as error:
        raise FileNotFoundError(f"mujoco-menagerie cannot provide '{name}': {one_line(error)}") from error


def _of_robot_descriptions(name: str, entry: str) -> Path:
    listed = _package("robot_descriptions._descriptions").DESCRIPTIONS
    known = [key for key, item in listed.items() if item.has_mjcf or item.has_urdf]
    name = name if name.endswith("_description") else f"{name}_description"
    _demand(name, known, [word for word in known if "hand" in word or "gripper" in word], "robot_descriptions")
    try:
        module = importlib.import_module(f"robot_descriptions.{name}")
    except Exception as error:  # whatever its clone of a repository raises
        raise FileNotFoundError(f"robot_descriptions cannot provide '{name}': {one_line(error)}") from error
    files = {(found[1] or "").lower(): path for key, path in vars(module).items() if (found := _PATHS.fullmatch(key))}
    if not entry and "" in files and len(set(files.values())) == 1:
        return Path(files[""])
    sides = {key: path for key, path in files.items() if key}
    return Path(files[""]) if not sides and not entry else Path(_entry(f"robot_descriptions:{name}", entry, sides))


_PACKAGES = {"menagerie": _of_menagerie, "robot_descriptions": _of_robot_descriptions}


def _package(module: str) -> ModuleType:
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ValueError(
            f"models by name need mujoco-menagerie and robot_descriptions: {install_command('hands')} ({error})"
        ) from error


def _demand(name: str, known: list[str], hands: list[str], package: str) -> None:
    if name not in known:
        raise ValueError(
            f"{package} has no robot '{name}'; hands among its {len(known)} robots: {comma_separated(hands)}."
            f"{did_you_mean(name, known)}"
        )


def _entry(model: str, entry: str, files: Mapping[str, str]) -> str:
    """Return the value of a model's file by its name; a model with one file needs none."""
    if not entry and len(files) == 1:
        return next(iter(files.values()))
    if entry not in files:
        raise ValueError(
            f"{model} has several models; expected one of {comma_separated(f'{model}/{key}' for key in files)}"
        )
    return files[entry]
