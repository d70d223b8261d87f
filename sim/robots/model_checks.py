"""Checks of a hand's model: joints, masses, sizes, places of palm and keypoints."""

import logging
import warnings
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import mujoco
import numpy as np

from dexgrasp.utils.text import comma_separated, one_line, shown

HEAVIEST_BODY_KG, HEAVIEST_HAND_KG = 5.0, 15.0
WIDEST_M = 0.5
"""Largest radius of gyration of a body; a hand is smaller."""
TOLERATED_MOMENT = 0.005
"""Moment of inertia [kg m^2] that slows a finger no more than the rotor of its motor may, however light the body is."""
SHORTEST_M, LONGEST_M = 0.02, 1.0
"""Distance of a hand's furthest point from its root; a forearm may belong to the hand."""
OUTSIDE_M = 0.05
"""Largest distance of palm centre and keypoints from the nearest geom, which may be in front of the palm."""

log = logging.getLogger("dexgrasp")


def compiled(spec: mujoco.MjSpec, file: Path, name: str) -> mujoco.MjModel:
    """Return the compiled model of the hand `name`; warnings of MuJoCo are logged once.

    Raises ValueError where MuJoCo refuses it, and for numbers, masses, moments of inertia and sizes that no hand has.
    """
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            model = spec.compile()
        except ValueError as error:
            mend = "; export the mesh again, as a binary STL or an OBJ" if _of_mesh(error) else ""
            raise ValueError(f"{file}: the hand '{name}' cannot be simulated: {one_line(error)}{mend}") from error
    for warning in caught:
        _warn(f"{file}: MuJoCo warns: {one_line(warning.message)}")
    _check_finite(model, file, name)
    _check_size(model, file, name)
    _check_masses(model, file, name)
    return model


def _of_mesh(error: ValueError) -> bool:
    """Return whether MuJoCo could not read a mesh."""
    return any(word in str(error).lower() for word in ("decoder", "mesh", ".stl", ".obj", ".msh"))


@cache
def _warn(text: str) -> None:
    log.warning(text)


def _check_finite(model: mujoco.MjModel, file: Path, name: str) -> None:
    for kind, short in (("body", "body"), ("geom", "geom"), ("site", "site"), ("joint", "jnt")):
        for key in ("pos", "quat", "axis", "size", "mass", "inertia", "stiffness"):
            rows = np.asarray(getattr(model, f"{short}_{key}", ()))
            for i in sorted(set(np.argwhere(~np.isfinite(rows))[:, :1].ravel().tolist())):
                owner = shown(getattr(model, kind)(i).name or i)
                raise ValueError(
                    f"{file}: {kind} {owner} of the hand '{name}' has {key} {rows[i]}; expected finite numbers"
                )


def _check_masses(model: mujoco.MjModel, file: Path, name: str) -> None:
    masses, moments = model.body_mass[1:], model.body_inertia[1:].max(axis=1)
    heaviest, widest = int(np.argmax(masses)), int(np.argmax(moments / np.maximum(masses, 1e-12)))
    if masses[heaviest] > HEAVIEST_BODY_KG or masses.sum() > HEAVIEST_HAND_KG:
        raise ValueError(
            f"{file}: body '{model.body(heaviest + 1).name}' of the hand '{name}' weighs {masses[heaviest]:.4g} kg, "
            f"all {masses.sum():.4g} kg; expected at most {HEAVIEST_BODY_KG:g} kg each and {HEAVIEST_HAND_KG:g} kg in "
            "all: masses are in kg, densities in kg/m^3"
        )
    if moments[widest] > masses[widest] * WIDEST_M**2:
        text = (
            f"{file}: body '{model.body(widest + 1).name}' of the hand '{name}' has a moment of inertia of "
            f"{moments[widest]:.3g} kg m^2 and weighs {masses[widest]:.3g} kg; expected at most "
            f"{masses[widest] * WIDEST_M**2:.3g}, a radius of gyration of {WIDEST_M:g} m: correct it in the model"
        )
        if moments[widest] > TOLERATED_MOMENT:
            raise ValueError(text)
        _warn(text)


def _check_size(model: mujoco.MjModel, file: Path, name: str) -> None:
    """Refuse models in other units than metres: no part of a hand is further from its root than LONGEST_M."""
    data = _at(model, model.qpos0)
    reach = np.linalg.norm(data.geom_xpos, axis=1) + model.geom_rbound
    if not model.ngeom:
        raise ValueError(f"{file}: the hand '{name}' has no geoms, nothing of it can touch an object")
    far = int(np.argmax(reach))
    if not SHORTEST_M <= reach[far] <= LONGEST_M:
        body = model.body(model.geom_bodyid[far]).name
        raise ValueError(
            f"{file}: a geom of body '{body}' of the hand '{name}' ends {reach[far]:.3g} m from its root; expected "
            f"{SHORTEST_M:g} to {LONGEST_M:g} m: lengths are in metres, meshes in millimetres need scale 0.001"
        )
    if not (model.geom_contype | model.geom_conaffinity).any():
        raise ValueError(
            f"{file}: no geom of the hand '{name}' collides: all have contype=0 and conaffinity=0; expected colliders"
        )


def check_hinges(model: mujoco.MjModel) -> None:
    """Raise ValueError, with the body, unless each moving body has exactly one hinge, at its origin."""
    expected = "each moving body needs exactly one hinge, at the body's origin"
    for body in range(1, model.nbody):
        joints = [model.joint(i) for i in range(model.njnt) if model.jnt_bodyid[i] == body]
        where = f"body '{model.body(body).name}' has"
        if len(joints) > 1:
            raise ValueError(f"{where} the joints {comma_separated(joint.name for joint in joints)}; {expected}: put a "
                             "body between them, or freeze all but one")  # fmt: skip
        for joint in joints:
            if joint.type[0] != mujoco.mjtJoint.mjJNT_HINGE:
                kind = mujoco.mjtJoint(joint.type[0]).name.removeprefix("mjJNT_").lower()
                raise ValueError(f"{where} '{joint.name}', a {kind} joint; {expected}: freeze it, or replace it")
            if joint.pos.any():
                raise ValueError(f"{where} '{joint.name}', a hinge at {joint.pos.tolist()}; {expected}: move the body")


def check_springs(model: mujoco.MjModel, joint_names: Sequence[str], effort_limit: np.ndarray, file: Path) -> None:
    """Raise ValueError for a joint whose spring its servo cannot overcome at an end of its range."""
    for name, effort in zip(joint_names, effort_limit, strict=True):
        joint = model.joint(name)
        stiffness = float(np.ravel(joint.stiffness)[0])
        torque = stiffness * float(np.abs(joint.range - model.qpos_spring[joint.qposadr[0]]).max())
        if torque > effort:
            raise ValueError(
                f"{file}: joint '{name}' has a spring of {stiffness:.4g} N m/rad, which takes {torque:.4g} N m at an "
                f"end of its range; expected at most its effort_limit, {effort:g} N m"
            )


def check_places(
    model: mujoco.MjModel, qpos: np.ndarray, palm_pos_b: np.ndarray, keypoint_names: Sequence[str], file: Path
) -> None:
    """Raise ValueError for a palm centre or a keypoint that lies outside the hand, in the pose `qpos`."""
    data = _at(model, qpos)
    points = {"palm.pos_b: the palm centre": palm_pos_b}
    points |= {f"keypoints: '{name}'": data.site(name).xpos for name in keypoint_names}
    for what, point in points.items():
        distance = float((np.linalg.norm(data.geom_xpos - point, axis=1) - model.geom_rbound).min())
        if distance > OUTSIDE_M:
            raise ValueError(
                f"{file}: {what} lies {distance:.3g} m outside the nearest geom of the hand; expected at most "
                f"{OUTSIDE_M:g} m: positions are in metres, in the frame of their body"
            )


def _at(model: mujoco.MjModel, qpos: np.ndarray) -> mujoco.MjData:
    data = mujoco.MjData(model)
    data.qpos[:] = qpos
    mujoco.mj_kinematics(model, data)
    return data
