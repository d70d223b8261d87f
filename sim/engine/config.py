"""Options of the physics engines: engine name, and buffer sizes of MuJoCo Warp."""

from dataclasses import dataclass
from typing import Annotated, Literal

from dexgrasp.utils.bounds import Bounds, bounded

EngineName = Literal["cpu", "warp"]

BUFFERS = ("warp.nconmax", "warp.njmax", "warp.max_contacts_per_sensor")
"""Options that change no outcome: a buffer that is too small is an error."""


@dataclass(frozen=True)
@bounded
class WarpCfg:
    """Configure the buffers of MuJoCo Warp, which are allocated once."""

    nconmax: Annotated[int, Bounds(0, 100_000)] = 0
    """Contacts, and pairs of geoms that may touch, per environment; all environments share the sum. 0: measured by a
    warm-up, with a margin."""
    njmax: Annotated[int, Bounds(0, 100_000)] = 0
    """Constraint rows of any one environment. 0: measured by a warm-up, with a margin."""
    max_contacts_per_sensor: Annotated[int, Bounds(1, 100_000)] = 256
    """Contacts that belong to one contact sensor."""
