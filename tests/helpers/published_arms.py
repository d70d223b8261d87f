"""Franka FR3 and UFACTORY xArm7 as small MJCF files, from the kinematic tables and limits of their makers.

Rows: a, alpha of the joint before, d (modified Denavit-Hartenberg), range [rad], torque [N m], mass of the link [kg],
radius of its capsule [m]. Inertias are those of the capsules.
"""

from dataclasses import dataclass

import numpy as np

HALF = np.pi / 2


@dataclass(frozen=True)
class PublishedArm:
    """Kinematics of an arm: rows as above, speed limits, flange behind the last joint."""

    rows: tuple
    speed_rad_s: tuple
    flange_m: float
    base_m: tuple
    """Place of the base in the world, found by ArmSpec."""
    home: tuple
    """Home position [rad] for an Allegro hand, found by ArmSpec."""


ARMS = {
    "fr3": PublishedArm(
        rows=(
            (0.0, 0.0, 0.333, (-2.7437, 2.7437), 87.0, 2.9, 0.06),
            (0.0, -HALF, 0.0, (-1.7837, 1.7837), 87.0, 2.9, 0.06),
            (0.0, HALF, 0.316, (-2.9007, 2.9007), 87.0, 2.2, 0.06),
            (0.0825, HALF, 0.0, (-3.0421, -0.1518), 87.0, 2.6, 0.06),
            (-0.0825, -HALF, 0.384, (-2.8065, 2.8065), 12.0, 2.3, 0.055),
            (0.0, HALF, 0.0, (0.5445, 4.5169), 12.0, 1.8, 0.05),
            (0.088, HALF, 0.0, (-3.0159, 3.0159), 12.0, 0.6, 0.045),
        ),
        speed_rad_s=(2.62, 2.62, 2.62, 2.62, 5.26, 4.18, 5.26),
        flange_m=0.107,
        base_m=(-0.589, 0.0, 0.0),
        home=(-0.1253, 0.6899, 0.8264, -1.814, 0.9676, 1.6039, 0.9212),
    ),
    "xarm7": PublishedArm(
        rows=(
            (0.0, 0.0, 0.267, (-6.2832, 6.2832), 50.0, 2.4, 0.055),
            (0.0, -HALF, 0.0, (-2.059, 2.0944), 50.0, 1.9, 0.055),
            (0.0, HALF, 0.293, (-6.2832, 6.2832), 30.0, 1.6, 0.05),
            (0.0525, HALF, 0.0, (-0.19198, 3.927), 30.0, 1.7, 0.05),
            (0.0775, HALF, 0.3425, (-6.2832, 6.2832), 30.0, 1.3, 0.045),
            (0.0, HALF, 0.0, (-1.69297, 3.14159), 20.0, 1.3, 0.045),
            (0.076, -HALF, 0.097, (-6.2832, 6.2832), 20.0, 0.2, 0.035),
        ),
        speed_rad_s=(3.14,) * 7,
        flange_m=0.0,
        base_m=(-0.449, 0.0, 0.0),
        home=(-1.5582, 0.3298, 0.4637, 1.1396, 1.1607, 1.8108, 0.8252),
    ),
}


def frame(a, alpha, d):
    """Position (3,) and quaternion wxyz (4,) of a joint frame at angle 0 in the one before."""
    turn = np.array([np.cos(alpha / 2), np.sin(alpha / 2), 0.0, 0.0])
    return np.array([a, -np.sin(alpha) * d, np.cos(alpha) * d]), turn


def flange(name, q):
    """Pose (4, 4) of the flange in the base at joint positions (7,) [rad], from the table."""
    pose = np.eye(4)
    for (a, alpha, d, *_), angle in zip(ARMS[name].rows, q, strict=True):
        ca, sa, c, s = np.cos(alpha), np.sin(alpha), np.cos(angle), np.sin(angle)
        pose = pose @ np.array(
            [[c, -s, 0, a], [s * ca, c * ca, -sa, -d * sa], [s * sa, c * sa, ca, d * ca], [0, 0, 0, 1]]
        )
    pose[:3, 3] += pose[:3, 2] * ARMS[name].flange_m
    return pose


def mjcf(name):
    """The MJCF of an arm."""
    arm = ARMS[name]
    frames = [frame(a, alpha, d) for a, alpha, d, *_ in arm.rows]
    ends = [*(pos for pos, _ in frames[1:]), np.array([0.0, 0.0, arm.flange_m])]
    bodies = ""
    for i, ((pos, quat), row) in enumerate(zip(frames, arm.rows, strict=True), 1):
        low, high = row[3]
        bodies += (
            f'<body name="{name}_link{i}" pos="{words(pos)}" quat="{words(quat)}">'
            f'<joint name="{name}_joint{i}" axis="0 0 1" range="{low} {high}" '
            f'actuatorfrcrange="-{row[4]} {row[4]}"/>{link(ends[i - 1], row[5], row[6])}'
        )
    base = link(np.array([0.0, 0.0, arm.rows[0][2]]) * 0.7, 2.0, 0.07)
    return (
        f'<mujoco model="{name}"><compiler angle="radian" autolimits="true"/><worldbody><body name="{name}_base">{base}'
        f'{bodies}<site name="attachment_site" pos="0 0 {arm.flange_m}"/>{"</body>" * len(arm.rows)}</body></worldbody>'
        "</mujoco>"
    )


def link(end, mass, radius):
    """A capsule from the joint to the next one, or a sphere where they meet."""
    if np.linalg.norm(end) < radius:
        return f'<geom type="sphere" size="{radius}" mass="{mass}"/>'
    return f'<geom type="capsule" fromto="0 0 0 {words(end)}" size="{radius}" mass="{mass}"/>'


def words(values):
    return " ".join(f"{value:.10g}" for value in values)


def write(folder, name):
    """Write arm.yaml and MJCF into a folder of their own; place and home are stated, whose search is slow."""
    arm, place = ARMS[name], folder / name
    place.mkdir(parents=True, exist_ok=True)
    (place / f"{name}.xml").write_text(mjcf(name))
    rows = "".join(
        f"  {name}_joint{i}: {{speed_limit: {speed}, home: {home}}}\n"
        for i, (speed, home) in enumerate(zip(arm.speed_rad_s, arm.home, strict=True), 1)
    )
    base = f"place: {{pos_w: {list(arm.base_m)}, yaw_rad: 0.0}}"
    (place / "arm.yaml").write_text(f"name: {name}\nmodel: {name}.xml\n{base}\njoints:\n{rows}")
    return place
