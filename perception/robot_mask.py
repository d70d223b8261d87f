"""The robot's own body in the camera's view: points within it belong to no object."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Capsules:
    """Rounded cylinders about the links of hand and arm, where these are now."""

    start_w: NDArray[np.floating]
    """(capsule, 3) one end of the axis, world frame [m]."""
    end_w: NDArray[np.floating]
    """(capsule, 3) the other end."""
    radius_m: NDArray[np.floating]
    """(capsule,)"""

    def __post_init__(self) -> None:
        count = len(self.radius_m)
        if np.shape(self.start_w) != (count, 3) or np.shape(self.end_w) != (count, 3):
            shapes = f"{np.shape(self.start_w)}, {np.shape(self.end_w)}, {np.shape(self.radius_m)}"
            raise ValueError(f"capsules are start_w (c, 3), end_w (c, 3) and radius_m (c,), got {shapes}")
        if not all(np.isfinite(part).all() for part in (self.start_w, self.end_w, self.radius_m)):
            raise ValueError("capsules must be finite: is a joint reading missing?")

    def hold(self, points_w: NDArray[np.float32], margin_m: float) -> NDArray[np.bool_]:
        """Which points (3, n) lie within the capsules enlarged by `margin_m`; shape (n,)."""
        if not points_w.shape[1]:
            return np.zeros(0, bool)
        centre = points_w.mean(axis=1, keepdims=True)  # squares of small numbers lose little
        points = points_w - centre
        start, axis = (ends.astype(np.float32) for ends in (self.start_w - centre.T, self.end_w - self.start_w))
        along = axis @ points - (axis * start).sum(axis=1)[:, None]
        length = np.maximum((axis**2).sum(axis=1), 1e-12)[:, None]
        part = np.clip(along / length, 0.0, 1.0)
        square = (points**2).sum(axis=0) - 2 * (start @ points) + (start**2).sum(axis=1)[:, None]
        square += part * (part * length - 2 * along)
        return (square < ((self.radius_m + margin_m) ** 2).astype(np.float32)[:, None]).any(axis=0)
