"""MuJoCo as a robot: arm, hand, one object on a table and a depth camera, driven by late commands like a real one.

Nothing here knows ROS: `sim_robot_node` is the wire. Joint names are those of assets/arms and assets/hands.
"""

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import mujoco
import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

import configs
from perception.geometry import compose
from sim import starts
from sim.hands import HandSpec
from sim.mounts import ArmSpec
from sim.objects import open_library
from sim.randomize import RandomizeCfg, ResetCfg, draw_episode
from sim.scene import ModelPool, PhysicsCfg
from sim.trial_random import TrialRandom

PUSH_S = 0.2
"""How long the object is pushed."""
MODELS_BYTES = 256 << 20
Array = NDArray[np.float64]
Group = Literal["arm", "hand"]


class CommandError(ValueError):
    """A command that the robot does not take; nothing moves."""


@dataclass(frozen=True)
class SimRobotCfg:
    """The simulated robot."""

    hand: str = "allegro"
    """Name of the hand in assets/hands, or a folder with hand.yaml."""
    arm: str = "ur5e"
    """Name of the arm in assets/arms."""
    objects: str = "shipped"
    """Library of objects: shipped, generated:N or a folder."""
    object: str = "0"
    """Object that ~/reset puts on the table: its number in the library, or its name."""
    seed: int = 0
    """Decides where the object lies after ~/reset, and all noise: as in the object's trial of `dexgrasp evaluate`."""
    physics: str = "balanced"
    """Physics preset: reference, balanced or turbo; with the long steps of the last two the arm follows worse."""
    camera: str = "cameras/sim.yaml"
    """Pose of the camera in the world, as calibration writes it."""
    width: int = 640
    """Columns of the depth image."""
    height: int = 480
    """Rows of the depth image."""
    flaws: bool = True
    """Whether depth has the errors of a D435."""
    camera_rate_hz: float = 30.0
    """Depth images per second; 0: no camera, and no OpenGL needed."""
    state_rate_hz: float = 100.0
    """Joint states per second."""
    latency_s: float = 0.0
    """Time from the arrival of a command until it acts."""
    drop: float = 0.0
    """Share of the messages that are lost, of those sent and of those received."""
    joint_noise_rad: float = 0.0
    """Half-width of the noise of each joint reading."""
    push_n: float = 2.5
    """Force of ~/push on the object, in a horizontal direction drawn from the seed."""

    def __post_init__(self) -> None:
        if not 0 <= self.drop < 1:
            raise ValueError(f"drop is a share of messages in 0..1, got {self.drop}")
        if min(self.latency_s, self.joint_noise_rad, self.camera_rate_hz, self.push_n) < 0 or self.state_rate_hz <= 0:
            raise ValueError(
                "latency_s, joint_noise_rad, camera_rate_hz and push_n are at least 0, state_rate_hz above"
            )


@dataclass(frozen=True)
class Joints:
    """What the joints report: arm, then hand."""

    names: tuple[str, ...]
    position: Array
    """(joint,) [rad]."""
    velocity: Array
    """(joint,) [rad/s]."""
    effort: Array
    """(joint,) [N m]."""
    stamp_s: float


@dataclass(frozen=True)
class Truth:
    """What only a simulator knows."""

    object_pos_w: Array
    """(3,) [m]."""
    object_quat_w: Array
    """(4,) wxyz."""
    palm_pos_w: Array
    """(3,) [m]."""
    palm_quat_w: Array
    """(4,) wxyz."""
    lifted_m: float
    """Rise of the object since it was put there."""
    touched: bool
    """Whether the hand touches it."""


@dataclass(frozen=True)
class SceneSnapshot:
    """One moment, for the camera."""

    model: mujoco.MjModel
    qpos: Array
    stamp_s: float


class Servos:
    """Joint targets of one group, which move evenly to what was commanded last."""

    def __init__(self, names: Sequence[str]) -> None:
        self.names = tuple(names)
        self._late: deque[tuple[float, Array, float]] = deque()
        self.rest(np.zeros(len(self.names)))

    def rest(self, target: ArrayLike) -> None:
        """Be at `target`, with nothing under way."""
        self._late.clear()
        self._from = self._goal = np.array(target, float)
        self._start_s, self._reach_s = 0.0, 0.0

    def command(self, target: Mapping[str, float] | ArrayLike, act_s: float, reach_s: float) -> None:
        """From the time `act_s` on move to `target` within `reach_s`. Raises CommandError."""
        if isinstance(target, Mapping):
            unknown, missing = sorted(set(target) - set(self.names)), sorted(set(self.names) - set(target))
            if unknown or missing:
                raise CommandError(f"unknown joints {unknown}, missing joints {missing}; expected {list(self.names)}")
            target = [target[name] for name in self.names]
        values = np.array(target, float)
        if values.shape != (len(self.names),) or not np.isfinite([*values.ravel(), reach_s]).all() or reach_s < 0:
            raise CommandError(f"expected {len(self.names)} finite positions {list(self.names)}, got {values.tolist()}")
        self._late.append((act_s, values, reach_s))

    def targets(self, now_s: float) -> Array:
        """(joint,) [rad] at a time that only grows."""
        while self._late and self._late[0][0] <= now_s:
            act_s, goal, reach_s = self._late.popleft()
            self._from, self._goal = self._between(act_s), goal
            self._start_s, self._reach_s = act_s, reach_s
        return self._between(now_s)

    def _between(self, now_s: float) -> Array:
        share = 1.0 if self._reach_s == 0 else min((now_s - self._start_s) / self._reach_s, 1.0)
        return self._from + share * (self._goal - self._from)


class SimRobot:
    """One scene. Its clock `time_s` only grows, also when the scene is reset."""

    def __init__(self, cfg: SimRobotCfg) -> None:
        self.cfg = cfg
        self.hand, self.arm = HandSpec.load(cfg.hand), ArmSpec.load(cfg.arm)
        self.library = open_library(cfg.objects)
        physics = configs.load_option(PhysicsCfg, "physics", cfg.physics)
        self._pool = ModelPool(self.hand, self.library, physics, cfg.arm, MODELS_BYTES)
        self.servos: dict[Group, Servos] = {"arm": Servos(self.arm.joint_names), "hand": Servos(self.hand.joint_names)}
        self.names = (*self.arm.joint_names, *self.hand.joint_names)
        self.time_s = 0.0
        self.unstable = 0
        """How often physics failed and the scene was reset."""
        self.reset(cfg.object, cfg.seed)

    def reset(self, thing: str | int, seed: int) -> None:
        """Arm at home, hand open, the object (number or name) where trial `seed` of `dexgrasp evaluate` puts it."""
        self.object = self._named(thing)
        self.cfg = replace(self.cfg, object=str(thing), seed=seed)
        trial = self.library.names.index(self.object)
        random = TrialRandom.of_trials(torch.tensor([seed]), torch.tensor([trial]))
        draws = draw_episode(random, ResetCfg(), RandomizeCfg(), len(self.hand.joint_names))
        pos, quat = starts.place_objects(self.library, [self.object], draws)
        self._rng = np.random.default_rng([seed, trial, 1])
        self._open(self._pool.get(self.object), torch.cat([pos[0], quat[0]]).numpy())

    def command(self, group: Group, target: Mapping[str, float] | ArrayLike, reach_s: float = 0.0) -> None:
        """Joint targets [rad] for arm or hand, by name or in order, which act `latency_s` from now.

        They move evenly there within `reach_s`. Raises CommandError, and nothing moves.
        """
        self.servos[group].command(target, self.time_s + self.cfg.latency_s, reach_s)

    def push(self) -> None:
        """Push the object for PUSH_S."""
        angle = self._rng.uniform(0, 2 * np.pi)
        self._data.xfrc_applied[self._object, :2] = self.cfg.push_n * np.array([np.cos(angle), np.sin(angle)])
        self._pushed_until_s = self.time_s + PUSH_S

    def step_to(self, time_s: float) -> int:
        """Physics up to a time; how many steps that took."""
        steps, dt = 0, self._model.opt.timestep
        while self.time_s + dt <= time_s + 1e-9:
            self._step(dt)
            steps += 1
        return steps

    def read(self) -> Joints:
        """The joints now, with noise."""
        data, half = self._data, self.cfg.joint_noise_rad
        position = data.qpos[self._q] + (self._rng.uniform(-half, half, len(self._q)) if half else 0.0)
        return Joints(self.names, position, data.qvel[self._v].copy(), data.actuator_force[self._u].copy(), self.time_s)

    def truth(self) -> Truth:
        """Where things really are."""
        data, palm = self._data, self._model.body("palm").id
        mujoco.mj_kinematics(self._model, data)  # a step leaves the poses before it
        pose = data.xpos[palm], data.xquat[palm], self.hand.palm_pos_b, self.hand.palm_quat_b
        palm_pos_w, palm_quat_w = (value.numpy() for value in compose(*map(torch.tensor, pose)))
        pos, quat = np.split(data.qpos[self._object_q].copy(), [3])
        bodies = len(self.hand.contact_bodies)
        touched = bool(data.sensordata[: 4 * bodies : 4].any())  # see sim.scene: found and force per body
        return Truth(pos, quat, palm_pos_w, palm_quat_w, float(pos[2] - self._start_z), touched)

    def show(
        self, joint_pos: Mapping[str, float], object_pos_w: ArrayLike, object_quat_w: ArrayLike
    ) -> tuple[mujoco.MjModel, mujoco.MjData]:
        """Put joints (by name) [rad] and object where they are said to be, for a picture; nothing moves by itself."""
        self._data.qpos[self._q] = [joint_pos[name] for name in self.names]
        self._data.qpos[self._object_q] = np.concatenate([object_pos_w, object_quat_w])
        mujoco.mj_forward(self._model, self._data)
        return self._model, self._data

    def scene(self) -> SceneSnapshot:
        """This moment, for a camera that draws it elsewhere."""
        return SceneSnapshot(self._model, self._data.qpos.copy(), self.time_s)

    def _named(self, thing: str | int) -> str:
        names = self.library.names
        if str(thing).isdigit():
            if int(thing) >= len(names):
                raise ValueError(f"object {thing}: the library has {len(names)} objects, numbered from 0")
            return names[int(thing)]
        return self.library[str(thing)].name

    def _open(self, model: mujoco.MjModel, object_pose: Array) -> None:
        """A fresh scene of a model; indices are found here, by name."""
        self._model, self._data = model, mujoco.MjData(model)
        self._q, self._v = (
            np.array([getattr(model.joint(name), key)[0] for name in self.names]) for key in ("qposadr", "dofadr")
        )
        self._u = np.array([model.actuator(name).id for name in self.names])
        first = model.joint("object").qposadr[0]
        self._object_q, self._object = slice(first, first + 7), model.body("object").id
        self._data.qpos[self._q] = start = np.concatenate([self.arm.home, self.hand.open_pose])
        self._data.qpos[self._object_q] = object_pose
        self._data.ctrl[self._u] = start
        self._start_z, self._pushed_until_s = object_pose[2], self.time_s
        self.servos["arm"].rest(self.arm.home)
        self.servos["hand"].rest(self.hand.open_pose)
        mujoco.mj_forward(model, self._data)

    def _step(self, dt_s: float) -> None:
        self.time_s += dt_s
        if self.time_s > self._pushed_until_s:
            self._data.xfrc_applied[self._object] = 0.0
        self._data.ctrl[self._u] = np.concatenate([servos.targets(self.time_s) for servos in self.servos.values()])
        mujoco.mj_step(self._model, self._data)
        if any(warning.number for warning in self._data.warning) or not np.isfinite(self._data.qpos).all():
            self.unstable += 1
            self.reset(self.cfg.object, self.cfg.seed)
