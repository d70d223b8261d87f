"""A hand of six motors and twelve joints, whose couplings are stated in one of four ways."""

import yaml

FINGERS = {"index": 0.03, "middle": 0.01, "ring": -0.01, "little": -0.03}
"""Finger -> place along +y of the palm [m]."""
COUPLED = {
    **{f"{finger}_2": (f"{finger}_1", 1.1, -0.04) for finger in FINGERS},
    "thumb_3": ("thumb_2", 1.5, 0.0),
    "thumb_4": ("thumb_3", 0.8, 0.0),
}
"""Joint -> joint that it follows, ratio, offset [rad]; thumb_4 is at the end of a chain."""
MOTORS = ["index_1", "middle_1", "ring_1", "little_1", "thumb_1", "thumb_2"]
RESOLVED = COUPLED | {"thumb_4": ("thumb_2", 1.2, 0.0)}
RANGES = {**{f"{finger}_1": [0.05, 1.5] for finger in FINGERS}, "thumb_1": [0.0, 1.6], "thumb_2": [0.0, 0.6]}

LINKS = {"1": (0.045, 0.008, 0.03), "2": (0.035, 0.007, 0.02)}
"""Number of a finger's joint -> length, radius [m] and mass [kg] of its link."""
THUMB = {"1": (0.02, 0.009, 0.03), "2": (0.035, 0.008, 0.03), "3": (0.025, 0.007, 0.02), "4": (0.022, 0.007, 0.02)}


def chains():
    """Return each finger as (joint, parent body, position in it, axis, link)."""
    found = {}
    for finger, y in FINGERS.items():
        found[finger] = [
            (f"{finger}_1", "base", (0.0, y, 0.09), (0, 1, 0), LINKS["1"]),
            (f"{finger}_2", f"{finger}_1", (0.0, 0.0, 0.045), (0, 1, 0), LINKS["2"]),
        ]
    places = [(0.01, 0.0, 0.012), (0.0, 0.0, 0.02), (0.0, 0.0, 0.035), (0.0, 0.0, 0.025)]
    axes, names = [(0, 1, 0), (0, -1, 0), (0, -1, 0), (0, -1, 0)], ["base", "thumb_1", "thumb_2", "thumb_3"]
    found["thumb"] = [
        (f"thumb_{i + 1}", names[i], places[i], axes[i], THUMB[str(i + 1)]) for i in range(4)
    ]  # fmt: skip
    return found


def mjcf(couplings=""):
    """Return the MJCF, with further elements behind the bodies."""
    text = '<mujoco model="six"><compiler angle="radian"/><worldbody><body name="base">'
    text += '<geom type="box" size=".012 .04 .045" pos="0 0 .045" mass=".2"/>'
    for chain in chains().values():
        for joint, _, pos, axis, (length, radius, mass) in chain:
            upper = RANGES.get(joint, [-1.5, 1.8])
            text += f'<body name="{joint}" pos="{_text(pos)}">'
            text += f'<joint name="{joint}" axis="{_text(axis)}" range="{_text(upper)}"/>'
            text += f'<geom type="capsule" fromto="0 0 0 0 0 {length}" size="{radius}" mass="{mass}"/>'
        text += "</body>" * len(chain)
    return f"{text}</body></worldbody>{couplings}</mujoco>"


def equalities():
    """Return the couplings as joint equalities."""
    rows = [
        f'<joint joint1="{joint}" joint2="{motor}" polycoef="{offset} {ratio} 0 0 0"/>'
        for joint, (motor, ratio, offset) in COUPLED.items()
    ]
    return f"<equality>{''.join(rows)}</equality>"


def tendons():
    """Return the couplings as fixed tendons: of constant length for the fingers, of an actuator for the thumb."""
    fixed, equal = "", ""
    for finger in FINGERS:
        _, ratio, offset = COUPLED[f"{finger}_2"]
        parts = f'<joint joint="{finger}_1" coef="{-ratio}"/><joint joint="{finger}_2" coef="1"/>'
        fixed += f'<fixed name="{finger}">{parts}</fixed>'
        equal += f'<tendon tendon1="{finger}" polycoef="{offset} 0 0 0 0"/>'
    pull = "".join(f'<joint joint="thumb_{i}" coef="{c}"/>' for i, c in ((2, 2.0), (3, 3.0), (4, 2.4)))
    return (
        f'<tendon>{fixed}<fixed name="pull">{pull}</fixed></tendon><equality>{equal}</equality>'
        '<actuator><position name="pull" tendon="pull" kp="1"/></actuator>'
    )


def urdf():
    """Return the hand as a URDF with mimic joints."""
    links = [_link("base", "<box size='.024 .08 .09'/>", (0, 0, 0.045), 0.2)]
    joints = []
    for chain in chains().values():
        for joint, parent, pos, axis, (length, radius, mass) in chain:
            links.append(_link(joint, f"<cylinder radius='{radius}' length='{length}'/>", (0, 0, length / 2), mass))
            low, high = RANGES.get(joint, [-1.5, 1.8])
            follows = ""
            if joint in COUPLED:
                motor, ratio, offset = COUPLED[joint]
                follows = f"<mimic joint='{motor}' multiplier='{ratio}' offset='{offset}'/>"
            joints.append(
                f"<joint name='{joint}' type='revolute'><parent link='{parent}'/><child link='{joint}'/>"
                f"<origin xyz='{_text(pos)}'/><axis xyz='{_text(axis)}'/>"
                f"<limit lower='{low}' upper='{high}' effort='1' velocity='5'/>{follows}</joint>"
            )
    compiler = "<mujoco><compiler fusestatic='false'/></mujoco>"
    return f"<robot name='six'>{compiler}{''.join(links)}{''.join(joints)}</robot>"


def hand_yaml(model="hand.xml", **changes):
    """Return the content of hand.yaml; coupled joints are named and nothing more."""
    names = [joint for chain in chains().values() for joint, *_ in chain]
    joints = {name: {} for name in names}
    for name, limits in RANGES.items():
        thumb = {"thumb_1": (1.5, -0.1), "thumb_2": (0.05, 0.7)}.get(name, (0.3, 1.0))
        joints[name] = {"range": limits, "open": thumb[0], "closing": thumb[1]}
    tips = {f"{finger}_tip": f"{finger}_2" for finger in FINGERS} | {"thumb_tip": "thumb_4"}
    keypoints = {"wrist": {"weight": 0, "body": "base", "pos": [0.0, 0.0, 0.0]}}
    for name in names:
        keypoints[f"{name}_point"] = {"weight": 1, "body": name, "pos": [0.0, 0.0, 0.0]}
    for tip, body in tips.items():
        keypoints[tip] = {"weight": 2, "body": body, "pos": [0.0, 0.0, 0.034 if body != "thumb_4" else 0.022]}
    return {
        "name": "six_motors",
        "side": "right",
        "model": model,
        "root": "base",
        "source": "a test",
        "palm": {"pos_b": [0.012, 0.0, 0.05], "normal_b": [1, 0, 0], "finger_b": [0, 0, 1]},
        "actuation": {"effort_limit": 0.6, "speed_limit": 5, "kp": 2, "kd": 0.1, "damping": 0.03, "armature": 0.001},
        "joints": joints,
        "keypoints": keypoints,
        "contact_bodies": {"palm": 0} | dict.fromkeys(names, 1),
        "thumb_bodies": [name for name in names if name.startswith("thumb")],
        "grasp": {"offset_y_m": 0.0, "offset_z_m": 0.03, "gap_m": 0.015, "floor_m": 0.07},
    } | changes


def write(folder, way="equalities", **changes):
    """Write the hand; `way`: equalities, tendons, mimic or yaml states its couplings. Return the path of hand.yaml."""
    folder.mkdir(parents=True, exist_ok=True)
    model = "hand.urdf" if way == "mimic" else "hand.xml"
    texts = {"equalities": equalities, "tendons": tendons, "yaml": str}
    (folder / model).write_text(urdf() if way == "mimic" else mjcf(texts[way]()))
    stated = {
        joint: {"follows": motor, "ratio": ratio, "offset": offset} for joint, (motor, ratio, offset) in COUPLED.items()
    }
    values = hand_yaml(model, **({"coupled": stated} if way == "yaml" else {})) | changes
    (folder / "hand.yaml").write_text(yaml.safe_dump(values, sort_keys=False))
    return folder / "hand.yaml"


def _link(name, shape, centre, mass):
    moments = ("ixx", "iyy", "izz", "ixy", "ixz", "iyz")
    inertia = " ".join(f"{key}='{1e-5 if key[1] == key[2] else 0}'" for key in moments)
    return (
        f"<link name='{name}'><inertial><origin xyz='{_text(centre)}'/><mass value='{mass}'/><inertia {inertia}/>"
        f"</inertial><collision><origin xyz='{_text(centre)}'/><geometry>{shape}</geometry></collision></link>"
    )


def _text(numbers):
    return " ".join(map(str, numbers))
