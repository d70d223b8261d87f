"""Options of the physics engines: engine name, and buffer sizes of MuJoCo Warp."""

from dataclasses import dataclass
from typing import Literal

EngineName = Literal["cpu", "warp"]

BUFFERS = ("warp.nconmax", "warp.njmax", "warp.max_contacts_per_sensor")
"""Options that change no outcome: a buffer that is too small is an error."""


@dataclass(frozen=True)
class WarpCfg:
    """Configure the buffers of MuJoCo Warp, which are allocated once."""

    nconmax: int = 0
    """Contacts, and pairs of geoms that may touch, per environment; all environments share the sum. 0: measured by a
    warm-up, with a margin."""
    njmax: int = 0
    """Constraint rows of any one environment. 0: measured by a warm-up, with a margin."""
    max_contacts_per_sensor: int = 256
    """Contacts that belong to one contact sensor."""

    def __post_init__(self) -> None:
        if min(self.nconmax, self.njmax) < 0 or self.max_contacts_per_sensor < 1:
            raise ValueError(
                f"warp.nconmax and njmax must not be negative, warp.max_contacts_per_sensor be at least 1, got {self}"
            )
