"""Represent grasp styles as vectors for a search: a vector changes a given style, zero leaves it."""

from dataclasses import dataclass, fields, replace

import mujoco
import numpy as np
import torch
from numpy.typing import NDArray

from dexgrasp.perception.grasp_planning.grasp_style import GraspStyle
from dexgrasp.sim.robots.hand import HandSpec

CLOSING_STEP = 0.3
"""Change of the logarithm of a closing direction per unit of a vector."""
OPEN_STEP_RAD = 0.2
"""Change of an open pose per unit of a vector."""
LENGTH_STEP_M = {"offset_y_m": 0.01, "offset_z_m": 0.01, "gap_m": 0.008, "floor_m": 0.01}
"""Change of the lengths of a style per unit of a vector."""


@dataclass(frozen=True)
class StyleSpace:
    """Vectors that change a grasp style: closing and open pose of joint groups, then the lengths.

    Joints at one place of different fingers form a group, as fingers are alike; each joint of the thumb is its own.
    """

    base: GraspStyle
    """Style of the zero vector."""
    lower: NDArray[np.float64]
    """(joint,) least open pose [rad]."""
    upper: NDArray[np.float64]
    """(joint,) largest open pose [rad]."""
    closing_groups: tuple[tuple[int, ...], ...]
    """Joints that close."""
    open_groups: tuple[tuple[int, ...], ...]
    """Joints whose open pose is searched: those that close, and all of the thumb."""

    @classmethod
    def of(cls, hand: HandSpec, base: GraspStyle) -> "StyleSpace":
        """Return the space around a style of a hand."""
        groups, thumb = joint_groups(hand)
        closes = base.closing.numpy() != 0
        closing = [tuple(joint for joint in group if closes[joint]) for group in groups]
        opened = [group if set(group) <= thumb else part for group, part in zip(groups, closing, strict=True)]
        return cls(
            base=base,
            lower=hand.joint_lower,
            upper=hand.joint_upper,
            closing_groups=tuple(filter(None, closing)),
            open_groups=tuple(filter(None, opened)),
        )

    @property
    def size(self) -> int:
        """Return the number of elements of a vector."""
        return len(self.closing_groups) + len(self.open_groups) + len(LENGTH_STEP_M)

    def style(self, vector: NDArray[np.float64]) -> GraspStyle:
        """Return the style of a vector (size,)."""
        factors, shifts, lengths = np.split(vector, np.cumsum([len(self.closing_groups), len(self.open_groups)]))
        closing, pose = self.base.closing.numpy().copy(), self.base.open_pose.numpy().copy()
        direction = np.where(closing < 0, -1.0, 1.0)
        for group, factor in zip(self.closing_groups, factors, strict=True):
            closing[list(group)] *= np.exp(CLOSING_STEP * factor)
        for group, shift in zip(self.open_groups, shifts, strict=True):
            pose[list(group)] += direction[list(group)] * OPEN_STEP_RAD * shift
        changed = {
            name: (getattr(self.base, name) + step * float(number)).clamp(-1.0, 1.0)
            for (name, step), number in zip(LENGTH_STEP_M.items(), lengths, strict=True)
        }
        return replace(
            self.base,
            closing=torch.from_numpy(closing.clip(-20.0, 20.0)),
            open_pose=torch.from_numpy(pose.clip(self.lower, self.upper)),
            **changed,
        )


def joint_groups(hand: HandSpec) -> tuple[list[tuple[int, ...]], set[int]]:
    """Return the groups of joints, and the joints of the thumb.

    A group: joints of fingers with equally many joints between them and the palm; or one joint of the thumb.
    """
    model = hand.to_mjspec().compile()
    joint_of_body = {int(model.joint(name).bodyid[0]): i for i, name in enumerate(hand.joint_names)}
    chains = [_chain(model, int(model.joint(name).bodyid[0]), joint_of_body) for name in hand.joint_names]
    thumb_roots = {_root_joint(model, model.body(body).id, joint_of_body) for body in hand.thumb_bodies}
    thumb = {joint for joint, chain in enumerate(chains) if chain[0] in thumb_roots}
    by_depth: dict[int, list[int]] = {}
    for joint, chain in enumerate(chains):
        if joint not in thumb:
            by_depth.setdefault(len(chain), []).append(joint)
    return [*(tuple(group) for group in by_depth.values()), *((joint,) for joint in sorted(thumb))], thumb


def _chain(model: mujoco.MjModel, body: int, joint_of_body: dict[int, int]) -> list[int]:
    """Return the joints from the palm to a body, its own last."""
    chain: list[int] = []
    while body > 0:
        if body in joint_of_body:
            chain.append(joint_of_body[body])
        body = int(model.body_parentid[body])
    return chain[::-1]


def _root_joint(model: mujoco.MjModel, body: int, joint_of_body: dict[int, int]) -> int:
    """Return the joint of a finger that is nearest the palm, by a body of the finger; -1 for the palm."""
    chain = _chain(model, body, joint_of_body)
    return chain[0] if chain else -1


def style_lengths(style: GraspStyle) -> dict[str, float]:
    """Return the lengths of a style by name [m]."""
    return {item.name: float(getattr(style, item.name)) for item in fields(style) if item.name in LENGTH_STEP_M}
