"""Robot arms: values of their joints, and differential inverse kinematics (mink)."""

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from itertools import chain
from pathlib import Path
from typing import Any, Protocol

import mink
import mujoco
import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from dexgrasp.perception.transforms import (
    compose,
    quat_conjugate,
    quat_from_rotvec,
    quat_multiply,
    quat_rotate,
    quat_rotate_inverse,
    rotvec_from_quat,
)
from dexgrasp.sim.robots.arms import arm_values
from dexgrasp.sim.robots.arms.arm_file import ArmJointRow, PlaceRow, find_arm
from dexgrasp.sim.robots.arms.arm_model import ArmModel, read_arm_model
from dexgrasp.sim.robots.arms.arm_search import ArmSearch, Ends
from dexgrasp.sim.robots.hand import kinematics_of
from dexgrasp.sim.robots.sticks import body_sticks
from dexgrasp.utils.text import comma_separated, demand_known

log = logging.getLogger("dexgrasp")

POSTURE_COST = 1e-4  # against a position cost of 1 per metre: holds the arm near home where the pose leaves it free

LM_DAMPING = 1e-3  # shortens steps towards poses that are far or out of reach

STEP_TOLERANCE_RAD = 1e-6

REACH_ITERATIONS, REACH_STEP_S = 100, 0.1  # the speed limit keeps the arm from winding round itself

FOLLOW_ITERATIONS = 20  # at each pose of a path, whose poses are near each other

FOLLOW_TOLERANCE = (0.01, 0.06)  # m, rad

START_TURNS_RAD = (0.0, 1.0, -1.0, 2.0, -2.0, 3.0, -3.0)

RANDOM_STARTS = 64  # of a pose that no turned start reaches

HOME_STARTS, PLACE_STARTS, PLACE_POSES = 48, 8, 24  # of each pose

HOME_TURNS_RAD = (0.0, 0.8, -0.8, 1.6, -1.6)

WHOLE_POSE = 6  # joints that a position and an orientation take

HOME_HEIGHTS_M = (0.3, 0.2)

SEARCH_TOLERANCE = (3e-3, np.deg2rad(1.0))  # m, rad; of ends from which the way to the pose is short

REACH_TOLERANCE = (1e-3, np.deg2rad(0.5))  # m, rad

CLEARANCE_M = 0.01  # of the capsules around the links from the table


class CarriedHand(Protocol):
    """Part of a hand on which values of an arm depend; hands and the contracts of bundles have it."""

    @property
    def joint_names(self) -> Sequence[str]:
        """Return the names of the hand's joints."""
        ...

    @property
    def palm_pos_b(self) -> ArrayLike:
        """Return the palm centre in the hand base frame (3,) [m]."""
        ...

    @property
    def palm_quat_b(self) -> ArrayLike:
        """Return the palm frame in the hand base frame (4,) wxyz."""
        ...


@dataclass(frozen=True)
class _Carried:
    """Hand as far as an arm depends on it."""

    joint_names: tuple[str, ...] = ()
    palm_pos_b: tuple[float, ...] = (0.01, 0.0, 0.09)
    palm_quat_b: tuple[float, ...] = (1.0, 0.0, 0.0, 0.0)


@dataclass(frozen=True, eq=False)
class ArmSpec:
    """An arm as data. Arrays are per joint, from base to flange."""

    name: str
    joint_names: tuple[str, ...]
    joint_lower: np.ndarray
    """(joint,) [rad]"""
    joint_upper: np.ndarray
    """(joint,) [rad]"""
    effort_limit: np.ndarray
    """(joint,) [N m]"""
    speed_limit: np.ndarray
    """(joint,) [rad/s]"""
    kp: np.ndarray
    """(joint,) [N m/rad] Position gain."""
    kd: np.ndarray
    """(joint,) [N m s/rad] Velocity gain."""
    armature: np.ndarray
    """(joint,) [kg m2] Inertia of the rotor, seen from the joint."""
    home: np.ndarray
    """(joint,) [rad] Palm over the middle of the workspace, facing down."""
    base_pos_w: np.ndarray
    """(3,) [m] Base of the arm in the world."""
    base_yaw_rad: float
    model: ArmModel
    """Bodies from base to flange."""
    source: str
    folder: Path
    """Folder of the description."""

    @classmethod
    def load(
        cls, mount: str, hand: CarriedHand | None = None, base: tuple[Sequence[float], float] | None = None
    ) -> "ArmSpec":
        """Return an arm by the name of a shipped one, a folder, an arm.yaml, an MJCF or a URDF.

        Values that are not stated are derived, home for the palm of `hand`. A joint of which the hand has a namesake is
        called arm_NAME. `base`: position [m] and yaw [rad] of the base in the world instead of the stated one.
        """
        files = find_arm(mount)
        stamps = tuple(file.stat().st_mtime_ns for file in (files.file, files.model))
        carried = _Carried()
        if hand is not None:
            pose = (tuple(map(float, np.asarray(value))) for value in (hand.palm_pos_b, hand.palm_quat_b))
            pos_b, quat_b = pose
            carried = _Carried(joint_names=tuple(hand.joint_names), palm_pos_b=pos_b, palm_quat_b=quat_b)
        place = None if base is None else (*map(float, base[0]), float(base[1]))
        return _load(mount, stamps, carried, place)

    @property
    def flange(self) -> str:
        """Return the site whose frame is the hand base frame."""
        return self.model.tip

    def to_mjspec(self) -> mujoco.MjSpec:
        """Return a new editable model, with servos and gravity compensation, at its place in the world."""
        spec = self.model.to_mjspec(self.joint_names)
        base = spec.worldbody.first_body()
        base.pos = self.base_pos_w
        base.quat = [np.cos(self.base_yaw_rad / 2), 0.0, 0.0, np.sin(self.base_yaw_rad / 2)]
        for body in spec.bodies[1:]:
            body.gravcomp = 1.0
        for i, name in enumerate(self.joint_names):
            joint = spec.joint(name)
            joint.range = [self.joint_lower[i], self.joint_upper[i]]
            joint.limited = mujoco.mjtLimited.mjLIMITED_TRUE
            joint.armature = self.armature[i]
            servo = spec.add_actuator(name=name, target=name, trntype=mujoco.mjtTrn.mjTRN_JOINT)
            servo.set_to_position(kp=self.kp[i], kv=self.kd[i])
            servo.forcerange = [-self.effort_limit[i], self.effort_limit[i]]
            servo.ctrlrange = [self.joint_lower[i], self.joint_upper[i]]
        return spec

    @cached_property
    def compiled(self) -> mujoco.MjModel:
        """Return the compiled model of the arm alone."""
        return self.to_mjspec().compile()

    @cached_property
    def sticks(self) -> list[arm_values.Stick]:
        """Return the capsules around the links: body, ends in its frame [m], radius [m]."""
        model = self.compiled
        return [
            (int(model.geom_bodyid[i]), *stick) for i in range(model.ngeom) for stick in body_sticks(model, i, layers=2)
        ]

    def wrist(self, hand: CarriedHand) -> tuple[float, float]:
        """Return offset and clearance of the wrist [m], rounded up to a millimetre.

        That is the distance from the palm to the last joint, against the fingers, and the least height of that joint.
        """
        model, data = self.compiled, mujoco.MjData(self.compiled)
        mujoco.mj_kinematics(model, data)
        flange = data.site(self.flange)
        centre = arm_values.wrist_centre(data, [model.joint(name).id for name in self.joint_names[-2:]])
        joint_b = flange.xmat.reshape(3, 3).T @ (centre - flange.xpos)
        fingers = quat_rotate(_tensor(hand.palm_quat_b), torch.tensor([0.0, 0.0, 1.0], dtype=torch.float64)).numpy()
        behind_m = float((np.asarray(hand.palm_pos_b) - joint_b) @ fingers)
        radius_m = arm_values.housing_radius(self.sticks, data, centre, model.joint(self.joint_names[-1]).id)
        return _up_to_mm(behind_m), _up_to_mm(radius_m + arm_values.HOUSING_MARGIN_M)


def _up_to_mm(length_m: float) -> float:
    return float(np.ceil(length_m * 1e3 - 1e-6) / 1e3)


def _tensor(values: ArrayLike) -> Tensor:
    return torch.tensor(np.asarray(values, dtype=np.float64))


@lru_cache(maxsize=16)
def _load(
    mount: str, stamps: tuple[int, ...], hand: _Carried, base: tuple[float, float, float, float] | None
) -> ArmSpec:
    """Return the arm; `stamps`: times of its files, so that changed ones are read again."""
    found = find_arm(mount)
    stated = found.content
    model = read_arm_model(found.model, stated.base, stated.tip)
    names = [joint.name for joint in model.joints]
    demand_known(stated.joints, names, f"{found.file}: joints: joint")
    rows = [stated.joints.get(name, ArmJointRow()) for name in names]
    lower, upper = (
        np.array(limits)
        for limits in zip(*(_range(row, joint) for row, joint in zip(rows, model.joints, strict=True)), strict=True)
    )
    arm = ArmSpec(
        name=stated.name,
        joint_names=_scene_names(found.file, names, hand.joint_names),
        joint_lower=lower,
        joint_upper=upper,
        base_pos_w=np.zeros(3),
        base_yaw_rad=0.0,
        home=np.clip(0.0, lower, upper),
        model=model,
        source=stated.source,
        folder=found.folder,
        **_servos(rows, model, lower, upper),
    )
    if base is not None:
        arm = replace(arm, base_pos_w=np.array(base[:3]), base_yaw_rad=base[3])
    else:
        arm = _placed(arm, stated.place)
    if stated.joints and all(row.home is not None for row in rows):
        home = np.array([row.home for row in rows], dtype=float)
        return replace(arm, home=home)
    home = _home(arm, hand)
    if home is None:
        raise ValueError(
            f"{found.file}: the arm does not bring the palm over the middle of the table, facing down, within its "
            f"joint limits, from its base at {np.round(arm.base_pos_w, 3).tolist()}: state another `place` in an "
            "arm.yaml, or the `home` of all joints"
        )
    arm = replace(arm, home=home)
    _tell(found.file, arm)
    return arm


def _range(row: ArmJointRow, joint: Any) -> tuple[float, float]:
    return (joint.lower, joint.upper) if row.range is None else row.range


def _scene_names(file: Path, names: Sequence[str], of_hand: Sequence[str]) -> tuple[str, ...]:
    """Return the names of the joints, with a prefix where the hand has a joint of that name."""
    if twice := sorted(set(names) & set(of_hand)):
        log.info(f"{file}: the hand has joints {comma_separated(twice)} too: the arm's are called arm_NAME")
    return tuple(f"arm_{name}" if name in of_hand else name for name in names)


def _servos(
    rows: Sequence[ArmJointRow], model: ArmModel, lower: np.ndarray, upper: np.ndarray
) -> dict[str, np.ndarray]:
    """Return limits and gains (joint,), as stated, else as in the model, else derived."""

    def column(key: str, known: Sequence[float] | np.ndarray) -> np.ndarray:
        stated = [getattr(row, key) for row in rows]
        return np.array([value if own is None else own for own, value in zip(stated, known, strict=True)], dtype=float)

    def in_model(key: str, default: np.ndarray | float) -> np.ndarray:
        values = np.array([getattr(joint, key) for joint in model.joints])
        return column(key, np.where(np.isfinite(values), values, default))

    armature = in_model("armature", arm_values.ARMATURE)
    moved = arm_values.dynamics(model, lower, upper)
    inertia = moved.inertia + armature
    effort_nm = np.maximum(arm_values.EFFORT_FACTOR * moved.holding_nm, arm_values.LEAST_EFFORT_NM)
    return {
        "effort_limit": in_model("effort_limit", effort_nm),
        "speed_limit": in_model("speed_limit", arm_values.SPEED_RAD_S),
        "kp": column("kp", inertia * arm_values.NATURAL_RAD_S**2),
        "kd": column("kd", inertia * 2 * arm_values.DAMPING_RATIO * arm_values.NATURAL_RAD_S),
        "armature": armature,
    }


def _placed(arm: ArmSpec, place: PlaceRow | None) -> ArmSpec:
    """Return the arm with its base in the world: as stated, else where most poses of the workspace are reached.

    The derived base stands beside the workspace, at a share of the arm's reach, and is turned so that joint 1 is in the
    middle of its range where the palm is over the workspace.
    """
    if place is not None:
        return replace(arm, base_pos_w=np.array(place.pos_w, dtype=float), base_yaw_rad=float(place.yaw_rad))
    reach_m = arm_values.dynamics(arm.model, arm.joint_lower, arm.joint_upper).reach_m
    hand, best = _Carried(), (-1, 0.0)
    poses = arm_values.workspace_poses(PLACE_POSES)
    for share in arm_values.DISTANCES:
        moved = replace(arm, base_pos_w=np.array([-round(share * reach_m, 3), 0.0, 0.0]))
        ik = ArmIK(moved, hand)
        _, good, merit = ik.search(*poses, PLACE_STARTS)
        reached = good.view(-1, PLACE_STARTS).any(dim=1).sum()
        best, arm = max((best, arm), ((int(reached), float(merit[good].sum())), moved), key=lambda item: item[0])
    model, data = arm.compiled, mujoco.MjData(arm.compiled)
    mujoco.mj_kinematics(model, data)
    first = model.joint(arm.joint_names[0]).id
    axis, anchor = data.xaxis[first], data.xanchor[first] - arm.base_pos_w
    home = _home(arm, hand)
    if home is None or abs(axis[2]) < 0.99 or np.linalg.norm(anchor[:2]) > 1e-3:
        return arm
    turn = home[0] - (arm.joint_lower[0] + arm.joint_upper[0]) / 2
    return replace(arm, base_yaw_rad=float(np.sign(axis[2]) * turn))


def _home(arm: ArmSpec, hand: _Carried) -> np.ndarray | None:
    """Return joint positions (joint,) [rad] with the palm over the middle of the workspace, facing down.

    Of the positions found from drawn starts, with the fingers away from the base or up to a quarter turn from there,
    the one of most merit, see `ArmIK.search`; with fewer than 6 joints, the one whose palm faces down
    best. None where none is found.
    """
    away = float(np.arctan2(-arm.base_pos_w[1], -arm.base_pos_w[0])) if np.any(arm.base_pos_w[:2]) else 0.0
    yaw = torch.tensor([away + turn for turn in HOME_TURNS_RAD], dtype=torch.float64)
    turns = quat_from_rotvec(torch.stack([0 * yaw, 0 * yaw, yaw], dim=-1))
    quat_w = quat_multiply(turns, _tensor(arm_values.PALM_DOWN).expand_as(turns))
    ik = ArmIK(arm, hand)
    for height_m in HOME_HEIGHTS_M:
        pos_w = torch.tensor([0.0, 0.0, height_m], dtype=torch.float64).expand(len(yaw), 3)
        ends, good, merit = ik.search(pos_w, quat_w, HOME_STARTS)
        if good.any():
            score = merit if len(arm.joint_names) >= WHOLE_POSE else -ends.angle_rad
            return ends.q[torch.where(good, score, -torch.inf).argmax()].numpy()
    return None


def _tell(file: Path, arm: ArmSpec) -> None:
    """Log what was found in a model and derived from it."""
    model = arm.model
    parts = [f"arm '{arm.name}' of {file}: {len(arm.joint_names)} joints from '{model.base}' to '{model.tip}'"]
    if model.dropped_joints:
        parts.append(f"left out with joints {comma_separated(model.dropped_joints)}")
    if len(arm.joint_names) < WHOLE_POSE:
        parts.append("with fewer than 6 joints it reaches few orientations of the palm")
    parts.append(f"base at {np.round(arm.base_pos_w, 3).tolist()}, yaw {arm.base_yaw_rad:.3f} rad")
    log.info("; ".join(parts))


class ArmIK:
    """Differential inverse kinematics of an arm, from poses to joint targets.

    Poses are of the hand base or of the palm.

    Each iteration solves mink's quadratic programme: the joint step that reduces the pose error most, within joint and
    speed limits, damped where the arm is singular. Rows (env) are solved one after the other, on the CPU.
    """

    def __init__(
        self, arm: ArmSpec, hand: CarriedHand | None = None, step_s: float = 0.05, iterations: int = 4
    ) -> None:
        """Poses are of the hand's palm frame, or of the flange (= hand base frame) when `hand` is None.

        One `solve` takes `iterations` steps and moves no joint further than its speed allows in `step_s`.
        """
        self.arm, self._iterations, self._dt_s = arm, iterations, step_s / iterations
        spec = arm.to_mjspec()
        flange = spec.site(arm.flange)
        target = flange.parent.add_site(name="target", pos=flange.pos, quat=flange.quat)
        if hand is not None:
            pose = (_tensor(v) for v in (flange.pos, flange.quat, hand.palm_pos_b, hand.palm_quat_b))
            target.pos, target.quat = (v.numpy() for v in compose(*pose))
        model = spec.compile()
        self._kinematics = kinematics_of(model, arm.joint_names, ["target"]).to(torch.float64)
        self._base = torch.tensor(model.body_pos[1]), torch.tensor(model.body_quat[1])
        self._offset = torch.tensor(target.pos), torch.tensor(target.quat)
        self._configuration = mink.Configuration(model)
        hinges = np.zeros(model.nbody, dtype=int)  # between the table and each body
        for body in range(1, model.nbody):
            hinges[body] = hinges[model.body_parentid[body]] + model.body_jntnum[body]
        sticks = [stick for stick in arm.sticks if hinges[stick[0]] > 1]  # what joint 1 turns stands on the table
        self._stick_body = np.array([body for body, *_ in sticks], dtype=int)
        self._stick_ends = np.array([[start, end] for _, start, end, _ in sticks]).reshape(-1, 2, 3)
        self._stick_radius = np.array([radius for *_, radius in sticks])
        self._stick_hinges = hinges[self._stick_body]
        self._search = ArmSearch(
            kinematics=self._kinematics,
            base=self._base,
            target=self._offset,
            lower=torch.from_numpy(arm.joint_lower),
            upper=torch.from_numpy(arm.joint_upper),
        )
        self._turned_joint = self._joint_that_turns_the_palm(model)
        self._frame = mink.FrameTask("target", "site", position_cost=1.0, orientation_cost=0.3, lm_damping=LM_DAMPING)
        posture = mink.PostureTask(model, cost=POSTURE_COST)
        posture.set_target(arm.home)
        self._tasks = [self._frame, posture]
        speed = mink.VelocityLimit(model, dict(zip(arm.joint_names, arm.speed_limit, strict=True)))
        self._limits = [mink.ConfigurationLimit(model), speed]

    def forward(self, q_arm: Tensor) -> tuple[Tensor, Tensor]:
        """Return the pose in the world, (env, 3) [m] and (env, 4), at joint positions (env, joint) [rad]."""
        base_pos, base_quat = (v.expand(*q_arm.shape[:-1], -1) for v in self._base)
        pos, quat = self._kinematics.forward(base_pos, base_quat, q_arm.double())
        carrier = self._kinematics.keypoint_body[0]
        pos, quat = compose(pos[..., carrier, :], quat[..., carrier, :], *self._offset)
        return pos.to(q_arm.dtype), quat.to(q_arm.dtype)

    def solve(self, q_arm: Tensor, pos_w: Tensor, quat_w: Tensor) -> Tensor:
        """Return joint targets (env, joint) [rad] one control step from `q_arm` (env, joint) towards a pose.

        `pos_w` (env, 3), `quat_w` (env, 4).
        """
        rows = zip(q_arm.double().numpy(), pos_w.double().numpy(), quat_w.double().numpy(), strict=True)
        solved = [self._descend(q, pos, quat, self._dt_s, self._iterations) for q, pos, quat in rows]
        return torch.from_numpy(np.stack(solved)).to(q_arm.dtype)

    def reach(self, pos_w: Tensor, quat_w: Tensor) -> tuple[Tensor, Tensor]:
        """Return joint positions (env, joint) [rad] at a pose, and the mask (env,) of poses reached.

        A pose counts as reached within REACH_TOLERANCE. No initial joint position is needed.

        Starts at home with the hand turned about the vertical by several angles, then at what a search from drawn
        positions finds; keeps the first good end that has the arm above the table, else the one that has it highest.
        """
        found = [self._reach(pos, quat) for pos, quat in zip(pos_w.double(), quat_w.double(), strict=True)]
        q_arm, error = (torch.stack(column) for column in zip(*found, strict=True))
        return q_arm.to(pos_w.dtype), error <= 1

    def reaches(self, pos_w: Tensor, quat_w: Tensor) -> Tensor:
        """Return whether poses (pose, 3), (pose, 4) are reached, mask (pose,)."""
        return self.reach(pos_w, quat_w)[1]

    def follows(self, q_arm: Tensor, pos_w: Tensor, quat_w: Tensor) -> bool:
        """Return whether steps from joints (joint,) [rad] follow poses (pose, 3) [m], (pose, 4).

        A pose that can be reached does not follow where a joint limit or a singular position is in the way.
        """
        q = q_arm.double().numpy()
        for pos, quat in zip(pos_w.double(), quat_w.double(), strict=True):
            q = self._descend(q, pos.numpy(), quat.numpy(), REACH_STEP_S, FOLLOW_ITERATIONS)
            distance, angle = self._differences(torch.from_numpy(q), pos, quat)
            if distance > FOLLOW_TOLERANCE[0] or angle > FOLLOW_TOLERANCE[1]:
                return False
        return True

    def search(self, pos_w: Tensor, quat_w: Tensor, count: int) -> tuple[Ends, Tensor, Tensor]:
        """Return the ends of `count` searches for each pose (pose, 3) [m], (pose, 4), and their value.

        The second result says which are good, the third how much they merit.

        Rows are pose by pose, from starts drawn between the limits, always the same. Good ends, mask (row,), are at the
        pose and above the table; of an arm with fewer than WHOLE_POSE joints only the position counts. The merit (row,)
        is high far from joint limits and singular positions, and where the last three links are no lower than the palm,
        which descends.
        """
        starts = torch.tensor(np.stack([*arm_values.drawn(self.arm.joint_lower, self.arm.joint_upper, count)]))
        poses = (value.repeat_interleave(count, dim=0) for value in (pos_w, quat_w))
        ends = self._search(starts.repeat(len(pos_w), 1), *poses)
        heights = ends.body_pos_w[:, self._stick_body - 1, 2].numpy()
        upright = torch.tensor([0.0, 0.0, 1.0], dtype=torch.float64).expand(*ends.body_pos_w.shape[:2], 3)
        rows = quat_rotate_inverse(ends.body_quat_w, upright)[:, self._stick_body - 1].numpy()
        lowest_m = torch.from_numpy(self._lowest_m(heights, rows))
        good = (ends.distance_m < SEARCH_TOLERANCE[0]) & (lowest_m >= CLEARANCE_M).all(dim=1)
        if len(self.arm.joint_names) >= WHOLE_POSE:
            good &= ends.angle_rad < SEARCH_TOLERANCE[1]
        palm_m = pos_w[:, 2].repeat_interleave(count).clamp(min=CLEARANCE_M)
        near_palm = torch.from_numpy(self._stick_hinges > len(self.arm.joint_names) - 3)
        level = (lowest_m[:, near_palm].amin(dim=1) / palm_m).clamp(0.0, 1.0) if near_palm.any() else 1.0
        return ends, good, self.room(ends.q) * ends.dexterity * level**2

    def room(self, q_arm: Tensor) -> Tensor:
        """Return the distance of joint positions (..., joint) from limits, 0 to 1 (a quarter turn)."""
        lower, upper = self._search.lower, self._search.upper
        share = torch.minimum(q_arm - lower, upper - q_arm) / ((upper - lower) / 2).clamp(max=np.pi / 2)
        return share.clamp(0.0, 1.0).amin(dim=-1)

    def _reach(self, pos_w: Tensor, quat_w: Tensor) -> tuple[Tensor, Tensor]:
        """Return joint positions (joint,) at one pose (3,), (4,), and the error in units of REACH_TOLERANCE."""
        tried = []
        for start in chain(self._starts, self._found_starts(pos_w, quat_w)):
            q = torch.from_numpy(self._descend(start, pos_w.numpy(), quat_w.numpy(), REACH_STEP_S, REACH_ITERATIONS))
            data, body = self._configuration.data, self._stick_body
            lowest_m = self._lowest_m(data.xpos[None, body, 2], data.xmat.reshape(-1, 3, 3)[None, body, 2])[0]
            sunk_m = max(0.0, CLEARANCE_M - float(lowest_m.min(initial=CLEARANCE_M)))
            error = self._error(q, pos_w, quat_w)
            tried.append((bool(error > 1), sunk_m, float(error), q, error))
            if error <= 1 and sunk_m == 0:
                break
        return min(tried, key=lambda item: item[:3])[3:]

    def _found_starts(self, pos_w: Tensor, quat_w: Tensor) -> Iterator[np.ndarray]:
        """Yield the end of a search that is above the table and nearest home, if there is one."""
        ends, good, _ = self.search(pos_w[None], quat_w[None], RANDOM_STARTS)
        if good.any():
            far = (ends.q - torch.from_numpy(self.arm.home)).norm(dim=1)
            yield ends.q[torch.where(good, far, torch.inf).argmin()].numpy()

    def _lowest_m(self, height_m: np.ndarray, upward: np.ndarray) -> np.ndarray:
        """Return the heights (pose, capsule) of the lowest points of the links' capsules above the table [m].

        `height_m` (pose, capsule), `upward` (pose, capsule, 3): origin of each capsule's body, and the vertical in it.
        """
        ends = np.einsum("psk,sek->pse", upward, self._stick_ends) + height_m[..., None]
        return ends.min(axis=2) - self._stick_radius

    def _joint_that_turns_the_palm(self, model: mujoco.MjModel) -> int:
        """Return the number of the joint, of the last three, whose axis is most nearly vertical at home."""
        data = mujoco.MjData(model)
        data.qpos[:] = self.arm.home
        mujoco.mj_kinematics(model, data)
        last = range(max(0, model.njnt - 3), model.njnt)
        return max(last, key=lambda i: abs(data.xaxis[i, 2]))

    @cached_property
    def _starts(self) -> np.ndarray:
        """Return initial joint positions (start, joint): home with the palm turned either way."""
        starts = np.tile(self.arm.home, (len(START_TURNS_RAD), 1))
        starts[:, self._turned_joint] += START_TURNS_RAD
        return np.clip(starts, self.arm.joint_lower, self.arm.joint_upper)

    def _differences(self, q_arm: Tensor, pos_w: Tensor, quat_w: Tensor) -> tuple[Tensor, Tensor]:
        """Return distance [m] and angle [rad] between the poses at joint positions and those wanted (...)."""
        pos, quat = self.forward(q_arm)
        angle = rotvec_from_quat(quat_multiply(quat_conjugate(quat), quat_w.expand_as(quat))).norm(dim=-1)
        return (pos - pos_w).norm(dim=-1), angle

    def _error(self, q_arm: Tensor, pos_w: Tensor, quat_w: Tensor) -> Tensor:
        """Return the pose error (...) in units of REACH_TOLERANCE: the larger of position and angle."""
        distance, angle = self._differences(q_arm, pos_w, quat_w)
        return torch.maximum(distance / REACH_TOLERANCE[0], angle / REACH_TOLERANCE[1])

    def _descend(
        self, q: np.ndarray, pos_w: np.ndarray, quat_w: np.ndarray, dt_s: float, iterations: int
    ) -> np.ndarray:
        """Iterate up to `iterations` steps of `dt_s` from one q (joint,), at limited speed.

        Stops where the steps vanish.
        """
        q = np.clip(q, self.arm.joint_lower, self.arm.joint_upper)
        self._configuration.update(q)
        self._frame.set_target(mink.SE3.from_rotation_and_translation(mink.SO3(quat_w), pos_w))
        for _ in range(iterations):
            speed = mink.solve_ik(self._configuration, self._tasks, dt_s, "daqp", damping=1e-9, limits=self._limits)
            self._configuration.integrate_inplace(speed, dt_s)
            if np.abs(speed).max() * dt_s < STEP_TOLERANCE_RAD:
                break
        return np.clip(self._configuration.q, self.arm.joint_lower, self.arm.joint_upper)
