"""Motors of a driver that move sums of joint positions, each weighted by its ratio."""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from dexgrasp.perception.motors import Motors

Array = NDArray[np.float64]


class MotorSums:
    """Computes sums of joint positions from the motors of the contract, and those motors from sums."""

    def __init__(self, motors: Motors, sums: Sequence[Mapping[str, float]]) -> None:
        """`sums`: ratio of each joint of the contract, per sum."""
        ratios = np.array([[row.get(name, 0.0) for name in motors.joint_names] for row in sums])
        ratios = ratios.reshape(len(sums), len(motors.joint_names))
        zero = motors.joint_positions(np.zeros(len(motors.names)))
        per_motor = np.array([motors.joint_positions(row) - zero for row in np.eye(len(motors.names))])
        self._matrix, self._shift = ratios @ per_motor.T, ratios @ zero

    def of(self, motor_pos: Array) -> Array:
        """Return the sums (sum,) [rad] at motor positions (motor,) [rad]."""
        return self._matrix @ motor_pos + self._shift

    def determine(self, unknown: Sequence[int]) -> bool:
        """Return whether the motors of these indices follow from the sums and the other motors."""
        return not unknown or bool(np.linalg.matrix_rank(self._matrix[:, unknown]) == len(unknown))

    def motors(self, sums: Array, known: Mapping[int, float]) -> Array:
        """Return motor positions (motor,) [rad] for sums (sum,) [rad] and known motors by index."""
        motor_pos = np.zeros(self._matrix.shape[1])
        for i, value in known.items():
            motor_pos[i] = value
        unknown = [i for i in range(len(motor_pos)) if i not in known]
        if unknown:
            rest = sums - self.of(motor_pos)
            motor_pos[unknown] = np.linalg.lstsq(self._matrix[:, unknown], rest, rcond=None)[0]
        return motor_pos
