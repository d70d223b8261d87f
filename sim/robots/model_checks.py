"""Checks of a hand's MJCF: files that it needs, order of joints, masses."""

from collections.abc import Sequence
from pathlib import Path

import mujoco
import numpy as np

from dexgrasp.utils.readers import foreign_file
from dexgrasp.utils.text import comma_separated, one_line

HEAVIEST_BODY_KG, HEAVIEST_HAND_KG = 5.0, 15.0
WIDEST_M = 0.5
"""Largest radius of gyration of a body; a hand is smaller."""


def read_mjcf(file: Path, owner: str) -> mujoco.MjSpec:
    """Return the model of `owner`, such as "the hand 'leap'".

    Raises ValueError for an MJCF that is damaged, FileNotFoundError where a mesh file is missing.
    """
    if kind := foreign_file(file):
        raise ValueError(f"{file}: {kind}")
    try:
        spec = mujoco.MjSpec.from_file(str(file))
    except ValueError as error:
        raise ValueError(f"{file}: not a valid MJCF: {one_line(error)}") from error
    for mesh in spec.meshes:
        if not mesh.file:  # its vertices stand in the MJCF
            continue
        path = file.parent / spec.meshdir / (Path(mesh.file).name if spec.strippath else mesh.file)
        if not path.is_file():
            raise FileNotFoundError(f"{file}: mesh '{mesh.name or mesh.file}' of {owner}: no file {path}")
        if kind := foreign_file(path):
            raise ValueError(f"{file}: mesh '{mesh.name or mesh.file}' of {owner}: {path}: {kind}")
    return spec


def check_joint_order(spec: mujoco.MjSpec, joint_names: Sequence[str], file: Path) -> None:
    """Raise ValueError unless each joint comes after those between it and the palm."""
    found = list(joint_names)
    for name in found:
        body = spec.joint(name).parent.parent
        while body is not None and body.name != "world":
            for nearer in body.joints:
                if nearer.name in found and found.index(nearer.name) > found.index(name):
                    tree = comma_separated(joint.name for joint in spec.joints if joint.name in found)
                    raise ValueError(
                        f"{file}: joints: '{name}' stands before '{nearer.name}', which is nearer the palm; expected "
                        f"each finger from palm to tip, for instance {tree}; found {comma_separated(found)}"
                    )
            body = body.parent


def compiled(spec: mujoco.MjSpec, file: Path, name: str) -> mujoco.MjModel:
    """Return the compiled model of the hand `name`.

    Raises ValueError where MuJoCo refuses it, and for masses and moments of inertia that no hand has.
    """
    try:
        model = spec.compile()
    except ValueError as error:
        raise ValueError(f"{file}: the hand '{name}' cannot be simulated: {one_line(error)}") from error
    masses, moments = model.body_mass[1:], model.body_inertia[1:].max(axis=1)
    heaviest, widest = int(np.argmax(masses)), int(np.argmax(moments / np.maximum(masses, 1e-12)))
    if masses[heaviest] > HEAVIEST_BODY_KG or masses.sum() > HEAVIEST_HAND_KG:
        raise ValueError(
            f"{file}: body '{model.body(heaviest + 1).name}' of the hand '{name}' weighs {masses[heaviest]:.4g} kg, "
            f"all {masses.sum():.4g} kg; expected at most {HEAVIEST_BODY_KG:g} kg each and {HEAVIEST_HAND_KG:g} kg in "
            "all: masses are in kg, densities in kg/m^3"
        )
    if moments[widest] > masses[widest] * WIDEST_M**2:
        raise ValueError(
            f"{file}: body '{model.body(widest + 1).name}' of the hand '{name}' has a moment of inertia of "
            f"{moments[widest]:.3g} kg m^2 and weighs {masses[widest]:.3g} kg; expected at most "
            f"{masses[widest] * WIDEST_M**2:.3g}, a radius of gyration of {WIDEST_M:g} m"
        )
    return model
