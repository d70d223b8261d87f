"""Maps joints of a driver to joints of the contract: names, order, signs, zeros, units.

    driver = sign * scale * contract + offset_rad          per joint

Joints are matched by name; no index leaves this file.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]
PerJoint = float | tuple[float, ...]


class JointStateError(ValueError):
    """Raised for unusable joint states; the text says which joint and why."""


@dataclass(frozen=True)
class Units:
    """Sign, zero and unit of a driver: one value for all joints, or one per joint in the driver's order."""

    sign: PerJoint = 1.0
    """Sign of the direction, 1 or -1."""
    offset_rad: PerJoint = 0.0
    """Driver value at the zero of the contract, in the driver's unit."""
    scale: PerJoint = 1.0
    """Driver units per radian."""

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if not np.isfinite(value).all():
                raise ValueError(f"{name} must be finite, got {value}")
        if not (np.abs(self.sign) == 1).all():
            raise ValueError(f"sign must be 1 or -1, got {self.sign}")
        if not (np.asarray(self.scale) > 0).all():
            raise ValueError(f"scale must be positive (use sign to reverse a joint), got {self.scale}")


class JointMap:
    """Converts joint values between the contract and one driver."""

    def __init__(
        self, joint_names: Sequence[str], driver_of: Mapping[str, str], order: Sequence[str], units: Units
    ) -> None:
        """`joint_names`: of the contract; `driver_of`: driver name of each; `order`: of the driver."""
        _check(joint_names, driver_of, order)
        self.joint_names, self.order = tuple(joint_names), tuple(order)
        """Joint names of the contract and of the driver, each in its own order."""
        self._to = np.array([self.joint_names.index(_contract(driver_of)[name]) for name in order])
        self._from = np.argsort(self._to)
        factor, offset = (np.broadcast_to(np.array(v, dtype=np.float64), len(order)) for v in _line(units, len(order)))
        self._factor, self._offset = factor.copy(), offset.copy()

    def to_driver(self, values: ArrayLike) -> Array:
        """Return driver values (driver joint,) for values (joint,) [rad] in the order of the contract."""
        return _row(values, len(self._to))[self._to] * self._factor + self._offset

    def from_driver(self, values: ArrayLike) -> Array:
        """Return values (joint,) [rad] in the order of the contract for driver values (driver joint,)."""
        return ((_row(values, len(self._to)) - self._offset) / self._factor)[self._from]

    def read(self, values: Mapping[str, float]) -> Array:
        """Return values (joint,) [rad] for driver values by name; additional names are ignored."""
        if missing := [name for name in self.order if name not in values]:
            raise JointStateError(f"joint states lack {missing} (or name them twice); they contain {sorted(values)}")
        if bad := [name for name in self.order if not np.isfinite(values[name])]:
            raise JointStateError(f"joint states: the values of {bad} are not finite")
        return self.from_driver([values[name] for name in self.order])


def _check(joint_names: Sequence[str], driver_of: Mapping[str, str], order: Sequence[str]) -> None:
    if missing := [name for name in joint_names if name not in driver_of]:
        raise ValueError(f"names: no driver joint for {missing}")
    if unknown := [name for name in driver_of if name not in joint_names]:
        raise ValueError(f"names: {unknown} are not joints of this hand or arm: {list(joint_names)}")
    if twice := sorted({name for name in order if list(order).count(name) > 1}):
        raise ValueError(f"joints: {twice} are listed more than once")
    if sorted(order) != sorted(driver_of.values()):
        raise ValueError(
            f"joints and names must list equal driver joints; different: {sorted(set(order) ^ set(driver_of.values()))}"
        )


def _contract(driver_of: Mapping[str, str]) -> dict[str, str]:
    return {theirs: ours for ours, theirs in driver_of.items()}


def _line(units: Units, joints: int) -> tuple[Array, Array]:
    """Return factor and offset of each joint."""
    for name, value in vars(units).items():
        if np.ndim(value) and len(np.asarray(value)) != joints:
            raise ValueError(f"{name}: expected one value or {joints}, got {len(np.asarray(value))}")
    return np.asarray(units.sign) * np.asarray(units.scale), np.asarray(units.offset_rad, dtype=np.float64)


def _row(values: ArrayLike, size: int) -> Array:
    array = np.asarray(values, dtype=np.float64)
    if array.shape != (size,):
        raise ValueError(f"expected {size} joint values, got shape {array.shape}")
    return array
