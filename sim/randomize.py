"""Everything random about an episode, drawn from one generator per trial.

A trial is reproducible from its seed and number alone, whatever runs beside it. Where things start (ResetCfg) is drawn
first and is the same however the domain is randomised (RandomizeCfg).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from sim.engine import GRAVITY_M_S2, NOMINAL_FRICTION, NOMINAL_TABLE_FRICTION
from sim.objects import ObjectLibrary

SHIFT_TRIES = 12
FORCE_TURNS = 8
ROLLS = 16
Range = tuple[float, float]


@dataclass(frozen=True)
class ResetCfg:
    """Where an episode starts. Half-widths are of uniform distributions around zero, "sd" of normal ones."""

    place_m: float = 0.05
    """Half-width of the object's place on the table, x and y [m]."""
    camera_m: float = 0.2
    """Half-width of the camera's place in x and y around the object [m]."""
    camera_height_m: float = 0.76
    """Height of the camera over the table [m]; RobustDexGrasp's camera point."""
    camera: Literal["on_axis", "aside", "both"] = "on_axis"
    """on_axis: the camera looks from above. aside: it looks on from elsewhere, where the hand hides less. both: half of
    the episodes each."""
    aside_azimuth_deg: Range = (-180.0, 180.0)
    """Where a camera that stands aside may stand around the object; 0 is +x [degree]."""
    aside_elevation_deg: Range = (30.0, 60.0)
    """The same above the table [degree]."""
    aside_distance_m: Range = (0.55, 0.85)
    """The same from the object's place on the table [m]."""
    approach: Literal["camera_line", "top_down", "best"] = "best"
    """camera_line: from the camera at the middle, as published. top_down: straight down at the middle. best: the best
    scored of these, of approaches to edges and of slanted ones."""
    tilt_sd_rad: float = 0.06
    """Error of the approach direction [rad]."""
    standoff_m: float = 0.02
    """Half-width of the distance at which the approach starts [m]."""
    palm_m: float = 0.012
    """Half-width of the palm's start across the approach [m]."""
    finger_rad: float = 0.05
    """Half-width of the fingers' start about the open pose [rad]."""

    def __post_init__(self) -> None:
        ranges = ("aside_azimuth_deg", "aside_elevation_deg", "aside_distance_m")
        for name in ranges:
            low, high = getattr(self, name)
            if low > high:
                raise ValueError(f"reset.{name} must satisfy low <= high, got {(low, high)}")
        if not 0 < self.aside_elevation_deg[0] <= self.aside_elevation_deg[1] <= 90 or self.aside_distance_m[0] <= 0:
            raise ValueError("reset.aside_elevation_deg must lie in 0..90, reset.aside_distance_m be positive")


@dataclass(frozen=True)
class RandomizeCfg:
    """Domain randomisation; the defaults are no randomisation at all.

    Ranges are (low, high) of uniform draws per episode, half-widths of uniform distributions around zero. The values in
    use, with their sources: configs/randomize.
    """

    name: str = "off"
    """Name of the option, printed beside every result."""
    friction: Range = (NOMINAL_FRICTION, NOMINAL_FRICTION)
    """Sliding friction of the object against the hand."""
    table_friction: Range = (NOMINAL_TABLE_FRICTION, NOMINAL_TABLE_FRICTION)
    """Sliding friction of the object on the table."""
    mass_scale: Range = (1.0, 1.0)
    """Factor on the object's mass and inertia."""
    com_m: float = 0.0
    """Half-width of the centre of mass about the uniform body's, each axis [m]."""
    sizes: tuple[float, ...] = (1.0,)
    """Factors on the object's size, one of them drawn; few, because each is compiled."""
    kp_scale: Range = (1.0, 1.0)
    """Factor on each finger joint's position gain."""
    kd_scale: Range = (1.0, 1.0)
    """Factor on each finger joint's velocity gain."""
    damping_scale: Range = (1.0, 1.0)
    """Factor on each finger joint's damping."""
    effort_scale: Range = (1.0, 1.0)
    """Factor on each finger joint's effort limit."""
    palm_stiffness: Range = (1.0, 1.0)
    """Factor on the stiffness of what carries a floating palm, evenly drawn in its logarithm; the damping gain follows
    as its root. An arm has its own."""
    gravity_rad: float = 0.0
    """Half-width of the direction of gravity about two axes: a table that is not level [rad]."""
    joint_noise_rad: float = 0.0
    """Half-width of the noise of each joint reading, drawn every step [rad]."""
    joint_bias_rad: float = 0.0
    """Half-width of the calibration error of each joint reading [rad]."""
    palm_noise_m: float = 0.0
    """Half-width of the noise of the palm position, each axis, drawn every step [m]."""
    palm_noise_rad: float = 0.0
    """The same of the palm orientation, rotation vector [rad]."""
    action_delay: int = 0
    """Commands arrive up to this many control steps late, constant in an episode."""
    action_late: float = 0.0
    """Probability that a step's finger targets arrive late by a part of the control period."""
    observation_delay: int = 0
    """Readings are up to this many control steps old, constant in an episode."""
    push_n: float = 0.0
    """Greatest force of the one push on the lifted object per episode [N]; direction and moment are drawn."""
    camera_bias_m: float = 0.0
    """Half-width of the error of the camera's position, each axis: all points move with it [m]."""
    points_noise_m: float = 0.0
    """Standard deviation of each visible point along each axis [m]."""
    points_dropout: float = 0.0
    """Greatest share of the visible points that are missing."""

    def __post_init__(self) -> None:
        for item in fields(self):
            value = getattr(self, item.name)
            if item.type is Range and not 0 < value[0] <= value[1]:
                raise ValueError(f"randomize.{item.name} must satisfy 0 < low <= high, got {value}")
            if item.type in (float, int) and value < 0:
                raise ValueError(f"randomize.{item.name} must not be negative, got {value}")
        if self.points_dropout >= 1 or self.action_late > 1:
            raise ValueError("randomize.points_dropout must lie below 1, randomize.action_late must not exceed 1")
        if not self.sizes or min(self.sizes) <= 0:
            raise ValueError(f"randomize.sizes must be positive factors, got {self.sizes}")


@dataclass
class Episode:
    """The draws of a batch of episodes; row i belongs to environment i. Lengths in m, angles in rad, forces in N."""

    object_xy: Tensor
    """(env, 2)."""
    rest: Tensor
    """(env,) number in [0, 1) that picks the resting pose by probability."""
    yaw: Tensor
    """(env,)."""
    camera_offset: Tensor
    """(env, 3) camera position relative to the object's place on the table."""
    approach_offset: Tensor
    """(env, 3) the point from which the palm comes, likewise."""
    tilt: Tensor
    """(env, 2)."""
    standoff: Tensor
    """(env,)."""
    palm_offset: Tensor
    """(env, 2) along the palm's y and z."""
    roll: Tensor
    """(env,)."""
    finger_offset: Tensor
    """(env, joint)."""
    shift: Tensor
    """(env, try, 2) candidate displacements in a unit disc."""
    force: Tensor
    """(env, turn, 3) unit vectors."""
    friction: Tensor
    """(env,)."""
    table_friction: Tensor
    """(env,)."""
    mass_scale: Tensor
    """(env,)."""
    com_offset: Tensor
    """(env, 3) object frame."""
    size: Tensor
    """(env,)."""
    kp_scale: Tensor
    """(env, joint)."""
    kd_scale: Tensor
    """(env, joint)."""
    damping_scale: Tensor
    """(env, joint)."""
    effort_scale: Tensor
    """(env, joint)."""
    palm_stiffness: Tensor
    """(env,)."""
    gravity: Tensor
    """(env, 3) [m/s^2]."""
    joint_bias: Tensor
    """(env, joint)."""
    action_delay: Tensor
    """(env,) control steps."""
    observation_delay: Tensor
    """(env,) control steps."""
    push: Tensor
    """(env, 3)."""
    push_at: Tensor
    """(env,) share of lift and hold at which the push begins."""
    camera_bias: Tensor
    """(env, 3)."""
    mishap: Tensor
    """(env, 2) numbers in [0, 1): which disturbance of a mixture, and how much of it."""

    @staticmethod
    def empty(num_envs: int, num_joints: int, device: torch.device | str = "cpu") -> "Episode":
        """Storage for `num_envs` rows."""
        nominal = draw_episode(trial_generator(0, 0), ResetCfg(), RandomizeCfg(), num_joints)
        kind = {"dtype": torch.float64, "device": device}
        return Episode(**{name: torch.zeros(num_envs, *np.shape(value), **kind) for name, value in nominal.items()})

    def write(self, rows: Tensor, draws: Sequence[Mapping[str, np.ndarray | float]]) -> None:
        """Set the draws of some environments."""
        for item in fields(self):
            column = np.stack([np.asarray(drawn[item.name], dtype=np.float64) for drawn in draws])
            getattr(self, item.name)[rows] = torch.from_numpy(column).to(rows.device)

    def rows(self, rows: Tensor) -> "Episode":
        """The draws of some environments, copied."""
        return Episode(**{f.name: getattr(self, f.name)[rows] for f in fields(Episode)})


def trial_generator(seed: int, trial: int) -> np.random.Generator:
    """The only source of randomness of one trial."""
    return np.random.default_rng([seed, trial])


def draw_episode(
    rng: np.random.Generator, reset: ResetCfg, domain: RandomizeCfg, num_joints: int
) -> dict[str, np.ndarray | float]:
    """Draws of one episode, by name of `Episode`'s fields."""
    return _draw_start(rng, reset, num_joints) | _draw_domain(rng, domain, num_joints)


def _draw_start(rng: np.random.Generator, cfg: ResetCfg, num_joints: int) -> dict[str, np.ndarray | float]:
    above = np.append(rng.uniform(-cfg.camera_m, cfg.camera_m, 2), cfg.camera_height_m)
    radius, angle = np.sqrt(rng.uniform(size=SHIFT_TRIES)), rng.uniform(0, 2 * np.pi, SHIFT_TRIES)
    start: dict[str, np.ndarray | float] = {
        "object_xy": rng.uniform(-cfg.place_m, cfg.place_m, 2),
        "rest": rng.uniform(),
        "yaw": rng.uniform(-np.pi, np.pi),
        "approach_offset": above,
        "tilt": rng.normal(0.0, cfg.tilt_sd_rad, 2),
        "standoff": rng.uniform(-cfg.standoff_m, cfg.standoff_m),
        "palm_offset": rng.uniform(-cfg.palm_m, cfg.palm_m, 2),
        "roll": rng.integers(2) * np.pi + rng.uniform(0, np.pi / ROLLS),
        "finger_offset": rng.uniform(-cfg.finger_rad, cfg.finger_rad, num_joints),
        "shift": np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=1),
        "force": _directions(rng, FORCE_TURNS),
    }
    aside = cfg.camera == "aside" or (cfg.camera == "both" and rng.uniform() < 0.5)
    start["camera_offset"] = _place_aside(rng, cfg) if aside else above
    return start


def _place_aside(rng: np.random.Generator, cfg: ResetCfg) -> np.ndarray:
    azimuth, elevation = (np.radians(rng.uniform(*span)) for span in (cfg.aside_azimuth_deg, cfg.aside_elevation_deg))
    level = np.array([np.cos(azimuth), np.sin(azimuth), 0.0]) * np.cos(elevation)
    return rng.uniform(*cfg.aside_distance_m) * (level + np.array([0.0, 0.0, np.sin(elevation)]))


def _draw_domain(rng: np.random.Generator, cfg: RandomizeCfg, num_joints: int) -> dict[str, np.ndarray | float]:
    tilt = rng.uniform(-cfg.gravity_rad, cfg.gravity_rad, 2)
    down = np.array([np.sin(tilt[0]), np.sin(tilt[1]), -np.sqrt(1 - (np.sin(tilt) ** 2).sum())])
    joint_scales = ("kp_scale", "kd_scale", "damping_scale", "effort_scale")
    return {
        **{name: rng.uniform(*getattr(cfg, name)) for name in ("friction", "table_friction", "mass_scale")},
        **{name: rng.uniform(*getattr(cfg, name), size=num_joints) for name in joint_scales},
        "com_offset": rng.uniform(-cfg.com_m, cfg.com_m, 3),
        "size": cfg.sizes[rng.integers(len(cfg.sizes))],
        "gravity": GRAVITY_M_S2 * down,
        "joint_bias": rng.uniform(-cfg.joint_bias_rad, cfg.joint_bias_rad, num_joints),
        "action_delay": float(rng.integers(cfg.action_delay + 1)),
        "observation_delay": float(rng.integers(cfg.observation_delay + 1)),
        "push": rng.uniform(0, cfg.push_n) * _directions(rng, 1)[0],
        "push_at": rng.uniform(),
        "camera_bias": rng.uniform(-cfg.camera_bias_m, cfg.camera_bias_m, 3),
        "mishap": rng.uniform(size=2),
        "palm_stiffness": np.exp(rng.uniform(*np.log(cfg.palm_stiffness))),
    }


def _directions(rng: np.random.Generator, n: int) -> np.ndarray:
    vectors = rng.normal(size=(n, 3))
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def draw_object(rng: np.random.Generator, library: ObjectLibrary, weights: np.ndarray | None = None) -> str:
    """Name of the object of one episode, evenly or by `weights` (object,), which sum to 1; one draw either way."""
    number = rng.uniform()
    if weights is None:
        return library.names[int(number * len(library))]
    return library.names[min(int(np.searchsorted(np.cumsum(weights), number, side="right")), len(library) - 1)]
