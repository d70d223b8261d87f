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
        held = np.zeros(points_w.shape[1], bool)
        for start, end, radius in zip(self.start_w, self.end_w, self.radius_m + margin_m, strict=True):
            axis = np.asarray(end - start, np.float32)
            reach = radius + np.abs(axis) / 2
            middle = ((start + end) / 2).astype(np.float32)
            near = np.flatnonzero((np.abs(points_w - middle[:, None]) < reach[:, None]).all(0))
            offset = points_w[:, near] - start.astype(np.float32)[:, None]
            along = np.clip(axis @ offset / max(float(axis @ axis), 1e-12), 0.0, 1.0)
            held[near] |= ((offset - axis[:, None] * along) ** 2).sum(0) < radius**2
        return held
