"""Layout of the student's observation vector: names, sizes and units of its terms in order.

Simulation and robot assemble the vector with this code.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

HISTORY_FRAMES = 10
"""Number of proprioception frames in the student's history, one per control step (RobustDexGrasp)."""
HISTORY_TERMS = ("joint_pos", "tracking_error", "palm_lag", "palm_lag_rotation")
"""Terms of a frame: joint positions and the lag of the motors behind their targets, which indicates contact."""


@dataclass(frozen=True)
class Term:
    """One block of an observation vector; `scale` brings its physical unit to order one."""

    name: str
    size: int
    unit: str
    scale: float = 1.0


@dataclass(frozen=True)
class Layout:
    """An observation vector: its terms in order."""

    terms: tuple[Term, ...]

    @property
    def size(self) -> int:
        """Length of the vector."""
        return sum(term.size for term in self.terms)

    def slices(self) -> dict[str, slice]:
        """Return the slice of each term in the vector."""
        found, start = {}, 0
        for term in self.terms:
            found[term.name] = slice(start, start + term.size)
            start += term.size
        return found

    def assemble(self, values: Mapping[str, Tensor]) -> Tensor:
        """Return the vector (env, size), float32, from physical values (env, ...) by name.

        Each value has the size of its term.
        """
        missing = [term.name for term in self.terms if term.name not in values]
        if missing:
            raise KeyError(f"observation terms {missing} have no value; given: {sorted(values)}")
        return torch.cat([_column(term, values[term.name]) for term in self.terms], dim=1)


def _column(term: Term, value: Tensor) -> Tensor:
    flat = value.flatten(1) if value.dim() > 1 else value[:, None]
    if flat.shape[1] != term.size:
        raise ValueError(
            f"observation term '{term.name}': expected {term.size} values [{term.unit}], got {tuple(value.shape)}"
        )
    return flat.to(torch.float32) * term.scale


def student_layout(joints: int, keypoints: int, actions: int, live: bool = False) -> Layout:
    """Return the student's layout: proprioception and vectors to visible points, as known on a robot.

    `actions`: 6 of the palm and one per motor. `live`: frames after the first one update the points; adds the terms
    visible_fraction and view_fresh.
    """
    motors = actions - 6
    camera = (Term("visible_fraction", 1, "1"), Term("view_fresh", 1, "1")) if live else ()
    return Layout(
        (
            Term("joint_pos", joints, "rad"),
            Term(name="tracking_error", size=motors, unit="rad", scale=5.0),
            Term(name="palm_displacement", size=3, unit="m", scale=10.0),
            Term("palm_rotation", 3, "rad"),
            Term(name="palm_lag", size=3, unit="m", scale=10.0),
            Term(name="palm_lag_rotation", size=3, unit="rad", scale=5.0),
            Term(name="visible_vectors", size=3 * keypoints, unit="m", scale=10.0),
            Term(name="heights", size=keypoints, unit="m", scale=10.0),
            Term("up", 3, "1"),
            Term(name="remaining_depth", size=1, unit="m", scale=10.0),
            Term("phase", 3, "1"),
            Term("last_action", actions, "1"),
            *camera,
            Term("history", HISTORY_FRAMES * (joints + motors + 6), "1"),
        )
    )


class History:
    """History of the last frames of HISTORY_TERMS, scaled as in the layout, oldest first.

    A new episode starts with its first frame repeated.
    """

    def __init__(self, num_envs: int, layout: Layout, device: torch.device | str = "cpu") -> None:
        self._terms = tuple(term for term in layout.terms if term.name in HISTORY_TERMS)
        width = sum(term.size for term in self._terms)
        self.frames = torch.zeros(num_envs, HISTORY_FRAMES, width, device=device)
        """(env, frame, value)."""

    def reset(self, rows: Tensor, values: Mapping[str, Tensor]) -> None:
        """Fill the histories of `rows` with their first frame; `values` are of all environments."""
        self.frames[rows] = Layout(self._terms).assemble(values)[rows, None]

    def push(self, values: Mapping[str, Tensor], restart: Tensor) -> None:
        """Append the frame of a control step; in the mask `restart` (env, 1) it replaces the whole history."""
        frame = Layout(self._terms).assemble(values)[:, None]
        moved = torch.cat([self.frames[:, 1:], frame], dim=1)
        self.frames = torch.where(restart[..., None], frame, moved)
