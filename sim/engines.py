"""Which engine a task runs on, and where: MuJoCo on the CPU, or MuJoCo Warp on a GPU."""

import logging
import os
from dataclasses import dataclass
from typing import Literal

from sim.cpu import CpuEngine
from sim.engine import Engine
from sim.scene import ModelPool

EngineName = Literal["cpu", "warp"]

BUFFERS = ("warp.nconmax", "warp.njmax", "warp.matches")
"""Options that change no outcome: what does not fit is an error."""

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class WarpCfg:
    """Sizes of Warp's buffers, which are allocated once; 0: what a warm-up needs, with a margin."""

    nconmax: int = 0
    """Contacts, and pairs of geoms that may touch, per environment; all environments share the sum."""
    njmax: int = 0
    """Constraint rows of any one environment."""
    matches: int = 256
    """Contacts that belong to one contact sensor."""

    def __post_init__(self) -> None:
        if min(self.nconmax, self.njmax) < 0 or self.matches < 1:
            raise ValueError(f"warp.nconmax and njmax must not be negative, warp.matches be at least 1, got {self}")


def make_engine(
    name: EngineName, pool: ModelPool, num_envs: int, num_threads: int = 0, warp: WarpCfg | None = None
) -> Engine:
    """The engine of that name. `num_threads` is of the CPU engine (0 = all cores), `warp` of the other."""
    if name == "cpu":
        return CpuEngine(pool, num_envs, num_threads)
    if name != "warp":
        raise ValueError(f"engine must be cpu or warp, got '{name}'")
    from sim.warp import WarpEngine  # first: it says which extra is missing
    from sim.warp_scene import warp_device
    from sim.warp_warmup import measured

    device = warp_device(int(os.environ.get("LOCAL_RANK", "0")))
    return WarpEngine(pool, num_envs, measured(warp or WarpCfg(), pool, num_envs, device), device)
