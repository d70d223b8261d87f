"""Reward terms: pure functions of named quantities, each (env,), weighted by RewardCfg and summed.

Terms of the grasp phase follow RobustDexGrasp (arXiv 2504.05287); terms of lift and hold are ours. Contact bodies and
keypoints carry the hand's own weights, which sum to their number. Users add terms with `register_reward`.
"""

import copy
import inspect
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, fields
from functools import cached_property
from typing import Annotated

import torch
from torch import Tensor

from dexgrasp.sim.engine.base import State
from dexgrasp.sim.robots.hand import HandSpec
from dexgrasp.sim.task.actions import Phases
from dexgrasp.sim.task.outcomes import opposed_contact
from dexgrasp.sim.task.registry import Registry
from dexgrasp.utils.bounds import Bounds, bounded


@dataclass(frozen=True)
@bounded
class RewardCfg:
    """Weight the reward terms, per control step; zero switches a term off."""

    reach: Annotated[float, Bounds(-1000, 1000)] = -2.0
    """Weight of the mean distance from keypoints to object [1/m], in the grasp phase; each is capped at 0.15 m."""
    contact: Annotated[float, Bounds(-1000, 1000)] = 0.4
    """Weight of the share of the hand's contact bodies that touch the object, 0 to 1."""
    force: Annotated[float, Bounds(-1000, 1000)] = 0.3
    """Weight of the mean contact force on the object in units of 10 N, each body's capped at 1."""
    opposition: Annotated[float, Bounds(-1000, 1000)] = 0.15
    """Weight of a step in which the thumb and another finger both touch the object."""
    table_contact: Annotated[float, Bounds(-1000, 1000)] = -0.3
    """Weight of a step of the grasp phase in which the hand touches the table."""
    displacement: Annotated[float, Bounds(-1000, 1000)] = -1.0
    """Weight of the distance that the object moved over the table [1/m], in the grasp phase; capped at 0.2 m."""
    object_speed: Annotated[float, Bounds(-1000, 1000)] = -0.3
    """Weight of the squared object speed in units of 1/3 m/s, in the grasp phase; capped at 1."""
    object_spin: Annotated[float, Bounds(-1000, 1000)] = -0.02
    """Weight of the squared object angular speed [s^2/rad^2], in the grasp phase; capped at 10 rad^2/s^2."""
    palm_speed: Annotated[float, Bounds(-1000, 1000)] = -0.02
    """Weight of the squared palm speed [s^2/m^2], in the grasp phase; ten times as much above 0.25 m/s."""
    lift: Annotated[float, Bounds(-1000, 1000)] = 1.0
    """Weight of the share of the commanded lift that the object followed, 0 to 1, in lift and hold."""
    success: Annotated[float, Bounds(-1000, 1000)] = 3.0
    """Weight of the last step of a successful episode."""
    action: Annotated[float, Bounds(-1000, 1000)] = -0.01
    """Weight of the mean squared action."""
    floor: Annotated[float, Bounds(-1000, 1000)] = -2.0
    """Least reward of a step. The published method intends a floor too, but its release discards the clipped value."""
    extra: Annotated[dict[str, float], Bounds(-1000, 1000)] = field(default_factory=dict)
    """Weights of registered terms by name: task.reward.extra.my_term=0.5; plugins=my_module registers them."""

    def __post_init__(self) -> None:
        if built_in := sorted(set(self.extra) & {item.name for item in fields(self)}):
            name = built_in[0]
            raise ValueError(f"reward.extra.{name} is a built-in key: set reward.{name} instead")


@dataclass(frozen=True)
class RewardContext:
    """Inputs of a reward term after a control step; first dimension: environment.

    A reward term must not change them in place.
    """

    state: State
    """True state of robot and object."""
    phases: Phases
    """Phases of the step that was just taken."""
    object_vectors_p: Tensor
    """(env, keypoint, 3) from each keypoint to the nearest point of the object [m], axes as task.vectors says."""
    palm_linvel_w: Tensor
    """(env, 3) mean palm velocity during the step, world frame [m/s]."""
    object_offset_w: Tensor
    """(env, 3) displacement of the object since the start of the trial, world frame [m]."""
    success: Tensor
    """(env,) bool: the episode ended with this step, and with success."""
    action: Tensor
    """(env, action) clipped action of the step."""
    hand: HandSpec
    """The hand: names and weights of joints, keypoints and contact bodies."""
    lift_m: float
    """Height by which the palm rises in the lift [m]."""
    step_s: float
    """Control period [s]."""


RewardFunction = Callable[[RewardContext], Tensor]
"""Returns a term before its weight: (env,) float or bool, on the task's device."""

_REGISTRY: Registry[RewardFunction] = Registry(
    "reward term", "register_reward", reserved=[item.name for item in fields(RewardCfg)]
)


def register_reward(name: str, function: RewardFunction) -> None:
    """Make `function` available as the reward term `name`; its weight is task.reward.extra.NAME."""
    if not callable(function):
        raise TypeError(f"reward term '{name}' must be a function of a RewardContext, got {function!r}")
    try:
        inspect.signature(function).bind(None)
    except TypeError as error:
        raise TypeError(
            f"reward term '{name}' must be a function of one argument, a RewardContext: {function!r}: {error}"
        ) from error
    except ValueError:
        pass  # a built-in without a signature
    _REGISTRY.register(name, function)


def check_registered(cfg: RewardCfg) -> None:
    """Raise ValueError where a term of `cfg.extra` is not registered."""
    for name in cfg.extra:
        _REGISTRY.get(name)


def reach(distance_m: Tensor, weights: Tensor) -> Tensor:
    """Return the weighted mean keypoint-object distance, each capped at 0.15 m.

    `distance_m` (env, keypoint).
    """
    return (distance_m.clamp(max=0.15) * weights).sum(-1) / weights.sum()


def contact(touching: Tensor, weights: Tensor) -> Tensor:
    """Return the weighted share of the hand's bodies (env, body) that touch the object, in [0, 1]."""
    return (touching * weights).sum(-1) / weights.sum()


def force(force_n: Tensor, weights: Tensor) -> Tensor:
    """Return the weighted mean of the contact forces (env, body), each capped at 10 N, in [0, 1]."""
    return (force_n.clamp(max=10.0) / 10.0 * weights).sum(-1) / weights.sum()


def opposition(touching: Tensor, thumb: Tensor, fingers: Tensor) -> Tensor:
    """Return 1 where the thumb and a finger touch the object; `thumb`, `fingers`: masks (body,)."""
    return opposed_contact(touching, thumb, fingers).to(torch.float32)


def table_contact(touching: Tensor) -> Tensor:
    """Return 1 where any body of the hand (env, body) touches the table."""
    return touching.any(-1).to(torch.float32)


def displacement(offset_xy_m: Tensor) -> Tensor:
    """Return the distance of the object's motion across the table, capped at 0.2 m.

    `offset_xy_m` (env, 2).
    """
    return offset_xy_m.norm(dim=-1).clamp(max=0.2)


def object_speed(linvel_m_s: Tensor) -> Tensor:
    """Return the squared speed of the object relative to a third of a metre per second, capped at 1."""
    return (3.0 * linvel_m_s.norm(dim=-1)).square().clamp(max=1.0)


def object_spin(angvel_rad_s: Tensor) -> Tensor:
    """Return the squared angular speed of the object, capped at 10."""
    return angvel_rad_s.square().sum(-1).clamp(max=10.0)


def palm_speed(linvel_m_s: Tensor) -> Tensor:
    """Return the squared palm speed, ten times as much above 0.25 m/s."""
    square = linvel_m_s.square().sum(-1)
    return torch.where(square > 0.25**2, 10.0 * square, square)


def lift(rise_m: Tensor, commanded_m: Tensor) -> Tensor:
    """Return the share of the commanded lift that the object followed, in [0, 1]."""
    return (rise_m / commanded_m.clamp(min=0.01)).clamp(0.0, 1.0)


def action(value: Tensor) -> Tensor:
    """Return the mean squared action."""
    return value.square().mean(-1)


class TermMeans(Mapping[str, float]):
    """Mean of each weighted reward term of a step, read from the device when the first one is asked for."""

    def __init__(self, weighted: Mapping[str, Tensor], checked: Mapping[str, Tensor]) -> None:
        """`weighted` (env,) by name; those of `checked` may be not finite, which raises FloatingPointError then."""
        self._names, self._checked = tuple(weighted), checked
        self._means = torch.stack([term.mean() for term in weighted.values()])

    def tensors(self) -> dict[str, Tensor]:
        """Return means and checked terms by the names that `read` looks for."""
        return {"terms": self._means} | {f"terms/{name}": term for name, term in self._checked.items()}

    def read(self, tensors: Mapping[str, Tensor]) -> "TermMeans":
        """Return the means of the step of these `tensors`."""
        other = copy.copy(self)
        other._means, other._checked = tensors["terms"], {name: tensors[f"terms/{name}"] for name in self._checked}
        other.__dict__.pop("_values", None)
        return other

    @cached_property
    def _values(self) -> dict[str, float]:
        values = dict(zip(self._names, self._means.tolist(), strict=True))
        for name, term in self._checked.items():
            if not math.isfinite(values[name]):
                rows = (~torch.isfinite(term)).nonzero().squeeze(1).tolist()
                raise FloatingPointError(f"reward term '{name}' is not finite in environments {rows}")
        return values

    def __getitem__(self, name: str) -> float:
        return self._values[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)


class Rewards:
    """Sum the weighted terms of a step; built for one hand."""

    def __init__(self, cfg: RewardCfg, hand: HandSpec, device: torch.device | str = "cpu") -> None:
        """Raise ValueError where a term of `cfg.extra` is not registered."""
        self._cfg = cfg
        self._extra: Mapping[str, RewardFunction] = {name: _REGISTRY.get(name) for name in cfg.extra}
        self._keypoint_weights = torch.tensor(hand.keypoint_weights, device=device).float()
        self._contact_weights = torch.tensor(hand.contact_weights, device=device).float()
        self._thumb, self._fingers = (torch.tensor(mask, device=device) for mask in (hand.thumb_mask, hand.finger_mask))
        self.weighted: dict[str, Tensor] = {}
        """Weighted terms (env,) of the last step by name, before the floor."""

    def __call__(self, context: RewardContext) -> tuple[Tensor, Mapping[str, float]]:
        """Return the reward (env,) of the step and the mean of each weighted term."""
        weighted = {name: getattr(self._cfg, name) * term.float() for name, term in self._built_in(context).items()}
        total = torch.stack(list(weighted.values())).sum(dim=0)
        for name, function in self._extra.items():
            term = _checked(name, _evaluate(name, function, context), context.success)
            weighted[name] = self._cfg.extra[name] * term.float()
            total = total + weighted[name]  # one by one: a weight of zero changes no bit
        self.weighted = weighted
        terms = TermMeans(weighted, {name: weighted[name] for name in self._extra})
        return total.clamp(min=self._cfg.floor), dict(terms) if total.device.type == "cpu" else terms

    def _built_in(self, context: RewardContext) -> dict[str, Tensor]:
        """Return the terms of the package, each (env,)."""
        state, phases, offset_w = context.state, context.phases, context.object_offset_w
        grasping = phases.grasping.float()
        lifted_m = ((phases.step + 1 - phases.grasp_steps) / phases.lift_steps).clamp(0, 1) * context.lift_m
        return {
            "reach": grasping * reach(context.object_vectors_p.norm(dim=-1), self._keypoint_weights),
            "contact": contact(state.object_contact, self._contact_weights),
            "force": force(state.object_force_w.norm(dim=-1), self._contact_weights),
            "opposition": opposition(state.object_contact, self._thumb, self._fingers),
            "table_contact": grasping * table_contact(state.table_contact),
            "displacement": grasping * displacement(offset_w[:, :2]),
            "object_speed": grasping * object_speed(state.object_linvel_w),
            "object_spin": grasping * object_spin(state.object_angvel_w),
            "palm_speed": grasping * palm_speed(context.palm_linvel_w),
            "lift": (1 - grasping) * lift(offset_w[:, 2], lifted_m),
            "success": context.success,
            "action": action(context.action),
        }


def _evaluate(name: str, function: RewardFunction, context: RewardContext) -> object:
    try:
        return function(context)
    except Exception as error:
        error.add_note(f"raised in the reward term '{name}'")
        raise


def _checked(name: str, value: object, like: Tensor) -> Tensor:
    """Return what the term `name` gave. Raise where it is no float or bool tensor (env,) on the device of `like`."""
    wanted = f"reward term '{name}' must return a float or bool tensor {tuple(like.shape)} on {like.device}"
    if not isinstance(value, Tensor):
        raise TypeError(f"{wanted}, got {type(value).__name__}")
    if value.shape != like.shape or value.device != like.device:
        raise ValueError(f"{wanted}, got {tuple(value.shape)} on {value.device}")
    if not (value.is_floating_point() or value.dtype == torch.bool):
        raise TypeError(f"{wanted}, got {value.dtype}")
    return value
