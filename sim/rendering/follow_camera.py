"""A camera that follows the hand smoothly and keeps it inside the image in every frame."""

import mujoco
import numpy as np
from numpy.typing import ArrayLike, NDArray

FOVY_DEG = 36.0
"""Vertical field of view."""
FILL = 0.74
"""Share of the half image that hand and object take when the camera is at rest."""
LIMIT = 0.94
"""Share of the half image that the hand never leaves."""
FOLLOW_S, ZOOM_S = 0.25, 0.8
"""Time constants of the point looked at and of the distance."""
NEAREST_M = 0.5
"""Least distance of the camera from the point it looks at."""
OBJECT_REACH_M = 0.35
"""Distance from the hand up to which the object is kept in the image too."""
BELOW_M = 0.07
"""Space below the hand that is kept in the image, down to the table: it shows the height of the lift."""


class FollowCamera:
    """Free camera of MuJoCo that follows spheres, at `rate_hz` updates per second of simulated time."""

    def __init__(self, azimuth_deg: float, elevation_deg: float, aspect: float, rate_hz: float = 20.0) -> None:
        """`aspect`: width of the image divided by its height."""
        self.camera = mujoco.MjvCamera()
        """Camera as of the last update."""
        self.camera.azimuth, self.camera.elevation = azimuth_deg, elevation_deg
        azimuth, elevation = np.radians([azimuth_deg, elevation_deg])
        forward = np.array(
            [np.cos(elevation) * np.cos(azimuth), np.cos(elevation) * np.sin(azimuth), np.sin(elevation)]
        )
        right = np.array([np.sin(azimuth), -np.cos(azimuth), 0.0])
        self._axes = np.stack([right, np.cross(right, forward), forward])  # world frame -> right, up, forward
        half_height = np.tan(np.radians(FOVY_DEG) / 2)
        self._half = np.array([half_height * aspect, half_height])
        self._step_s = 1.0 / rate_hz
        self._state: NDArray[np.float64] | None = None  # point looked at (3) in camera axes, distance
        self._rate = np.zeros(4)

    def update(self, hand_w: ArrayLike, radius_m: ArrayLike, object_w: ArrayLike) -> mujoco.MjvCamera:
        """Move the camera by one frame and return it.

        `hand_w` (n, 3) and `radius_m` (n,): spheres around the parts of the hand [m]. `object_w` (3,): the object.
        """
        hand_w, radius = np.asarray(hand_w, float), np.asarray(radius_m, float)
        middle_w, lowest = hand_w.mean(axis=0), (hand_w[:, 2] - radius).min()
        below_w = np.array([*middle_w[:2], max(lowest - BELOW_M, 0.0)])
        near = np.linalg.norm(np.asarray(object_w) - middle_w) < OBJECT_REACH_M
        hand, others = hand_w @ self._axes.T, np.stack([below_w, object_w] if near else [below_w]) @ self._axes.T
        wanted = self._wanted(hand, radius, others)
        self._state = wanted if self._state is None else self._smoothed(self._state, wanted)
        self._keep_inside(hand, radius)
        self.camera.lookat[:] = self._axes.T @ self._state[:3]
        self.camera.distance = self._state[3]
        return self.camera

    def _wanted(self, hand: NDArray, radius: NDArray, others: NDArray) -> NDArray:
        """Return the point (3) and the distance that centre the hand and other points (n, 3), in camera axes."""
        low, high = (hand - radius[:, None]).min(axis=0), (hand + radius[:, None]).max(axis=0)
        low, high = np.minimum(low, others.min(axis=0)), np.maximum(high, others.max(axis=0))
        middle, half = (low + high) / 2, (high - low) / 2
        distance = (half[:2] / (self._half * FILL)).max() + half[2]
        return np.append(middle, max(distance, NEAREST_M))

    def _smoothed(self, state: NDArray, wanted: NDArray) -> NDArray:
        """Return the state after one frame of a critically damped spring (exact solution)."""
        pull = 2.0 / np.array([FOLLOW_S, FOLLOW_S, FOLLOW_S, ZOOM_S])
        offset, decay = state - wanted, np.exp(-pull * self._step_s)
        momentum = self._rate + pull * offset
        self._rate = (self._rate - pull * momentum * self._step_s) * decay
        return wanted + (offset + momentum * self._step_s) * decay

    def _keep_inside(self, hand: NDArray, radius: NDArray) -> None:
        """Move the camera at once where the smooth motion would let a part of the hand leave the image."""
        assert self._state is not None
        state = self._state
        for _ in range(8):  # a longer distance moves the limits a little
            depth = hand[:, 2] - state[2] + state[3]
            reach = np.maximum(depth, 0.05)[:, None] * self._half * LIMIT - radius[:, None]
            low = (hand[:, :2] - reach).max(axis=0)
            high = (hand[:, :2] + reach).min(axis=0)
            state[:2] = np.clip(state[:2], np.minimum(low, high), np.maximum(low, high))
            if (low <= high).all():
                return
            state[3] += max(((low - high) / (2 * self._half * LIMIT)).max(), 0.0) + 1e-3
