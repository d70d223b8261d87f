"""Options of the physics engines: engine name, and buffer sizes and solver limits of MuJoCo Warp."""

from dataclasses import dataclass
from typing import Annotated, Literal

from dexgrasp.utils.bounds import Bounds, bounded

EngineName = Literal["cpu", "warp"]

BUFFERS = ("warp.nconmax", "warp.njmax", "warp.max_contacts_per_sensor", "warp.cuda_graphs")
"""Options that change no outcome: a buffer that is too small is an error, a graph repeats what was done without it."""


@dataclass(frozen=True)
@bounded
class WarpCfg:
    """Configure buffers, solver limits and CUDA graphs of MuJoCo Warp."""

    nconmax: Annotated[int, Bounds(0, 100_000)] = 0
    """Contacts, and pairs of geoms that may touch, per environment; all environments share the sum. 0: measured by a
    warm-up, with a margin."""
    njmax: Annotated[int, Bounds(0, 100_000)] = 0
    """Constraint rows of any one environment. 0: measured by a warm-up, with a margin."""
    max_contacts_per_sensor: Annotated[int, Bounds(1, 100_000)] = 256
    """Contacts that belong to one contact sensor."""
    iterations: Annotated[int, Bounds(0, 1000)] = 0
    """Iterations of the constraint solver at most: the slowest environment decides how long all take. 0: MuJoCo's own,
    100."""
    ls_iterations: Annotated[int, Bounds(0, 1000)] = 0
    """Iterations of its line search at most. 0: MuJoCo's own, 50."""
    ccd_iterations: Annotated[int, Bounds(0, 1000)] = 0
    """Iterations of the collision of two convex pieces at most. 0: MuJoCo's own, 35."""
    cuda_graphs: bool = False
    """Whether a GPU repeats recorded control steps and gradient steps, by one launch for many operations."""
