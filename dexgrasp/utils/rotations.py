"""Rigid poses in numpy: what the grasp node knows of geometry."""

from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]
CONJUGATE = np.array([1.0, -1.0, -1.0, -1.0])
X = np.array([1.0, 0.0, 0.0])


@dataclass(frozen=True, eq=False)
class Pose:
    """A frame in another one: T_a_b takes coordinates in b to coordinates in a."""

    pos_m: Array
    """(3,) [m]."""
    quat: Array
    """(4,) wxyz, of unit length."""

    @classmethod
    def of(cls, pos_m: ArrayLike, quat: ArrayLike) -> Self:
        """From anything like arrays; the quaternion is normalised. ValueError where a value is of no use."""
        pos, turn = np.array(pos_m, dtype=np.float64), np.array(quat, dtype=np.float64)
        if pos.shape != (3,) or turn.shape != (4,) or not (np.isfinite(pos).all() and np.isfinite(turn).all()):
            raise ValueError(f"a pose has 3 finite coordinates and a quaternion of 4, got {pos_m} and {quat}")
        length = float(np.linalg.norm(turn))
        if not 0.9 < length < 1.1:
            raise ValueError(f"the quaternion {turn.tolist()} is not of unit length: {length:.3g}")
        return cls(pos, turn / length)

    def __matmul__(self, other: "Pose") -> "Pose":
        return Pose(self.pos_m + rotate(self.quat, other.pos_m), multiply(self.quat, other.quat))

    def inverse(self) -> "Pose":
        """T_b_a of T_a_b."""
        turn = self.quat * CONJUGATE
        return Pose(-rotate(turn, self.pos_m), turn)

    @property
    def normal(self) -> Array:
        """(3,) x axis of the frame: where a palm looks."""
        return rotate(self.quat, X)

    def distance_m(self, other: "Pose") -> float:
        """Between the origins [m]."""
        return float(np.linalg.norm(self.pos_m - other.pos_m))

    def angle_rad(self, other: "Pose") -> float:
        """Between the orientations [rad]."""
        return float(np.linalg.norm(self.turn_to(other)))

    def turn_to(self, other: "Pose") -> Array:
        """(3,) rotation vector that turns this orientation into the other one, in the outer frame [rad]."""
        return rotation_vector(multiply(other.quat, self.quat * CONJUGATE))

    def towards(self, goal: "Pose", step_m: float, step_rad: float) -> "Pose":
        """One step to the goal that is no longer and turns no further than this."""
        gap, turn = goal.pos_m - self.pos_m, self.turn_to(goal)
        length, angle = float(np.linalg.norm(gap)), float(np.linalg.norm(turn))
        pos = goal.pos_m if length <= step_m else self.pos_m + gap * (step_m / length)
        if angle <= step_rad:
            return Pose(pos, goal.quat)
        turned = multiply(quaternion(turn * (step_rad / angle)), self.quat)
        return Pose(pos, turned / np.linalg.norm(turned))


def rotate(quat: Array, vector: Array) -> Array:
    """(3,) a vector turned by a unit quaternion (4,) wxyz."""
    axis = quat[1:]
    once = 2.0 * np.cross(axis, vector)
    return vector + quat[0] * once + np.cross(axis, once)


def multiply(a: Array, b: Array) -> Array:
    """Rotation b followed by rotation a, both (4,) wxyz."""
    w = a[0] * b[0] - a[1:] @ b[1:]
    return np.concatenate([[w], a[0] * b[1:] + b[0] * a[1:] + np.cross(a[1:], b[1:])])


def quaternion(turn: Array) -> Array:
    """(4,) wxyz of a rotation vector (3,) [rad]."""
    angle = float(np.linalg.norm(turn))
    return np.concatenate([[np.cos(angle / 2)], 0.5 * np.sinc(angle / 2 / np.pi) * turn])


def rotation_vector(quat: Array) -> Array:
    """(3,) [rad], at most pi long, of a unit quaternion."""
    quat = -quat if quat[0] < 0 else quat
    sine = float(np.linalg.norm(quat[1:]))
    return quat[1:] * (2.0 * np.arctan2(sine, quat[0]) / sine if sine > 1e-9 else 2.0)
