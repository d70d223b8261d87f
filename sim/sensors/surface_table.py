"""Surfaces and resting poses of a library's objects as tensors on one device, each sent there once."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from dexgrasp.sim.objects import SURFACE_POINTS, ObjectLibrary

MAX_OBJECTS = 8192
"""Most objects of a table, which is emptied when more come; 25 kB each."""


class SurfaceTable:
    """Holds the objects that were asked for; first dimension of all tensors: object."""

    def __init__(self, library: ObjectLibrary, device: torch.device | str = "cpu") -> None:
        self._library, self._device = library, device
        self._numbers: dict[str, int] = {}
        self._rests = 1  # most resting poses of an object
        self._clear()

    def _clear(self) -> None:
        def empty(*size: int, dtype: torch.dtype = torch.float64) -> Tensor:
            return torch.zeros(0, *size, dtype=dtype, device=self._device)

        self._numbers.clear()
        self.points, self.normals = (empty(SURFACE_POINTS, 3, dtype=torch.float32) for _ in range(2))
        """(object, point, 3) surface samples [m] and their outward normals, object frame."""
        self.rest_edge = empty(self._rests)
        """(object, rest) sum of the probabilities of a resting pose and all before it; infinite where it is none."""
        self.rest_height, self.rest_quat = empty(self._rests), empty(self._rests, 4)
        """(object, rest) height of the origin at rest [m]; (object, rest, 4) orientation at rest."""

    def find(self, names: Sequence[str]) -> Tensor:
        """Return the numbers (row,) of the objects `names` in the table; those that are new are read."""
        new = [name for name in dict.fromkeys(names) if name not in self._numbers]
        if new and len(self._numbers) + len(new) > MAX_OBJECTS:
            self._clear()
            new = list(dict.fromkeys(names))
        if new:
            self._append(new)
        return torch.tensor([self._numbers[name] for name in names], dtype=torch.int64, device=self._device)

    def _append(self, names: Sequence[str]) -> None:
        objects = [self._library[name] for name in names]
        most = max(len(obj.rest_prob) for obj in objects)
        if most > self._rests:  # wider rows for all
            self._rests, names = most, [*self._numbers, *names]
            objects = [self._library[name] for name in names]
            self._clear()
        columns = {
            "points": np.stack([obj.points for obj in objects]),
            "normals": np.stack([obj.normals for obj in objects]),
            "rest_edge": np.full((len(names), self._rests), np.inf),
            "rest_height": np.zeros((len(names), self._rests)),
            "rest_quat": np.zeros((len(names), self._rests, 4)),
        }
        for i, obj in enumerate(objects):
            rests = len(obj.rest_prob)
            columns["rest_edge"][i, :rests] = np.cumsum(obj.rest_prob)
            columns["rest_height"][i, :rests], columns["rest_quat"][i, :rests] = obj.rest_height, obj.rest_quat
        for name, column in columns.items():
            setattr(self, name, torch.cat([getattr(self, name), torch.from_numpy(column).to(self._device)]))
        self._numbers |= {name: len(self._numbers) + i for i, name in enumerate(names)}

    def resting_pose(self, numbers: Tensor, chosen: Tensor) -> tuple[Tensor, Tensor]:
        """Return heights (row,) [m] and orientations (row, 4) of the objects `numbers` (row,) at rest.

        `chosen` (row,): number in [0, 1) that selects a pose by probability.
        """
        edge = self.rest_edge[numbers]
        last = edge.isfinite().sum(dim=1) - 1
        rest = torch.minimum((edge < chosen[:, None]).sum(dim=1), last)
        return self.rest_height[numbers, rest], self.rest_quat[numbers, rest]
