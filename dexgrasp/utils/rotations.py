"""Compute with quaternions and rigid poses in numpy, for code that must not import torch.

Quaternions are wxyz. `perception/transforms.py` has the batched torch versions under the same function names.
"""

from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]
CONJUGATE = np.array([1.0, -1.0, -1.0, -1.0])
"""A unit quaternion times this is its inverse."""
X = np.array([1.0, 0.0, 0.0])


@dataclass(frozen=True, eq=False)
class Pose:
    """Pose of frame b in frame a (T_a_b): it maps coordinates in b to coordinates in a."""

    pos_m: Array
    """(3,) origin of b in a [m]."""
    quat: Array
    """(4,) orientation of b in a, unit quaternion wxyz."""

    @classmethod
    def of(cls, pos_m: ArrayLike, quat: ArrayLike) -> Self:
        """Build a pose from array-likes and normalise the quaternion.

        Raises ValueError for wrong shapes, values that are not finite, or a quaternion far from unit length.
        """
        pos, orientation = np.array(pos_m, dtype=np.float64), np.array(quat, dtype=np.float64)
        if pos.shape != (3,) or orientation.shape != (4,) or not np.isfinite([*pos, *orientation]).all():
            raise ValueError(f"a pose has 3 finite coordinates and a quaternion of 4, got {pos_m} and {quat}")
        length = float(np.linalg.norm(orientation))
        if not 0.9 < length < 1.1:
            raise ValueError(f"the quaternion {orientation.tolist()} is not of unit length: {length:.3g}")
        return cls(pos, orientation / length)

    def __matmul__(self, other: "Pose") -> "Pose":
        return Pose(self.pos_m + quat_rotate(self.quat, other.pos_m), quat_multiply(self.quat, other.quat))

    def inverse(self) -> "Pose":
        """Return T_b_a."""
        inverse = self.quat * CONJUGATE
        return Pose(-quat_rotate(inverse, self.pos_m), inverse)

    @property
    def normal(self) -> Array:
        """Direction of the x axis in the outer frame, (3,); for a palm frame this is the palm normal."""
        return quat_rotate(self.quat, X)

    def distance_m(self, other: "Pose") -> float:
        """Return the distance between the origins [m]."""
        return float(np.linalg.norm(self.pos_m - other.pos_m))

    def angle_rad(self, other: "Pose") -> float:
        """Return the angle between the orientations [rad]."""
        return float(np.linalg.norm(self.turn_to(other)))

    def turn_to(self, other: "Pose") -> Array:
        """Return the rotation vector (3,) from this orientation to that of `other`, in the outer frame [rad]."""
        return rotvec_from_quat(quat_multiply(other.quat, self.quat * CONJUGATE))

    def step_towards(self, goal: "Pose", step_m: float, step_rad: float) -> "Pose":
        """Return the pose one step nearer to `goal`, at most `step_m` and `step_rad` away from this one."""
        gap, rotvec = goal.pos_m - self.pos_m, self.turn_to(goal)
        length, angle = float(np.linalg.norm(gap)), float(np.linalg.norm(rotvec))
        pos = goal.pos_m if length <= step_m else self.pos_m + gap * (step_m / length)
        if angle <= step_rad:
            return Pose(pos, goal.quat)
        quat = quat_multiply(quat_from_rotvec(rotvec * (step_rad / angle)), self.quat)
        return Pose(pos, quat / np.linalg.norm(quat))


def quat_rotate(quat: Array, vector: Array) -> Array:
    """Rotate a vector (3,) by a unit quaternion (4,)."""
    axis = quat[1:]
    once = 2.0 * _cross(axis, vector)
    return vector + quat[0] * once + _cross(axis, once)


def quat_multiply(a: Array, b: Array) -> Array:
    """Return the quaternion (4,) of rotation b followed by rotation a."""
    w = a[0] * b[0] - a[1:] @ b[1:]
    return np.concatenate([[w], a[0] * b[1:] + b[0] * a[1:] + _cross(a[1:], b[1:])])


def _cross(a: Array, b: Array) -> Array:
    """Return the cross product (3,) of two vectors, as np.cross to the bit, in a fifth of its time."""
    return np.array([a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]])


def quat_from_rotvec(rotvec: Array) -> Array:
    """Return the unit quaternion (4,) of a rotation vector (3,) [rad]."""
    angle = float(np.linalg.norm(rotvec))
    return np.concatenate([[np.cos(angle / 2)], 0.5 * np.sinc(angle / 2 / np.pi) * rotvec])


def rotvec_from_quat(quat: Array) -> Array:
    """Return the rotation vector (3,) [rad], at most pi long, of a unit quaternion (4,)."""
    quat = -quat if quat[0] < 0 else quat
    sine = float(np.linalg.norm(quat[1:]))
    return quat[1:] * (2.0 * np.arctan2(sine, quat[0]) / sine if sine > 1e-9 else 2.0)


def matrix_from_quat(quat: Array) -> Array:
    """Return the rotation matrix (3, 3) of a unit quaternion (4,)."""
    w, x, y, z = quat
    return np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
            [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
            [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
        ]
    )


def quat_from_matrix(R: Array) -> Array:
    """Return the unit quaternion (4,), w >= 0, of a rotation matrix (3, 3).

    Each row of K is the quaternion times 4 w, 4 x, 4 y or 4 z; the row with the largest factor is the most exact one.
    """
    a, b, c = np.diag(R)
    yz, zx, xy = R[2, 1] - R[1, 2], R[0, 2] - R[2, 0], R[1, 0] - R[0, 1]
    sxy, sxz, syz = R[0, 1] + R[1, 0], R[0, 2] + R[2, 0], R[1, 2] + R[2, 1]
    K = np.array(
        [
            [1 + a + b + c, yz, zx, xy],
            [yz, 1 + a - b - c, sxy, sxz],
            [zx, sxy, 1 - a + b - c, syz],
            [xy, sxz, syz, 1 - a - b + c],
        ]
    )
    row = K[np.diag(K).argmax()]
    quat = row / np.linalg.norm(row)
    return -quat if quat[0] < 0 else quat
