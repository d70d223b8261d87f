"""Motors of a hand and the joints that follow them: joint = ratio * motor's joint + offset.

A motor has the name of the joint that it drives itself. Joints without a motor follow that joint. A robot needs no
simulator for them.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np

from dexgrasp.utils.bounds import Bounds, bounded

LEAST_RATIO = 1e-3
"""Least magnitude of a ratio; a joint that follows with less does not move."""


@dataclass(frozen=True)
@bounded
class Coupling:
    """Linear coupling of a joint without a motor of its own to another joint."""

    follows: str
    """Joint that it follows."""
    ratio: Annotated[float, Bounds(-20.0, 20.0)]
    """Motion of the joint per motion of the joint that it follows, not 0."""
    offset: Annotated[float, Bounds(-6.3, 6.3)] = 0.0
    """Position of the joint where the joint that it follows is at 0 [rad]."""

    def __post_init__(self) -> None:
        if abs(self.ratio) < LEAST_RATIO:
            raise ValueError(
                f"ratio must be at least {LEAST_RATIO:g} in magnitude, got {self.ratio}: a joint that does not move "
                "belongs to the body that carries it"
            )


def resolve_chains(coupled: Mapping[str, Coupling], joint_names: Iterable[str]) -> dict[str, Coupling]:
    """Return the couplings to joints that have motors, in the order of the joints.

    Chains are multiplied out.

    Raises ValueError for a joint that is unknown and for a cycle.
    """
    names = list(joint_names)
    for joint, coupling in coupled.items():
        for name in (joint, coupling.follows):
            if name not in names:
                raise ValueError(f"joint '{name}' of the coupling of '{joint}' is unknown; known: {names}")
    return {joint: _to_motor(joint, coupled) for joint in names if joint in coupled}


def _to_motor(joint: str, coupled: Mapping[str, Coupling]) -> Coupling:
    chain, ratio, offset = [joint], 1.0, 0.0
    while (last := chain[-1]) in coupled:
        step = coupled[last]
        ratio, offset = ratio * step.ratio, offset + ratio * step.offset
        if step.follows in chain:
            raise ValueError(
                f"'{joint}' follows no motor: {' -> '.join([*chain, step.follows])} is a cycle; expected a chain that "
                "ends at a joint with a motor"
            )
        chain.append(step.follows)
    return Coupling(chain[-1], ratio, offset)


class Motors:
    """Motors of a hand, in the order of its joints; arrays and tensors end in (joint,) or (motor,)."""

    def __init__(self, joint_names: Sequence[str], coupled: Mapping[str, Coupling]) -> None:
        """`coupled`: coupling of each joint without a motor, to a joint with one."""
        lines = [coupled.get(name, Coupling(name, 1.0)) for name in joint_names]
        self.joint_names, self.coupled = tuple(joint_names), dict(coupled)
        self.names = tuple(name for name in joint_names if name not in coupled)
        """Names of the motors: of the joints that they drive themselves."""
        if lost := [line.follows for line in lines if line.follows not in self.names]:
            raise ValueError(f"coupled joints must follow joints with motors, one of {self.names}; got '{lost[0]}'")
        self.joints = [list(joint_names).index(name) for name in self.names]
        """(motor,) index of the motor's joint."""
        self.of_joint = [self.names.index(line.follows) for line in lines]
        """(joint,) index of the motor that moves the joint."""
        self.ratio = [line.ratio for line in lines]
        """(joint,) motion of the joint per motion of the motor's joint."""
        self.offset = [line.offset for line in lines]
        """(joint,) position of the joint where the motor's joint is at 0 [rad]."""

    def positions(self, joint_pos: Any) -> Any:
        """Return the positions (..., motor) of the motors' joints among joint positions (..., joint)."""
        return joint_pos[..., self.joints] if self.coupled else joint_pos

    def spread(self, values: Any) -> Any:
        """Return values (..., joint) from values (..., motor): each joint has that of its motor."""
        return values[..., self.of_joint] if self.coupled else values

    def moved(self, motion: Any) -> Any:
        """Return the motions (..., joint) of all joints for motions (..., motor) of the motors' joints."""
        return self.spread(motion) * _like(motion, self.ratio) if self.coupled else motion

    def joint_positions(self, motor_pos: Any) -> Any:
        """Return positions (..., joint) of all joints for those (..., motor) of the motors' joints [rad]."""
        return self.moved(motor_pos) + _like(motor_pos, self.offset) if self.coupled else motor_pos

    def limits(self, lower: Any, upper: Any) -> tuple[np.ndarray, np.ndarray]:
        """Return the limits (motor,) twice [rad] within which all joints keep theirs (joint,)."""
        lower, upper = (np.array(limit, dtype=np.float64) for limit in (lower, upper))
        if not self.coupled:
            return lower, upper
        ends = (np.stack([lower, upper]) - self.offset) / self.ratio
        low, high = ends.min(axis=0), ends.max(axis=0)
        mine = [np.array(self.of_joint) == motor for motor in range(len(self.names))]
        return np.array([low[joints].max() for joints in mine]), np.array([high[joints].min() for joints in mine])


def _like(values: Any, numbers: list[float]) -> Any:
    """Return numbers as an array or a tensor of the type and on the device of `values`."""
    return np.array(numbers) if isinstance(values, np.ndarray) else values.new_tensor(numbers)
