"""Represent grasp styles as vectors for a search: a vector changes a given style, zero leaves it."""

from dataclasses import dataclass, replace

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
    """Vectors that change a grasp style: closing and open pose of groups of motors, then the lengths.

    Motors at one place of different fingers form a group, as fingers are alike; each motor of the thumb is its own.
    """

    base: GraspStyle
    """Style of the zero vector."""
    hand: HandSpec
    closing_groups: tuple[tuple[int, ...], ...]
    """Motors that close."""
    open_groups: tuple[tuple[int, ...], ...]
    """Motors whose open pose is searched: those that close, and all of the thumb."""

    @classmethod
    def of(cls, hand: HandSpec, base: GraspStyle) -> "StyleSpace":
        """Return the space around a style of a hand."""
        groups, thumb = motor_groups(hand)
        closes = base.closing.numpy() != 0
        closing = [tuple(motor for motor in group if closes[motor]) for group in groups]
        opened = [group if set(group) <= thumb else part for group, part in zip(groups, closing, strict=True)]
        return cls(
            base=base,
            hand=hand,
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
        motors, hand = self.hand.motors, self.hand
        closing, pose = self.base.closing.numpy().copy(), motors.positions(self.base.open_pose.numpy()).copy()
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
            open_pose=torch.from_numpy(motors.joint_positions(pose.clip(hand.motor_lower, hand.motor_upper))),
            **changed,
        )


def motor_groups(hand: HandSpec) -> tuple[list[tuple[int, ...]], set[int]]:
    """Return the groups of motors, and the motors of the thumb.

    A group: motors of fingers with equally many motors between them and the palm; or one motor of the thumb.
    """
    model = hand.model
    motor_of_body = {int(model.joint(name).bodyid[0]): i for i, name in enumerate(hand.motors.names)}
    chains = [_chain(model, body, motor_of_body) for body in motor_of_body]
    thumb_roots = {
        chain[0] for body in hand.thumb_bodies if (chain := _chain(model, model.body(body).id, motor_of_body))
    }
    thumb = {motor for motor, chain in enumerate(chains) if chain[0] in thumb_roots}
    by_depth: dict[int, list[int]] = {}
    for motor, chain in enumerate(chains):
        if motor not in thumb:
            by_depth.setdefault(len(chain), []).append(motor)
    return [*(tuple(group) for group in by_depth.values()), *((motor,) for motor in sorted(thumb))], thumb


def _chain(model: mujoco.MjModel, body: int, motor_of_body: dict[int, int]) -> list[int]:
    """Return the motors from the palm to a body, its own last."""
    chain: list[int] = []
    while body > 0:
        if body in motor_of_body:
            chain.append(motor_of_body[body])
        body = int(model.body_parentid[body])
    return chain[::-1]
