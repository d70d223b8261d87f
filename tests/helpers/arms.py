"""Own arm of seven joints, as MJCF and as URDF with the same frames, and its kinematics by hand."""

import numpy as np

JOINTS = {
    "a1": (0.2, "z", (-2.9, 2.9)),
    "a2": (0.15, "y", (-2.0, 2.0)),
    "a3": (0.2, "z", (-2.9, 2.9)),
    "a4": (0.2, "y", (-2.4, 2.4)),
    "a5": (0.2, "z", (-2.9, 2.9)),
    "a6": (0.2, "y", (-2.0, 2.0)),
    "a7": (0.08, "z", (-3.0, 3.0)),
}
"""Joint -> height of its body above the one before [m], axis, range [rad]."""
TIP_M = 0.1
AXES = {"z": (0, 0, 1), "y": (0, 1, 0)}
EFFORT_NM, SPEED_RAD_S = 90.0, 2.5


def mjcf(
    extra: str = "", tail: str = "", joints: dict | None = None, tip: str = '<site name="tool0" pos="0 0 0.1"/>'
) -> str:
    """Return the MJCF; `extra` stands in the last link, `tail` behind the bodies."""
    joints = JOINTS if joints is None else joints
    opened = "".join(
        f'<body name="link_{name}" pos="0 0 {height}">'
        '<inertial pos="0 0 0.05" mass="1.5" diaginertia="0.01 0.01 0.004"/>'
        f'<joint name="{name}" axis="{" ".join(map(str, AXES[axis]))}" range="{low} {high}" '
        f'actuatorfrcrange="-{EFFORT_NM} {EFFORT_NM}"/><geom type="cylinder" pos="0 0 0.05" size="0.04 0.05"/>'
        '<geom type="box" size="0.2 0.2 0.2" contype="0" conaffinity="0"/>'
        for name, (height, axis, (low, high)) in joints.items()
    )
    return (
        '<mujoco model="own"><compiler angle="radian" autolimits="true"/><worldbody><body name="stand">'
        '<geom type="cylinder" pos="0 0 0.05" size="0.06 0.05"/>'
        f"{opened}{tip}{extra}{'</body>' * len(joints)}</body></worldbody>{tail}</mujoco>"
    )


def urdf(extra: str = "", tip: str = "tool0") -> str:
    """Return the URDF; its links have visual meshes that do not exist, `extra` stands behind its joints."""
    inertial = (
        '<inertial><origin xyz="0 0 0.05"/><mass value="1.5"/>'
        '<inertia ixx="0.01" iyy="0.01" izz="0.004" ixy="0" ixz="0" iyz="0"/></inertial>'
        '<visual><geometry><mesh filename="package://own/meshes/none.dae"/></geometry></visual>'
        '<collision><origin xyz="0 0 0.05"/><geometry><cylinder radius="0.04" length="0.1"/></geometry></collision>'
    )
    text, parent = '<link name="stand"/>', "stand"
    for name, (height, axis, (low, high)) in JOINTS.items():
        text += (
            f'<link name="link_{name}">{inertial}</link><joint name="{name}" type="revolute"><parent link="{parent}"/>'
            f'<child link="link_{name}"/><origin xyz="0 0 {height}"/><axis xyz="{" ".join(map(str, AXES[axis]))}"/>'
            f'<limit lower="{low}" upper="{high}" effort="{EFFORT_NM}" velocity="{SPEED_RAD_S}"/></joint>'
        )
        parent = f"link_{name}"
    text += (
        f'<link name="{tip}"/><joint name="tip" type="fixed"><parent link="{parent}"/><child link="{tip}"/>'
        f'<origin xyz="0 0 {TIP_M}"/></joint>'
    )
    return f'<robot name="own">{text}{extra}</robot>'


def gripper(parent: str) -> str:
    """Return the links and joints of a URDF gripper with two sliding fingers."""
    text = f'<link name="grip"/><joint name="grip" type="fixed"><parent link="{parent}"/><child link="grip"/></joint>'
    for side in ("left", "right"):
        text += (
            f'<link name="{side}"><inertial><mass value="0.1"/>'
            '<inertia ixx="1e-4" iyy="1e-4" izz="1e-4" ixy="0" ixz="0" iyz="0"/></inertial></link>'
            f'<joint name="{side}_finger" type="prismatic"><parent link="grip"/><child link="{side}"/>'
            '<axis xyz="0 1 0"/><limit lower="0" upper="0.04" effort="10" velocity="0.1"/></joint>'
        )
    return text


def flange(q: np.ndarray) -> np.ndarray:
    """Return the pose (4, 4) of the tip in the base at joint positions (7,) [rad]."""
    pose = np.eye(4)
    for angle, (height, axis, _) in zip(q, JOINTS.values(), strict=True):
        c, s = np.cos(angle), np.sin(angle)
        turn = [[c, -s, 0], [s, c, 0], [0, 0, 1]] if axis == "z" else [[c, 0, s], [0, 1, 0], [-s, 0, c]]
        step = np.eye(4)
        step[:3, :3], step[2, 3] = turn, height
        pose = pose @ step
    tip = np.eye(4)
    tip[2, 3] = TIP_M
    return pose @ tip
