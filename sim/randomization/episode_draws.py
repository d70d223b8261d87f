"""Random quantities of episodes, drawn for many at once.

A trial is reproducible from its seed and number alone, whatever runs beside it; where things start (ResetCfg) is the
same however the domain is randomised (RandomizationCfg).
"""

import math
from dataclasses import dataclass, fields
from typing import Annotated, Literal

import torch
from torch import Tensor

from dexgrasp.sim.randomization.trial_rng import TrialRandom
from dexgrasp.sim.scene import GRAVITY_M_S2, NOMINAL_FRICTION, NOMINAL_TABLE_FRICTION
from dexgrasp.utils.bounds import Bounds, Share, bounded

SHIFT_TRIES = 12
FORCE_TURNS = 8
ROLLS = 16
Range = tuple[float, float]


@dataclass(frozen=True)
@bounded
class ResetCfg:
    """Initial state distribution of an episode.

    Half-widths are of uniform distributions around zero, "sd" of normal ones.
    """

    object_xy_range_m: Annotated[float, Bounds(0, 0.5)] = 0.05
    """Half-width of the object's place on the table, x and y [m]."""
    camera_m: Annotated[float, Bounds(0, 2)] = 0.2
    """Half-width of the camera's place in x and y around the object [m]."""
    camera_height_m: Annotated[float, Bounds(0.1, 5)] = 0.76
    """Height of the camera over the table [m]; RobustDexGrasp's camera point."""
    camera_placement: Literal["overhead", "side", "mixed"] = "overhead"
    """overhead: above the object. side: at an angle where the hand hides less. mixed: half of the episodes each."""
    aside_azimuth_deg: Annotated[Range, Bounds(-360, 360, ordered=True)] = (-180.0, 180.0)
    """Azimuth range of a camera that stands aside, around the object; 0 is +x [degree]."""
    aside_elevation_deg: Annotated[Range, Bounds(1, 90, ordered=True)] = (30.0, 60.0)
    """Elevation range of a camera that stands aside, above the table [degree]."""
    aside_distance_m: Annotated[Range, Bounds(0.1, 5, ordered=True)] = (0.55, 0.85)
    """Distance range of a camera that stands aside, from the object's place on the table [m]."""
    approach: Literal["camera_line", "top_down", "scored"] = "scored"
    """camera_line: from the camera at the middle, as published. top_down: straight down at the middle. scored: the
    candidate with the best score, among these, approaches to edges and slanted ones."""
    tilt_sd_rad: Annotated[float, Bounds(0, 1)] = 0.06
    """Error of the approach direction [rad]."""
    standoff_range_m: Annotated[float, Bounds(0, 0.5)] = 0.02
    """Half-width of the distance at which the approach starts [m]."""
    palm_xy_range_m: Annotated[float, Bounds(0, 0.5)] = 0.012
    """Half-width of the palm's start across the approach [m]."""
    finger_range_rad: Annotated[float, Bounds(0, 1)] = 0.05
    """Half-width of the fingers' start about the open pose [rad]."""


@dataclass(frozen=True)
@bounded
class RandomizationCfg:
    """Domain randomisation; the defaults are no randomisation at all.

    Ranges are (low, high) of uniform draws per episode, half-widths of uniform distributions around zero. The values in
    use, with their sources: configs/randomization.
    """

    name: str = "off"
    """Name of the option, printed beside every result."""
    friction: Annotated[Range, Bounds(0.01, 10, ordered=True)] = (NOMINAL_FRICTION, NOMINAL_FRICTION)
    """Sliding friction of the object against the hand."""
    table_friction: Annotated[Range, Bounds(0.01, 10, ordered=True)] = (NOMINAL_TABLE_FRICTION, NOMINAL_TABLE_FRICTION)
    """Sliding friction of the object on the table."""
    mass_scale: Annotated[Range, Bounds(0.01, 100, ordered=True)] = (1.0, 1.0)
    """Factor on the object's mass and inertia."""
    com_range_m: Annotated[float, Bounds(0, 0.1)] = 0.0
    """Half-width of the centre of mass about the uniform body's, each axis [m]."""
    size_scales: Annotated[tuple[float, ...], Bounds(0.1, 10, items=(1, 16))] = (1.0,)
    """Factors on the object's size, one of them drawn; few, because each is compiled."""
    kp_scale: Annotated[Range, Bounds(0.01, 100, ordered=True)] = (1.0, 1.0)
    """Factor on each finger joint's position gain."""
    kd_scale: Annotated[Range, Bounds(0.01, 100, ordered=True)] = (1.0, 1.0)
    """Factor on each finger joint's velocity gain."""
    damping_scale: Annotated[Range, Bounds(0.01, 100, ordered=True)] = (1.0, 1.0)
    """Factor on each finger joint's damping."""
    effort_scale: Annotated[Range, Bounds(0.01, 100, ordered=True)] = (1.0, 1.0)
    """Factor on each finger joint's effort limit."""
    palm_stiffness: Annotated[Range, Bounds(0.01, 100, ordered=True)] = (1.0, 1.0)
    """Factor on the stiffness of a floating palm's servos, drawn log-uniformly; their damping gain is scaled by its
    root. No effect on arms."""
    gravity_rad: Annotated[float, Bounds(0, 1)] = 0.0
    """Half-width of the direction of gravity about two axes: a table that is not level [rad]."""
    joint_noise_rad: Annotated[float, Bounds(0, 1)] = 0.0
    """Half-width of the noise of each joint reading, drawn every step [rad]."""
    joint_bias_rad: Annotated[float, Bounds(0, 1)] = 0.0
    """Half-width of the calibration error of each joint reading [rad]."""
    palm_noise_m: Annotated[float, Bounds(0, 0.5)] = 0.0
    """Half-width of the noise of the palm position, each axis, drawn every step [m]."""
    palm_noise_rad: Annotated[float, Bounds(0, 1)] = 0.0
    """Half-width of the noise of the palm orientation, rotation vector, drawn every step [rad]."""
    action_delay: Annotated[int, Bounds(0, 50)] = 0
    """Commands arrive up to this many control steps late, constant in an episode."""
    late_action_probability: Share = 0.0
    """Probability that a step's finger targets arrive late by a part of the control period."""
    observation_delay: Annotated[int, Bounds(0, 50)] = 0
    """Readings are up to this many control steps old, constant in an episode."""
    max_push_n: Annotated[float, Bounds(0, 100)] = 0.0
    """Greatest force of the one push on the lifted object per episode [N]; direction and moment are drawn."""
    camera_bias_m: Annotated[float, Bounds(0, 0.5)] = 0.0
    """Half-width of the error of the camera's position, each axis: all points move with it [m]."""
    points_noise_m: Annotated[float, Bounds(0, 0.5)] = 0.0
    """Standard deviation of each visible point along each axis [m]."""
    points_dropout: Annotated[float, Bounds(0, 0.99)] = 0.0
    """Greatest share of the visible points that are missing."""


@dataclass
class EpisodeDraws:
    """Random draws of a batch of episodes; row i belongs to environment i.

    Lengths in m, angles in rad, forces in N.
    """

    key: Tensor
    """(env,) int64 key of the random numbers within the episode, for TrialRandom."""
    object_xy: Tensor
    """(env, 2)."""
    rest: Tensor
    """(env,) number in [0, 1) that picks the resting pose by probability."""
    yaw: Tensor
    """(env,)."""
    camera_offset: Tensor
    """(env, 3) camera position relative to the object's place on the table."""
    approach_offset: Tensor
    """(env, 3) start of the palm's approach, relative to the object's place on the table."""
    tilt: Tensor
    """(env, 2)."""
    standoff: Tensor
    """(env,)."""
    palm_offset: Tensor
    """(env, 2) along the palm's y and z."""
    roll: Tensor
    """(env,)."""
    finger_offset: Tensor
    """(env, motor)."""
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
    """(env, motor)."""
    kd_scale: Tensor
    """(env, motor)."""
    damping_scale: Tensor
    """(env, motor) of all joints that the motor moves."""
    effort_scale: Tensor
    """(env, motor)."""
    palm_stiffness: Tensor
    """(env,)."""
    gravity: Tensor
    """(env, 3) [m/s^2]."""
    joint_bias: Tensor
    """(env, motor)."""
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
    disturbance: Tensor
    """(env, 2) numbers in [0, 1): kind of a mixture's disturbance, and its strength."""

    @staticmethod
    def empty(num_envs: int, num_motors: int, device: torch.device | str = "cpu") -> "EpisodeDraws":
        """Return storage for `num_envs` rows of a hand with `num_motors`, all zero."""
        random = TrialRandom(torch.zeros(num_envs, dtype=torch.int64, device=device))
        draws = draw_episode(random, ResetCfg(), RandomizationCfg(), num_motors)
        return EpisodeDraws(**{f.name: torch.zeros_like(getattr(draws, f.name)) for f in fields(EpisodeDraws)})

    def write(self, rows: Tensor, draws: "EpisodeDraws") -> None:
        """Set the draws of some environments."""
        for item in fields(self):
            getattr(self, item.name)[rows] = getattr(draws, item.name)

    def rows(self, rows: Tensor) -> "EpisodeDraws":
        """Return the draws of some environments, copied."""
        return EpisodeDraws(**{f.name: getattr(self, f.name)[rows] for f in fields(EpisodeDraws)})


def draw_episode(random: TrialRandom, reset: ResetCfg, domain: RandomizationCfg, num_motors: int) -> EpisodeDraws:
    """Draw one episode per row of `random`, on its device."""
    return EpisodeDraws(
        key=random.key, **_draw_start(random, reset, num_motors), **_draw_domain(random, domain, num_motors)
    )


def _draw_start(random: TrialRandom, cfg: ResetCfg, num_motors: int) -> dict[str, Tensor]:
    def within(name: str, half_width: float, *size: int) -> Tensor:
        return random.uniform(name, -half_width, half_width, size)

    across = within("camera", cfg.camera_m, 2)
    above = torch.cat([across, torch.full_like(across[:, :1], cfg.camera_height_m)], dim=1)
    aside = {"overhead": 0.0, "side": 1.0, "mixed": 0.5}[cfg.camera_placement]
    return {
        "object_xy": within("object_xy", cfg.object_xy_range_m, 2),
        "rest": random.uniform("rest"),
        "yaw": within("yaw", math.pi),
        "camera_offset": torch.where(random.uniform("aside", size=(1,)) < aside, _place_aside(random, cfg), above),
        "approach_offset": above,
        "tilt": random.normal("tilt", cfg.tilt_sd_rad, (2,)),
        "standoff": within("standoff", cfg.standoff_range_m),
        "palm_offset": within("palm_offset", cfg.palm_xy_range_m, 2),
        "roll": random.integers("side", 2) * math.pi + random.uniform("roll", 0.0, math.pi / ROLLS),
        "finger_offset": within("finger_offset", cfg.finger_range_rad, num_motors),
        "shift": draw_shift(random),
        "force": random.directions("force", (FORCE_TURNS,)),
    }


def draw_shift(random: TrialRandom, attempt: Tensor | None = None) -> Tensor:
    """Return candidate displacements in a unit disc (row, try, 2), evenly over its area.

    `attempt` (row,) int64: number of the attempt, from 0, each with draws of its own; None: the first.
    """
    radius = random.uniform("shift, radius", size=(SHIFT_TRIES,), at=attempt).sqrt()
    angle = random.uniform("shift, angle", 0.0, 2 * math.pi, (SHIFT_TRIES,), at=attempt)
    return torch.stack([radius * angle.cos(), radius * angle.sin()], dim=-1)


def _place_aside(random: TrialRandom, cfg: ResetCfg) -> Tensor:
    azimuth, elevation, distance = (
        random.uniform(name, *getattr(cfg, name))
        for name in ("aside_azimuth_deg", "aside_elevation_deg", "aside_distance_m")
    )
    azimuth, elevation = azimuth.deg2rad(), elevation.deg2rad()
    level = elevation.cos()
    return distance[:, None] * torch.stack([azimuth.cos() * level, azimuth.sin() * level, elevation.sin()], dim=1)


def _draw_domain(random: TrialRandom, cfg: RandomizationCfg, num_motors: int) -> dict[str, Tensor]:
    tilt = random.uniform("gravity", -cfg.gravity_rad, cfg.gravity_rad, (2,)).sin()
    down = -(1 - tilt.square().sum(dim=1, keepdim=True)).sqrt()
    sizes = torch.tensor(cfg.size_scales, dtype=torch.float64, device=random.key.device)
    low, high = (math.log(factor) for factor in cfg.palm_stiffness)
    one_each = ("friction", "table_friction", "mass_scale")
    per_joint = ("kp_scale", "kd_scale", "damping_scale", "effort_scale")
    return {
        **{name: random.uniform(name, *getattr(cfg, name)) for name in one_each},
        **{name: random.uniform(name, *getattr(cfg, name), size=(num_motors,)) for name in per_joint},
        "com_offset": random.uniform("com_offset", -cfg.com_range_m, cfg.com_range_m, (3,)),
        "size": sizes[random.integers("size", len(sizes))],
        "palm_stiffness": random.uniform("palm_stiffness", low, high).exp(),
        "gravity": GRAVITY_M_S2 * torch.cat([tilt, down], dim=1),
        "joint_bias": random.uniform("joint_bias", -cfg.joint_bias_rad, cfg.joint_bias_rad, (num_motors,)),
        "action_delay": random.integers("action_delay", cfg.action_delay + 1).double(),
        "observation_delay": random.integers("observation_delay", cfg.observation_delay + 1).double(),
        "push": random.uniform("push", 0.0, cfg.max_push_n, (1,)) * random.directions("push, direction"),
        "push_at": random.uniform("push_at"),
        "camera_bias": random.uniform("camera_bias", -cfg.camera_bias_m, cfg.camera_bias_m, (3,)),
        "disturbance": random.uniform("mishap", size=(2,)),
    }


def draw_object(random: TrialRandom, count: int, weights: Tensor | None = None) -> Tensor:
    """Return the object number (row,) int64 of each episode, drawn evenly or by `weights`.

    `weights` (count,) sum to 1.
    """
    if weights is None:
        return random.integers("object", count)
    return torch.searchsorted(weights.cumsum(0), random.uniform("object"), right=True).clamp(max=count - 1)
