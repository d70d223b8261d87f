"""Draft a hand.yaml from a model: palm frame, fingers, thumb, keypoints, limits, grasp styles.

The draft rests on the shape of the model: the palm is where fingers branch off, fingers bend where their joints turn
about one axis, the thumb is the finger that the others do not resemble. `hands check` shows what came out, `hands tune`
improves the grasp styles.
"""

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import mujoco
import numpy as np
from numpy.typing import NDArray

from dexgrasp.perception.grasp_planning.grasp_style import STYLE_HEIGHTS_M
from dexgrasp.perception.grasp_planning.scoring import FINGER_M
from dexgrasp.perception.motors import Coupling
from dexgrasp.sim.hand_setup.hand_probe import half_thickness
from dexgrasp.sim.robots.coupling import coupled_joints
from dexgrasp.sim.robots.hand_file import (
    ActuationRows,
    GraspRows,
    HandFile,
    JointRow,
    KeypointRow,
    PalmRows,
)
from dexgrasp.sim.robots.hand_model import PALM, hand_model
from dexgrasp.sim.robots.model_checks import compiled
from dexgrasp.sim.robots.models.model_reader import read_model
from dexgrasp.sim.robots.models.model_sources import model_path
from dexgrasp.sim.task.scripted_grasp import ScriptedGraspCfg
from dexgrasp.utils.text import comma_separated, counted, demand_known

log = logging.getLogger("dexgrasp")

Array = NDArray[np.float64]
Side = Literal["right", "left"]

ACTUATION = ActuationRows(effort_limit=1.0, speed_limit=6.0, kp=3.0, kd=0.1, damping=0.05, armature=0.002)
"""Servos of joints of which the model does not state them."""
OPEN_SHARE, CLOSING_RAD = {"power": 0.25, "pinch": 0.4}, (0.5, 8.0)
"""Part of a bending joint's range at the pre-grasp, and limits of its closing direction."""
GAP_M = 0.02
"""Distance of the palm from the object's top; the search begins near it."""
LARGEST_EFFORT_NM, LEAST_STATED = 20.0, 1e-4
"""Torque of a joint above which a model states no real one, as URDFs of unknown servos do, and least of all values."""
BENDS = 0.6
"""Least share of a joint's axis along the bending axis of the fingers."""
TIP_WEIGHT, THUMB_TIP_WEIGHT = 4.0, 8.0
FINGER_CONTACTS, THUMB_CONTACTS = (1.0, 1.0, 3.0), (2.0, 2.0, 12.0)
"""Weights of contact bodies from the palm to the tip; further ones near the palm weigh as the first."""
LONG_M = 0.148
"""Length of the fingers of hands to which STYLE_HEIGHTS_M belong, the shipped ones."""
APART_M = 0.008
"""Least distance of joint keypoints of one finger."""


@dataclass(frozen=True)
class Finger:
    """One finger of a model."""

    bodies: tuple[int, ...]
    """Bodies from the palm to the tip."""
    joints: tuple[int, ...]
    """Joints from the palm to the tip."""
    tip: Array
    """(3,) farthest point of the last body, in its frame [m]."""


@dataclass(frozen=True)
class PalmFrame:
    """Palm frame in the frame of the palm body."""

    pos: Array
    """(3,) centre of the palm's surface [m]."""
    axes: Array
    """(3, 3) rows: palm normal x, y, finger direction z."""


def draft_hand(
    model: str, folder: Path, *, side: Side | None = None, root: str = "", thumb: str = "", name: str = ""
) -> HandFile:
    """Return the draft of a hand.yaml in `folder`.

    `model`: as hand.yaml states it. `side`: None = by the place of the thumb. `root`: body of the palm;
    empty = where most fingers branch off. `thumb`: a body of the thumb; empty = by its name or shape. Raises ValueError
    where no palm or fingers are found.
    """
    file = model_path(model, folder)
    try:
        return _drafted(model, file, side=side, root=root, thumb=thumb, name=name)
    except ValueError as error:
        text = str(error)
        raise ValueError(text if str(file) in text else f"{file}: {text}") from error


def _drafted(model: str, file: Path, *, side: Side | None, root: str, thumb: str, name: str) -> HandFile:
    owner = f"the hand '{file.stem}'"
    root = find_palm(compiled(read_model(file, owner), file, file.stem), root)
    spec = hand_model(file, root, {}, owner)
    draft = _Draft(compiled(spec, file, file.stem), root, thumb)
    uncoupled = draft.hand_file(model, side, name)
    listed = replace(uncoupled, joints={joint.name: JointRow() for joint in spec.joints}, frozen={})
    draft.coupled = coupled_joints(spec, listed, file, file)
    draft.tell_unlimited(file)
    return draft.hand_file(model, side, name)


class _Draft:
    """Parts of a hand, found in a model at the joint positions nearest to zero."""

    def __init__(self, model: mujoco.MjModel, root: str, thumb: str) -> None:
        """`model`: with the palm as body PALM. `root`: its name in the file."""
        self.model, self.data, self.root = model, mujoco.MjData(model), root
        _check_fingers(model)
        self.coupled: Mapping[str, Coupling] = {}
        """Joints without motors, once they are known."""
        self.lower, self.upper = _limits(model)
        self.sites = {model.site(i).name for i in range(model.nsite)}
        self.palm = model.body(PALM).id
        fingers = find_fingers(model, self.palm)
        self._place(np.clip(0.0, self.lower, self.upper))
        chosen = self._thumb(fingers, thumb)
        self.thumb = fingers[chosen]
        self.others = [finger for i, finger in enumerate(fingers) if i != chosen]
        self.frame = self._frame()
        self.bending = {joint: self._bending(finger, joint) for finger in fingers for joint in finger.joints}
        """Sign with which a joint bends its finger towards the palm normal; 0 where it moves it sideways."""

    def tell_unlimited(self, file: Path) -> None:
        """Warn of motors whose joints have no limits in the model."""
        free = [self.model.joint(joint).name for joint in np.flatnonzero(self.model.jnt_limited == 0)]
        if motors := [name for name in free if name not in self.coupled]:
            log.warning(
                "%s: joints without limits: %s; -1.57 to 1.57 rad is written: correct range in hand.yaml",
                file,
                comma_separated(motors),
            )

    def _place(self, joint_pos: Array) -> None:
        self.data.qpos[self.model.jnt_qposadr] = joint_pos
        mujoco.mj_forward(self.model, self.data)

    def _in_palm(self, point_w: Array) -> Array:
        """Return a world point in the frame of the palm body [m]."""
        rotation = self.data.xmat[self.palm].reshape(3, 3)
        return np.asarray((point_w - self.data.xpos[self.palm]) @ rotation)

    def _tip(self, finger: Finger) -> Array:
        body = finger.bodies[-1]
        return self._in_palm(self.data.xpos[body] + self.data.xmat[body].reshape(3, 3) @ finger.tip)

    def _base(self, finger: Finger) -> Array:
        return self._in_palm(self.data.xanchor[finger.joints[0]])

    def _axis(self, joint: int) -> Array:
        return np.asarray(self.data.xaxis[joint] @ self.data.xmat[self.palm].reshape(3, 3))

    def _velocity(self, finger: Finger, joint: int) -> Array:
        """Return the motion of the tip per radian of a joint, palm body frame [m]."""
        arm = self._tip(finger) - self._in_palm(self.data.xanchor[joint])
        return np.asarray(np.cross(self._axis(joint), arm))

    def _thumb(self, fingers: Sequence[Finger], thumb: str) -> int:
        """Return the index of the thumb: as given, by its name, or the finger that differs most from the others."""
        names = [[self.model.body(body).name for body in finger.bodies] for finger in fingers]
        if thumb:
            for i, bodies in enumerate(names):
                if thumb in bodies:
                    return i
            raise ValueError(f"thumb={thumb} is no body of a finger; fingers found: {[bodies[0] for bodies in names]}")
        for i, bodies in enumerate(names):
            if any("thumb" in body.lower() for body in bodies):
                return i
        ends = np.array([np.abs(self._axis(finger.joints[-1])) for finger in fingers])
        bases = np.array([self._base(finger) for finger in fingers])
        spread = max(float(np.linalg.norm(bases - bases.mean(axis=0), axis=1).max()), 1e-6)
        alike = np.linalg.norm(bases - np.median(bases, axis=0), axis=1) / spread
        alike += np.linalg.norm(ends - np.median(ends, axis=0), axis=1)
        return int(np.argmax(alike))

    def _frame(self) -> PalmFrame:
        """Return the palm frame: the fingers' last joints turn about y, fingers point along z and bend towards x."""
        ends = np.array([self._axis(finger.joints[-1]) for finger in self.others])
        y = np.linalg.eigh(ends.T @ ends)[1][:, -1]
        along = np.array([self._tip(finger) - self._base(finger) for finger in self.others]).mean(axis=0)
        z = _unit(along - (along @ y) * y)
        x = np.cross(y, z)
        bent = sum(
            self._towards_limit(finger.joints[-1]) * self._velocity(finger, finger.joints[-1]) for finger in self.others
        )
        x *= 1.0 if bent @ x >= 0 else -1.0
        self.claw = self._is_claw(x, z)
        """Whether the fingers stand on the palm around the object: they open away from it."""
        if self.claw:
            x, z = z, -x
        y = np.cross(z, x)
        bases = [self._in_palm(self.data.xanchor[self._first_bending(finger, y)]) for finger in self.others]
        middle, thumb = np.mean(bases, axis=0), self._base(self.thumb)
        height = 0.5 * (middle + thumb) @ z
        pos = (middle @ y) * y + height * z
        return PalmFrame(pos=pos + self._front(x, middle @ x) * x, axes=np.stack([x, y, z]))

    def _is_claw(self, bend: Array, along: Array) -> bool:
        """Return whether all fingers stand on the palm, and the thumb bends against the others."""
        joint = self.thumb.joints[-1]
        thumb_bend = _unit(self._towards_limit(joint) * self._velocity(self.thumb, joint))
        thumb_along = _unit(self._tip(self.thumb) - self._base(self.thumb))
        apart = self._base(self.thumb) - np.mean([self._base(finger) for finger in self.others], axis=0)
        faces = apart @ bend > abs(apart @ along)  # the thumb stands where the fingers bend to
        return bool(faces and thumb_bend @ bend < -0.5 and thumb_along @ along > 0.8)

    def _towards_limit(self, joint: int) -> float:
        """Return the sign of the farther limit: joints bend further than they stretch."""
        return float(np.sign(self.upper[joint] + self.lower[joint]) or 1.0)

    def _first_bending(self, finger: Finger, y: Array) -> int:
        """Return the joint nearest the palm that turns about y."""
        return next((joint for joint in finger.joints if abs(self._axis(joint) @ y) > BENDS), finger.joints[0])

    def _front(self, x: Array, least: float) -> float:
        """Return how far the palm's geoms reach along its normal, the median of them [m]."""
        reach = [least]
        for geom in np.flatnonzero(self.model.geom_bodyid == self.palm):
            centre = self._in_palm(self.data.geom_xpos[geom])
            box = self.model.geom_aabb[geom]
            rotation = self.data.xmat[self.palm].reshape(3, 3).T @ self.data.geom_xmat[geom].reshape(3, 3)
            reach.append(float(centre @ x + (rotation @ box[:3]) @ x + np.abs(rotation.T @ x) @ box[3:]))
        return float(np.median(reach))

    def _bending(self, finger: Finger, joint: int) -> float:
        if finger is self.thumb:
            return self._towards_limit(joint) if joint in finger.joints[-2:] else 0.0
        along_y = float(self._axis(joint) @ self.frame.axes[1])  # a turn about y leads from the fingers to the normal
        return float(np.sign(along_y)) if abs(along_y) > BENDS else 0.0

    def hand_file(self, model: str, side: Side | None, name: str) -> HandFile:
        """Return the content of hand.yaml."""
        contacts = {self.root: 0.0}
        keypoints = {self._new_site("wrist"): KeypointRow(weight=0.0, body=self.root, pos=(0.0, 0.0, 0.0))}
        for finger in (*self.others, self.thumb):
            contacts |= self._contacts(finger)
            keypoints |= self._keypoints(finger)
        joints = {self.model.joint(joint).name: self._joint(finger, joint) for finger, joint in self._all_joints()}
        x, y, z = self.frame.axes
        return HandFile(
            name=name or Path(model.partition(":")[2] or model).stem,
            side=side or ("right" if (self._base(self.thumb) - self.frame.pos) @ y >= 0 else "left"),
            model=model,
            root=self.root,
            source=f"drafted from {model}",
            palm=PalmRows(pos_b=_vector(self.frame.pos), normal_b=_vector(x), finger_b=_vector(z)),
            actuation=ACTUATION,
            joints=joints,
            frozen=self._still(joints),
            keypoints=keypoints,
            contact_bodies=contacts,
            thumb_bodies=tuple(self._contacts(self.thumb)),
            grasp=GraspRows(
                offset_y_m=0.0,
                offset_z_m=self._ahead(),
                gap_m=(GAP_M, GAP_M),
                floor_m=self._reach(),
                height_m=self._style_heights(),
                finger_m=self._finger(),
            ),
        )

    def _still(self, joints: dict[str, JointRow]) -> dict[str, float]:
        """Return the positions of joints beside the fingers' chains, which stay still.

        Adds rows to `joints` for those that follow others or lead them.
        """
        still, leaders = {}, {coupling.follows for coupling in self.coupled.values()}
        for joint in range(self.model.njnt):
            name = self.model.joint(joint).name
            if name in self.coupled:
                joints.setdefault(name, JointRow())
            elif name not in joints:
                low, high = float(self.lower[joint]), float(self.upper[joint])
                still[name] = min(max(0.0, low), high)
                if name in leaders:
                    joints[name] = JointRow(range=(low, high), open=still.pop(name), closing=0.0)
        return still

    def _all_joints(self) -> Iterator[tuple[Finger, int]]:
        for finger in (*self.others, self.thumb):
            yield from ((finger, joint) for joint in finger.joints)

    def _joint(self, finger: Finger, joint: int) -> JointRow:
        """Return limits, grasp styles and what the model states about the servo of a joint."""
        if self.model.joint(joint).name in self.coupled:
            return JointRow()
        low, high = float(self.lower[joint]), float(self.upper[joint])
        sign, servo = self._motor_bending(joint), _servo(self.model, joint)
        straight = min(max(0.0, low), high)
        bent = high if (sign > 0) != self.claw else low
        opened = [straight + abs(sign) * OPEN_SHARE[style] * (bent - straight) for style in OPEN_SHARE]
        return JointRow(
            range=(round(low, 4), round(high, 4)),
            open=(round(opened[0], 4), round(opened[1], 4)),
            closing=sign * _closing(servo),
            **servo,
        )

    def _motor_bending(self, joint: int) -> float:
        """Return the sign with which a motor bends its finger: by its own joint, or by one that follows it."""
        if self.bending[joint]:
            return self.bending[joint]
        name = self.model.joint(joint).name
        lines = (
            (line.ratio, self.model.joint(other).id) for other, line in self.coupled.items() if line.follows == name
        )
        return next(
            (float(np.sign(ratio)) * self.bending[other] for ratio, other in lines if self.bending.get(other)), 0.0
        )

    def _contacts(self, finger: Finger) -> dict[str, float]:
        """Return the weights of the bodies of a finger that can touch."""
        weights = THUMB_CONTACTS if finger is self.thumb else FINGER_CONTACTS
        touching = [body for body in finger.bodies if self.model.body_geomnum[body]]
        first = len(weights) - len(touching)
        return {self.model.body(body).name: weights[max(0, first + i)] for i, body in enumerate(touching)}

    def _keypoints(self, finger: Finger) -> dict[str, KeypointRow]:
        """Return keypoints at the joints of a finger, as far as they are apart, and at its tip."""
        first = self.model.body(finger.bodies[0]).name
        rows: dict[str, KeypointRow] = {}
        last = np.full(3, np.inf)
        for joint in finger.joints:
            place = self.data.xanchor[joint]
            if np.linalg.norm(place - last) < APART_M:
                continue
            body = self.model.body(int(self.model.jnt_bodyid[joint])).name
            rows[self._new_site(f"{first}_joint{len(rows) + 1}")] = KeypointRow(
                weight=1.0, body=body, pos=(0.0, 0.0, 0.0)
            )
            last = place
        weight = THUMB_TIP_WEIGHT if finger is self.thumb else TIP_WEIGHT
        body = self.model.body(finger.bodies[-1]).name
        rows[self._new_site(f"{first}_tip")] = KeypointRow(weight=weight, body=body, pos=_vector(finger.tip))
        return rows

    def _new_site(self, name: str) -> str:
        """Return a name that no site of the model has."""
        return f"keypoint_{name}" if name in self.sites else name

    def _half_closed_tips(self) -> Array:
        """Return the fingertips (finger, 3) in the palm frame, half closed [m]."""
        pose = np.clip(0.0, self.lower, self.upper)
        for finger, joint in self._all_joints():
            if finger is not self.thumb and self.bending[joint]:
                pose[joint] = 0.5 * (self.lower[joint] + self.upper[joint])
        self._place(pose)
        tips = np.array([(self._tip(finger) - self.frame.pos) @ self.frame.axes.T for finger in self.others])
        self._place(np.clip(0.0, self.lower, self.upper))
        return tips

    def _style_heights(self) -> tuple[float, float]:
        """Return the heights of objects of power and pinch grasp, scaled with the length of the fingers [m]."""
        lengths = [float(np.linalg.norm(self._tip(finger) - self._base(finger))) for finger in self.others]
        scale = float(np.clip(np.mean(lengths) / LONG_M, 0.5, 1.5))
        power, pinch = (round(scale * height, 3) for height in STYLE_HEIGHTS_M)
        return (power, pinch)

    def _finger(self) -> float:
        """Return half the thickness of the fingers at their ends, the median of them [m]."""
        ends = [(finger.bodies[-1], finger.tip) for finger in (*self.others, self.thumb)]
        halves = [half for body, tip in ends if (half := half_thickness(self.model, body, tip)) is not None]
        return round(float(np.clip(np.median(halves), 0.003, 0.03)), 4) if halves else FINGER_M

    def _ahead(self) -> float:
        """Return where the object belongs along the fingers: half way to the half-closed fingertips [m]."""
        return round(float(np.clip(0.5 * self._half_closed_tips()[:, 2].mean(), -0.05, 0.1)), 3)

    def _reach(self) -> float:
        """Return the height of the palm over the table at which half-closed fingers touch it [m]."""
        return round(float(np.clip(self._half_closed_tips()[:, 0].max() + 0.01, 0.02, 0.3)), 3)


def _check_fingers(model: mujoco.MjModel) -> None:
    """Raise ValueError for moving bodies without a name, by which hand.yaml would name them."""
    for body in model.jnt_bodyid:
        if not model.body(body).name:
            above = model.body(model.body_parentid[body]).name
            raise ValueError(f"the body of joint '{model.joint(model.body_jntadr[body]).name}', on '{above}', has no "
                             "name; give it one")  # fmt: skip


def find_palm(model: mujoco.MjModel, root: str) -> str:
    """Return the name of the palm: `root`; empty = the last body from which most fingers branch off."""
    if root:
        demand_known([root], [model.body(body).name for body in range(model.nbody)], "root: body")
        return root
    branches = [len(_moving_children(model, body)) for body in range(model.nbody)]
    found = max(range(model.nbody), key=lambda body: (branches[body], body))
    if branches[found] < 2:
        raise ValueError("no palm found: no body has two or more fingers; give it as root=BODY")
    return str(model.body(found).name)


def find_fingers(model: mujoco.MjModel, palm: int) -> list[Finger]:
    """Return the fingers below the palm, each with its longest chain of joints."""
    fingers = [_finger(model, child) for child in _moving_children(model, palm)]
    if len(fingers) < 2:
        found = f"body '{model.body(palm).name}' carries {counted(len(fingers), 'finger')}"
        raise ValueError(f"{found}; expected at least two: give root=BODY")
    return fingers


def _moving_children(model: mujoco.MjModel, body: int) -> list[int]:
    """Return the bodies on a body whose subtrees have joints."""
    children = [child for child in range(1, model.nbody) if model.body_parentid[child] == body]
    return [child for child in children if _longest_chain(model, child)[1]]


def _longest_chain(model: mujoco.MjModel, body: int) -> tuple[list[int], list[int]]:
    """Return bodies and joints of the branch with most joints that begins at a body."""
    first = int(model.body_jntadr[body])
    joints = list(range(first, first + int(model.body_jntnum[body]))) if first >= 0 else []
    children = [child for child in range(body + 1, model.nbody) if model.body_parentid[child] == body]
    chains = [_longest_chain(model, child) for child in children]
    bodies, further = max(chains, key=lambda chain: (len(chain[1]), len(chain[0])), default=([], []))
    return [body, *bodies], [*joints, *further]


def _finger(model: mujoco.MjModel, child: int) -> Finger:
    bodies, joints = _longest_chain(model, child)
    moving = int(model.jnt_bodyid[joints[-1]])
    bodies = bodies[: bodies.index(moving) + 1]  # what is fixed to the last moving body ends with it
    return Finger(tuple(bodies), tuple(joints), _farthest_point(model, moving))


def _farthest_point(model: mujoco.MjModel, body: int) -> Array:
    """Return the point of a body, with the bodies fixed to it, that is farthest from its origin [m]."""
    data = mujoco.MjData(model)
    mujoco.mj_forward(model, data)
    fixed = {body}
    for child in range(body + 1, model.nbody):
        if model.body_parentid[child] in fixed and not model.body_jntnum[child]:
            fixed.add(child)
    origin, axes = data.xpos[body], data.xmat[body].reshape(3, 3)
    points = [np.zeros(3)]
    for geom in np.flatnonzero(np.isin(model.geom_bodyid, sorted(fixed))):
        rotation, box = data.geom_xmat[geom].reshape(3, 3), model.geom_aabb[geom]
        centre = data.geom_xpos[geom] + rotation @ box[:3] - origin
        away = rotation.T @ centre
        longest = int(np.argmax(np.abs(away) + box[3:]))
        half = np.zeros(3)
        half[longest] = np.copysign(box[3 + longest], away[longest])
        points.append((centre + rotation @ half) @ axes)
    return np.asarray(max(points, key=lambda point: float(np.linalg.norm(point))))


def _limits(model: mujoco.MjModel) -> NDArray[np.float64]:
    """Return the ranges (2, joint) [rad]; joints without limits turn by a quarter to both sides."""
    return np.where(model.jnt_limited[:, None] != 0, model.jnt_range, [-np.pi / 2, np.pi / 2]).T


def _servo(model: mujoco.MjModel, joint: int) -> dict[str, float]:
    """Return what the model states about the servo of a joint: torque, gains, damping, rotor."""
    stated: dict[str, float] = {}
    dof = int(model.jnt_dofadr[joint])
    if model.jnt_actfrclimited[joint]:
        stated["effort_limit"] = float(model.jnt_actfrcrange[joint].max())
    for actuator in range(model.nu):
        if model.actuator_trntype[actuator] == mujoco.mjtTrn.mjTRN_JOINT and model.actuator_trnid[actuator, 0] == joint:
            if model.actuator_forcelimited[actuator]:
                stated["effort_limit"] = float(model.actuator_forcerange[actuator].max())
            if (
                model.actuator_biastype[actuator] == mujoco.mjtBias.mjBIAS_AFFINE
                and model.actuator_biasprm[actuator, 1]
            ):
                stated["kp"] = float(model.actuator_gainprm[actuator, 0])
                stated["kd"] = float(-model.actuator_biasprm[actuator, 2])
    stated |= {"damping": float(model.dof_damping[dof].sum()), "armature": float(model.dof_armature[dof])}
    if stated.get("effort_limit", 0.0) > LARGEST_EFFORT_NM:
        del stated["effort_limit"]
    return {key: round(value, 6) for key, value in stated.items() if value > LEAST_STATED}


def _closing(servo: Mapping[str, float]) -> float:
    """Return the closing direction by which a blocked finger is pressed with the torque of its servo [rad]."""
    effort, kp = servo.get("effort_limit", ACTUATION.effort_limit), servo.get("kp", ACTUATION.kp)
    return round(float(np.clip(effort / (kp * ScriptedGraspCfg().close_rad), *CLOSING_RAD)), 3)


def _unit(vector: Array) -> Array:
    return vector / max(float(np.linalg.norm(vector)), 1e-9)


def _vector(values: Array) -> tuple[float, float, float]:
    x, y, z = (round(float(value), 6) + 0.0 for value in values)
    return (x, y, z)
