"""Robot arms: description files and differential inverse kinematics (mink)."""

from dataclasses import dataclass
from pathlib import Path
from typing import Self

import mink
import mujoco
import numpy as np
import torch
from torch import Tensor

from dexgrasp import assets
from dexgrasp.configs.loader import read_plain
from dexgrasp.perception.transforms import compose, quat_conjugate, quat_multiply, rotvec_from_quat
from dexgrasp.sim.robots.hand import HandSpec, kinematics_of
from dexgrasp.sim.robots.model_reader import read_model
from dexgrasp.utils.text import demand_known, did_you_mean, shown

POSTURE_COST = 1e-4  # against a position cost of 1 per metre: holds the arm near home where the pose leaves it free

LM_DAMPING = 1e-3  # shortens steps towards poses that are far or out of reach

STEP_TOLERANCE_RAD = 1e-6

REACH_ITERATIONS, REACH_STEP_S = 100, 0.1  # the speed limit keeps the arm from winding round itself

START_TURNS_RAD = (0.0, 1.0, -1.0, 2.0, -2.0, 3.0, -3.0)

REACH_TOLERANCE = (1e-3, np.deg2rad(0.5))  # m, rad

CLEARANCE_M = 0.1  # of the arm's joints from the table; its tubes are thinner

_ARM_KEYS = ("name", "xml", "flange", "source", "base", "joints")

_JOINT_KEYS = ("range", "effort_limit", "speed_limit", "kp", "kd", "armature", "home")


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
    flange: str
    """Site whose frame is the hand base frame."""
    source: str
    xml_path: Path

    @classmethod
    def load(cls, name: str) -> Self:
        """Return the arm `name` of assets/arms."""
        if name not in assets.names("arms"):
            known = assets.names("arms")
            raise FileNotFoundError(f"no arm {shown(name)}; expected one of {known}.{did_you_mean(name, known)}")
        file = assets.path(f"arms/{name}/arm.yaml")
        text = read_plain(file)
        demand_known(text, _ARM_KEYS, f"{file}: key")
        for joint, row in text["joints"].items():
            demand_known(row, _JOINT_KEYS, f"{file}: joints.{joint}: key")
        columns = {k: np.array([row[k] for row in text["joints"].values()], dtype=float) for k in _JOINT_KEYS}
        lower, upper = columns.pop("range").T
        arm = cls(
            name=text["name"],
            joint_names=tuple(text["joints"]),
            joint_lower=lower,
            joint_upper=upper,
            base_pos_w=np.array(text["base"]["pos_w"], dtype=float),
            base_yaw_rad=float(text["base"]["yaw_rad"]),
            flange=text["flange"],
            source=text["source"],
            xml_path=file.parent / text["xml"],
            **columns,
        )
        spec = read_model(arm.xml_path, f"the arm '{arm.name}'")
        demand_known(arm.joint_names, [j.name for j in spec.joints], f"{file}: joints: joint")
        demand_known([arm.flange], [s.name for s in spec.sites], f"{file}: flange: site")
        return arm

    def to_mjspec(self) -> mujoco.MjSpec:
        """Return a new editable model, with servos and gravity compensation, at its place in the world."""
        spec = mujoco.MjSpec.from_file(str(self.xml_path))
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


class ArmIK:
    """Differential inverse kinematics of an arm, from poses to joint targets.

    Poses are of the hand base or of the palm.

    Each iteration solves mink's quadratic programme: the joint step that reduces the pose error most, within joint and
    speed limits, damped where the arm is singular. Rows (env) are solved one after the other, on the CPU.
    """

    def __init__(self, arm: ArmSpec, hand: HandSpec | None = None, step_s: float = 0.05, iterations: int = 4) -> None:
        """Poses are of the hand's palm frame, or of the flange (= hand base frame) when `hand` is None.

        One `solve` takes `iterations` steps and moves no joint further than its speed allows in `step_s`.
        """
        self.arm, self._iterations, self._dt_s = arm, iterations, step_s / iterations
        spec = arm.to_mjspec()
        flange = spec.site(arm.flange)
        target = flange.parent.add_site(name="target", pos=flange.pos, quat=flange.quat)
        if hand is not None:
            pose = (torch.tensor(v) for v in (flange.pos, flange.quat, hand.palm_pos_b, hand.palm_quat_b))
            target.pos, target.quat = (v.numpy() for v in compose(*pose))
        model = spec.compile()
        self._kinematics = kinematics_of(model, arm.joint_names, ["target"]).to(torch.float64)
        self._base = torch.tensor(model.body_pos[1]), torch.tensor(model.body_quat[1])
        self._offset = torch.tensor(target.pos), torch.tensor(target.quat)
        self._configuration = mink.Configuration(model)
        self._links = [
            int(model.joint(name).bodyid[0]) for name in arm.joint_names[1:]
        ]  # the first stands on the table
        self._frame = mink.FrameTask("target", "site", position_cost=1.0, orientation_cost=0.3, lm_damping=LM_DAMPING)
        posture = mink.PostureTask(model, cost=POSTURE_COST)
        posture.set_target(arm.home)
        self._tasks = [self._frame, posture]
        speed = mink.VelocityLimit(model, dict(zip(arm.joint_names, arm.speed_limit, strict=True)))
        self._limits = [mink.ConfigurationLimit(model), speed]

    def forward(self, q_arm: Tensor) -> tuple[Tensor, Tensor]:
        """Return the pose in the world, (env, 3) [m] and (env, 4), at joint positions (env, 6) [rad]."""
        base_pos, base_quat = (v.expand(*q_arm.shape[:-1], -1) for v in self._base)
        pos, quat = self._kinematics.forward(base_pos, base_quat, q_arm.double())
        pos, quat = compose(pos[..., -1, :], quat[..., -1, :], *self._offset)
        return pos.to(q_arm.dtype), quat.to(q_arm.dtype)

    def solve(self, q_arm: Tensor, pos_w: Tensor, quat_w: Tensor) -> Tensor:
        """Return joint targets (env, 6) [rad] one control step from `q_arm` (env, 6) towards a pose.

        `pos_w` (env, 3), `quat_w` (env, 4).
        """
        rows = zip(q_arm.double().numpy(), pos_w.double().numpy(), quat_w.double().numpy(), strict=True)
        solved = [self._descend(q, pos, quat, self._dt_s, self._iterations) for q, pos, quat in rows]
        return torch.from_numpy(np.stack(solved)).to(q_arm.dtype)

    def reach(self, pos_w: Tensor, quat_w: Tensor) -> tuple[Tensor, Tensor]:
        """Return joint positions (env, 6) [rad] at a pose, and the mask (env,) of poses reached.

        A pose counts as reached within REACH_TOLERANCE. No initial joint position is needed.

        Starts at home with the hand turned about the vertical (wrist 2) by several angles; keeps the first good end
        that has the arm above the table, else the one that has it highest.
        """
        found = [self._reach(pos, quat) for pos, quat in zip(pos_w.double(), quat_w.double(), strict=True)]
        q_arm, error = (torch.stack(column) for column in zip(*found, strict=True))
        return q_arm.to(pos_w.dtype), error <= 1

    def reaches(self, pos_w: Tensor, quat_w: Tensor) -> Tensor:
        """Return whether poses (pose, 3), (pose, 4) are reached, mask (pose,)."""
        return self.reach(pos_w, quat_w)[1]

    def _reach(self, pos_w: Tensor, quat_w: Tensor) -> tuple[Tensor, Tensor]:
        """Return joint positions (6,) at one pose (3,), (4,), and the error in units of REACH_TOLERANCE."""
        tried = []
        for start in self._starts():
            q = torch.from_numpy(self._descend(start, pos_w.numpy(), quat_w.numpy(), REACH_STEP_S, REACH_ITERATIONS))
            error, sunk_m = self._error(q, pos_w, quat_w), self._sunk_m()
            tried.append((bool(error > 1), sunk_m, float(error), q, error))
            if error <= 1 and sunk_m == 0:
                break
        return min(tried, key=lambda item: item[:3])[3:]

    def _sunk_m(self) -> float:
        """Return the depth of the last pose's lowest joint below CLEARANCE_M above the table [m]."""
        lowest_m = float(self._configuration.data.xpos[self._links, 2].min())
        return max(0.0, CLEARANCE_M - lowest_m)

    def _starts(self) -> np.ndarray:
        """Return initial joint positions (start, 6): home, with wrist 2 turned either way."""
        starts = np.tile(self.arm.home, (len(START_TURNS_RAD), 1))
        starts[:, -2] += START_TURNS_RAD
        return np.clip(starts, self.arm.joint_lower, self.arm.joint_upper)

    def _error(self, q_arm: Tensor, pos_w: Tensor, quat_w: Tensor) -> Tensor:
        """Return the pose error (...) in units of REACH_TOLERANCE: the larger of position and angle."""
        pos, quat = self.forward(q_arm)
        angle = rotvec_from_quat(quat_multiply(quat_conjugate(quat), quat_w.expand_as(quat))).norm(dim=-1)
        return torch.maximum((pos - pos_w).norm(dim=-1) / REACH_TOLERANCE[0], angle / REACH_TOLERANCE[1])

    def _descend(
        self, q: np.ndarray, pos_w: np.ndarray, quat_w: np.ndarray, dt_s: float, iterations: int
    ) -> np.ndarray:
        """Iterate up to `iterations` steps of `dt_s` from one q (6,), at limited speed.

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
