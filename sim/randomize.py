"""Everything random about an episode, drawn from one generator per trial.

A trial is reproducible from its seed and number alone, whatever runs beside it. Domain randomisation acts here.
"""

from dataclasses import dataclass, fields

import numpy as np
import torch
from torch import Tensor

from sim.objects import ObjectLibrary

SHIFT_TRIES = 12
FORCE_TURNS = 8


@dataclass(frozen=True)
class RandomizeCfg:
    """Ranges of the draws at reset. Half-widths are of uniform distributions around zero, "sd" of normal ones."""

    place_m: float = 0.05
    """Half-width of the object's place on the table, x and y [m]."""
    camera_m: float = 0.2
    """Half-width of the camera's place in x and y around the object [m]."""
    camera_height_m: float = 0.76
    """Height of the camera over the table [m]; method page, section 1.1."""
    tilt_sd_rad: float = 0.06
    """Error of the approach direction [rad]."""
    standoff_m: float = 0.02
    """Half-width of the distance at which the approach starts [m]."""
    palm_m: float = 0.012
    """Half-width of the palm's start across the approach [m]."""
    finger_rad: float = 0.05
    """Half-width of the fingers' start about the open pose [rad]."""
    friction: tuple[float, float] = (0.8, 0.8)
    """Range of the object's friction against the hand; 0.8 is the method's evaluation value."""
    mass_scale: tuple[float, float] = (1.0, 1.0)
    """Range of the factor on the object's mass."""

    def __post_init__(self) -> None:
        for name in ("friction", "mass_scale"):
            low, high = getattr(self, name)
            if not 0 < low <= high:
                raise ValueError(f"randomize.{name} must satisfy 0 < low <= high, got {(low, high)}")


@dataclass
class Episode:
    """The draws of a batch of episodes; row i belongs to environment i. Lengths in m, angles in rad."""

    object_xy: Tensor
    """(env, 2)."""
    rest: Tensor
    """(env,) number in [0, 1) that picks the resting pose by probability."""
    yaw: Tensor
    """(env,)."""
    camera_offset: Tensor
    """(env, 3) camera position relative to the object's place on the table."""
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
    friction: Tensor
    """(env,)."""
    mass_scale: Tensor
    """(env,)."""
    shift: Tensor
    """(env, try, 2) candidate displacements in a unit disc."""
    force: Tensor
    """(env, turn, 3) unit vectors."""

    @staticmethod
    def empty(num_envs: int, num_joints: int) -> "Episode":
        """Storage for `num_envs` rows."""
        sizes = _sizes(num_joints)
        return Episode(**{f.name: torch.zeros(num_envs, *sizes[f.name], dtype=torch.float64) for f in fields(Episode)})

    def write(self, row: int, draws: dict[str, np.ndarray | float]) -> None:
        """Set one environment's draws."""
        for name, value in draws.items():
            getattr(self, name)[row] = torch.as_tensor(value, dtype=torch.float64)

    def rows(self, rows: Tensor) -> "Episode":
        """The draws of some environments, copied."""
        return Episode(**{f.name: getattr(self, f.name)[rows] for f in fields(Episode)})


def _sizes(num_joints: int) -> dict[str, tuple[int, ...]]:
    sizes: dict[str, tuple[int, ...]] = {f.name: () for f in fields(Episode)}
    vectors = {"object_xy": (2,), "camera_offset": (3,), "tilt": (2,), "palm_offset": (2,)}
    return sizes | vectors | {"finger_offset": (num_joints,), "shift": (SHIFT_TRIES, 2), "force": (FORCE_TURNS, 3)}


def trial_generator(seed: int, trial: int) -> np.random.Generator:
    """The only source of randomness of one trial."""
    return np.random.default_rng([seed, trial])


def draw_episode(rng: np.random.Generator, cfg: RandomizeCfg, num_joints: int) -> dict[str, np.ndarray | float]:
    """Draws of one episode, by name of `Episode`'s fields."""
    camera = np.append(rng.uniform(-cfg.camera_m, cfg.camera_m, 2), cfg.camera_height_m)
    radius, angle = np.sqrt(rng.uniform(size=SHIFT_TRIES)), rng.uniform(0, 2 * np.pi, SHIFT_TRIES)
    force = rng.normal(size=(FORCE_TURNS, 3))
    return {
        "object_xy": rng.uniform(-cfg.place_m, cfg.place_m, 2),
        "rest": rng.uniform(),
        "yaw": rng.uniform(-np.pi, np.pi),
        "camera_offset": camera,
        "tilt": rng.normal(0.0, cfg.tilt_sd_rad, 2),
        "standoff": rng.uniform(-cfg.standoff_m, cfg.standoff_m),
        "palm_offset": rng.uniform(-cfg.palm_m, cfg.palm_m, 2),
        "roll": rng.integers(2) * np.pi + rng.uniform(0, np.pi / 16),
        "finger_offset": rng.uniform(-cfg.finger_rad, cfg.finger_rad, num_joints),
        "friction": rng.uniform(*cfg.friction),
        "mass_scale": rng.uniform(*cfg.mass_scale),
        "shift": np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=1),
        "force": force / np.linalg.norm(force, axis=1, keepdims=True),
    }


def draw_object(rng: np.random.Generator, library: ObjectLibrary, weights: np.ndarray | None = None) -> str:
    """Name of the object of one episode, evenly or by `weights`."""
    return library.names[int(rng.choice(len(library), p=weights))]
