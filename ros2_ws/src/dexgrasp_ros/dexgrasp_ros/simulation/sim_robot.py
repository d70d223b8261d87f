"""Simulated robot in MuJoCo, without ROS: arm, hand, object on a table, depth camera, delays.

Joint names are those of assets/arms and assets/hands. The depth camera has the errors of a RealSense D435.
"""

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Literal

import mujoco
import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from dexgrasp import configs
from dexgrasp.perception.cameras.depth import Intrinsics
from dexgrasp.perception.cameras.extrinsics import CameraPose
from dexgrasp.perception.transforms import compose
from dexgrasp.sim.objects import open_library
from dexgrasp.sim.randomization.episode_draws import RandomizationCfg, ResetCfg, draw_episode
from dexgrasp.sim.randomization.trial_rng import TrialRandom
from dexgrasp.sim.robots.arm import ArmSpec
from dexgrasp.sim.robots.hand import HandSpec
from dexgrasp.sim.scene import ModelPool, PhysicsCfg
from dexgrasp.sim.sensors.depth_camera import CAMERA, HOLE_FRACTION, DepthRenderer, camera_looking_at
from dexgrasp.sim.sensors.depth_noise import DepthNoiseDraws, add_depth_errors
from dexgrasp.sim.sensors.surface_table import SurfaceTable
from dexgrasp.sim.task import reset as starts
from dexgrasp.utils.bounds import Bounds, Seed, bounded
from dexgrasp_ros import config

PUSH_S = 0.2
"""Duration of a push on the object [s]."""

MODELS_BYTES = 256 << 20
"""Memory limit of the model cache [byte]."""

Array = NDArray[np.float64]

Group = Literal["arm", "hand"]
UPRIGHT_TOLERANCE = 1e-3
"""Accepted deviation of the rotation matrix of the camera from an upright one."""
NOISE_DRAWS = 8
"""Number of noise draws, each used in four orientations: a draw takes longer than rendering."""
Image = NDArray[np.float32]


class CommandError(ValueError):
    """Raised for a command that the robot refuses; nothing moves."""


@dataclass(frozen=True)
@bounded
class SimRobotCfg:
    """Parameters of the simulated robot."""

    hand: str = "allegro"
    """Hand: a name in assets/hands or a folder with hand.yaml."""
    arm: str = "ur5e"
    """Arm: a name in assets/arms, a folder with arm.yaml, an arm.yaml, or an MJCF or URDF file."""
    objects: str = "shipped"
    """Object library: shipped, generated:N or a folder."""
    object: str = "0"
    """Object that ~/reset places on the table, by number in the library or name."""
    seed: Seed = 0
    """Seed of object pose and noise; the pose is that of the object's trial in `dexgrasp evaluate`."""
    physics: str = "balanced"
    """Physics preset: reference, balanced or turbo; the long steps of the last two reduce tracking accuracy."""
    camera: str = "cameras/sim.yaml"
    """Camera pose file: a name in config/cameras or a path."""
    width: Annotated[int, Bounds(16, 4096)] = 640
    """Columns of the depth image."""
    height: Annotated[int, Bounds(16, 4096)] = 480
    """Rows of the depth image."""
    flaws: bool = True
    """Whether depth images have the errors of a D435."""
    camera_rate_hz: Annotated[float, Bounds(0, 300)] = 30.0
    """Rate of depth images; 0: no camera, which needs no OpenGL [Hz]."""
    state_rate_hz: Annotated[float, Bounds(1, 1000)] = 100.0
    """Rate of joint states [Hz]."""
    latency_s: Annotated[float, Bounds(0, 10)] = 0.0
    """Time from the arrival of a command until it acts [s]."""
    drop: Annotated[float, Bounds(0, 0.99)] = 0.0
    """Fraction of lost messages, sent and received."""
    joint_noise_rad: Annotated[float, Bounds(0, 1)] = 0.0
    """Half-width of the uniform noise of joint readings [rad]."""
    push_n: Annotated[float, Bounds(0, 100)] = 2.5
    """Force of ~/push on the object, in a random horizontal direction [N]."""
    tf_prefix: str = ""
    """Begins the names of the frames of camera and world."""


@dataclass(frozen=True)
class JointReadings:
    """Readings of all joints: arm, then hand."""

    names: tuple[str, ...]
    position: Array
    """(joint,) [rad]."""
    velocity: Array
    """(joint,) [rad/s]."""
    effort: Array
    """(joint,) [N m]."""
    stamp_s: float


@dataclass(frozen=True)
class GroundTruth:
    """True state of object and palm, known to the simulator only."""

    object_pos_w: Array
    """(3,) [m]."""
    object_quat_w: Array
    """(4,) wxyz."""
    palm_pos_w: Array
    """(3,) [m]."""
    palm_quat_w: Array
    """(4,) wxyz."""
    lifted_m: float
    """Rise of the object since the reset [m]."""
    touched: bool
    """Whether the hand touches the object."""


@dataclass(frozen=True)
class SceneSnapshot:
    """State of the scene at one time, for the camera."""

    model: mujoco.MjModel
    qpos: Array
    stamp_s: float


class JointServos:
    """Joint targets of arm or hand, interpolated linearly to the last command."""

    def __init__(self, names: Sequence[str]) -> None:
        self.names = tuple(names)
        self._pending: deque[tuple[float, Array, float]] = deque()
        self.reset(np.zeros(len(self.names)))

    def reset(self, target: ArrayLike) -> None:
        """Set the target (joint,) [rad] at once and discard pending commands."""
        self._pending.clear()
        self._from = self._goal = np.array(target, float)
        self._start_s, self._reach_s = 0.0, 0.0

    def command(self, target: Mapping[str, float] | ArrayLike, act_s: float, reach_s: float) -> None:
        """Move to `target` within `reach_s`, starting at the time `act_s`. Raises CommandError."""
        if isinstance(target, Mapping):
            unknown, missing = sorted(set(target) - set(self.names)), sorted(set(self.names) - set(target))
            if unknown or missing:
                raise CommandError(f"unknown joints {unknown}, missing joints {missing}; expected {list(self.names)}")
            target = [target[name] for name in self.names]
        values = np.array(target, float)
        if values.shape != (len(self.names),) or not np.isfinite([*values.ravel(), reach_s]).all() or reach_s < 0:
            raise CommandError(f"expected {len(self.names)} finite positions {list(self.names)}, got {values.tolist()}")
        self._pending.append((act_s, values, reach_s))

    def targets(self, now_s: float) -> Array:
        """Return the targets (joint,) [rad] at a time, which must not decrease between calls."""
        while self._pending and self._pending[0][0] <= now_s:
            act_s, goal, reach_s = self._pending.popleft()
            self._from, self._goal = self._between(act_s), goal
            self._start_s, self._reach_s = act_s, reach_s
        return self._between(now_s)

    def _between(self, now_s: float) -> Array:
        share = 1.0 if self._reach_s == 0 else min((now_s - self._start_s) / self._reach_s, 1.0)
        return self._from + share * (self._goal - self._from)


class SimRobot:
    """Simulates one scene; the clock `time_s` continues when the scene is reset."""

    def __init__(self, cfg: SimRobotCfg) -> None:
        self.cfg = cfg
        self.hand = HandSpec.load(cfg.hand)
        self.arm = ArmSpec.load(cfg.arm, self.hand)
        self.library = open_library(cfg.objects)
        self._surfaces = SurfaceTable(self.library)
        physics = configs.load_option(PhysicsCfg, "physics", cfg.physics)
        self._pool = ModelPool(self.hand, self.library, physics, cfg.arm, MODELS_BYTES)
        self.servos: dict[Group, JointServos] = {
            "arm": JointServos(self.arm.joint_names),
            "hand": JointServos(self.hand.motors.names),
        }
        self.names = (*self.arm.joint_names, *self.hand.joint_names)
        self.time_s = 0.0
        self.unstable = 0
        """Number of resets because the simulation was unstable."""
        self.reset(cfg.object, cfg.seed)

    def reset(self, name: str | int, seed: int) -> None:
        """Move the arm home, open the hand, place the object (number or name) as in trial `seed`."""
        self.object = self._object_name(name)
        self.cfg = replace(self.cfg, object=str(name), seed=seed)
        trial = self.library.names.index(self.object)
        random = TrialRandom.of_trials(torch.tensor([seed]), torch.tensor([trial]))
        draws = draw_episode(random, ResetCfg(), RandomizationCfg(), len(self.hand.motors.names))
        pos, quat = starts.place_objects(self._surfaces, [self.object], draws)
        self._rng = np.random.default_rng([seed, trial, 1])
        self._start_scene(self._pool.get(self.object), torch.cat([pos[0], quat[0]]).numpy())

    def command(self, group: Group, target: Mapping[str, float] | ArrayLike, reach_s: float = 0.0) -> None:
        """Command joint targets [rad] of arm or hand, by name or in order; they act `latency_s` from now.

        Targets are interpolated linearly within `reach_s`. Raises CommandError, after which nothing moves.
        """
        self.servos[group].command(target, self.time_s + self.cfg.latency_s, reach_s)

    def push(self) -> None:
        """Push the object with `push_n` for PUSH_S."""
        angle = self._rng.uniform(0, 2 * np.pi)
        self._data.xfrc_applied[self._object, :2] = self.cfg.push_n * np.array([np.cos(angle), np.sin(angle)])
        self._pushed_until_s = self.time_s + PUSH_S

    def step_to(self, time_s: float) -> int:
        """Step the physics up to a time; return the number of steps."""
        steps, dt = 0, self._model.opt.timestep
        while self.time_s + dt <= time_s + 1e-9:
            self._step(dt)
            steps += 1
        return steps

    def read_joints(self) -> JointReadings:
        """Return the joint readings, with noise."""
        data, half = self._data, self.cfg.joint_noise_rad
        position = data.qpos[self._q] + (self._rng.uniform(-half, half, len(self._q)) if half else 0.0)
        effort = np.zeros(len(self.names))  # a coupled joint has no servo
        effort[self._driven] = data.actuator_force[self._u]
        return JointReadings(
            names=self.names,
            position=position,
            velocity=data.qvel[self._v].copy(),
            effort=effort,
            stamp_s=self.time_s,
        )

    def ground_truth(self) -> GroundTruth:
        """Return the true state of object and palm."""
        data, palm = self._data, self._model.body("palm").id
        mujoco.mj_kinematics(self._model, data)  # after a step, poses are those before it
        pose = data.xpos[palm], data.xquat[palm], self.hand.palm_pos_b, self.hand.palm_quat_b
        palm_pos_w, palm_quat_w = (value.numpy() for value in compose(*map(torch.tensor, pose)))
        pos, quat = np.split(data.qpos[self._object_q].copy(), [3])
        bodies = len(self.hand.contact_bodies)
        touched = bool(data.sensordata[: 4 * bodies : 4].any())  # see dexgrasp.sim.scene: found and force per body
        return GroundTruth(
            object_pos_w=pos,
            object_quat_w=quat,
            palm_pos_w=palm_pos_w,
            palm_quat_w=palm_quat_w,
            lifted_m=float(pos[2] - self._start_z),
            touched=touched,
        )

    def set_pose(
        self, joint_pos: Mapping[str, float], object_pos_w: ArrayLike, object_quat_w: ArrayLike
    ) -> tuple[mujoco.MjModel, mujoco.MjData]:
        """Set joints (by name) [rad] and object pose without stepping; return model and data."""
        self._data.qpos[self._q] = [joint_pos[name] for name in self.names]
        self._data.qpos[self._object_q] = np.concatenate([object_pos_w, object_quat_w])
        mujoco.mj_forward(self._model, self._data)
        return self._model, self._data

    def snapshot(self) -> SceneSnapshot:
        """Return the state of the scene, for a camera in another thread."""
        return SceneSnapshot(self._model, self._data.qpos.copy(), self.time_s)

    def _object_name(self, name: str | int) -> str:
        names = self.library.names
        if str(name).isdigit():
            if int(name) >= len(names):
                raise ValueError(f"object {name}: the library has {len(names)} objects, numbered from 0")
            return names[int(name)]
        return self.library[str(name)].name

    def _start_scene(self, model: mujoco.MjModel, object_pose: Array) -> None:
        """Start a new scene of a model, with the indices of its joints and actuators."""
        self._model, self._data = model, mujoco.MjData(model)
        self._q, self._v = (
            np.array([getattr(model.joint(name), key)[0] for name in self.names]) for key in ("qposadr", "dofadr")
        )
        driven = [*self.arm.joint_names, *self.hand.motors.names]
        self._u = np.array([model.actuator(name).id for name in driven])
        self._driven = [self.names.index(name) for name in driven]
        first = model.joint("object").qposadr[0]
        self._object_q, self._object = slice(first, first + 7), model.body("object").id
        self._data.qpos[self._q] = start = np.concatenate([self.arm.home, self.hand.open_pose])
        self._data.qpos[self._object_q] = object_pose
        self._data.ctrl[self._u] = start[self._driven]
        self._start_z, self._pushed_until_s = object_pose[2], self.time_s
        self.servos["arm"].reset(self.arm.home)
        self.servos["hand"].reset(self.hand.motors.positions(self.hand.open_pose))
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


class SimDepthCamera:
    """Renders scenes as a D435 images them; to be used in the thread that created it, because of OpenGL."""

    def __init__(self, cfg: SimRobotCfg) -> None:
        """Raise RenderUnavailable without OpenGL."""
        self.intrinsics = pinhole(cfg.width, cfg.height)
        self.pose = upright(CameraPose.load(config(cfg.camera)).T_world_cam, cfg.camera)
        self._rng = np.random.default_rng([cfg.seed, 2])
        shape = self.intrinsics.height, self.intrinsics.width
        self._noise_draws = [
            DepthNoiseDraws.draw(shape, self._rng, HOLE_FRACTION) for _ in range(NOISE_DRAWS * cfg.flaws)
        ]
        self._renderer = DepthRenderer(self.intrinsics)
        self._drawn: tuple[mujoco.MjModel, mujoco.MjData] | None = None

    def capture(self, scene: SceneSnapshot) -> Image:
        """Return the depth image of a scene (row, column) [m], 0 = hole."""
        if self._drawn is None or self._drawn[0] is not scene.model:
            self._drawn = scene.model, mujoco.MjData(scene.model)
        data = self._drawn[1]
        data.qpos[:] = scene.qpos
        mujoco.mj_kinematics(scene.model, data)
        depth_m = self._renderer.render(scene.model, data, self.pose).astype(np.float32)
        if self._noise_draws:
            chance = self._noise_draws[self._rng.integers(NOISE_DRAWS)].mirrored(self._rng)
            add_depth_errors(depth_m, self.intrinsics, chance)
        return depth_m


def pinhole(width: int, height: int) -> Intrinsics:
    """Return the intrinsics of a D435 at this size, with its horizontal field of view."""
    focal = CAMERA.fx * width / CAMERA.width
    return Intrinsics(width=width, height=height, fx=focal, fy=focal, cx=(width - 1) / 2, cy=(height - 1) / 2)


def upright(T_world_cam: Array, name: str) -> mujoco.MjvCamera:
    """Return the MuJoCo camera at a pose. Raises ValueError for a rolled camera."""
    position, forward = T_world_cam[:3, 3], T_world_cam[:3, 2]
    camera, T_level = camera_looking_at(position, position + forward)
    if np.abs(T_level[:3, :3] - T_world_cam[:3, :3]).max() > UPRIGHT_TOLERANCE:
        raise ValueError(f"{name}: the x axis of the simulated camera must be horizontal; got {T_world_cam.tolist()}")
    return camera
