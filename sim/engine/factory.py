"""Construction of a task's physics engine: MuJoCo on the CPU, or MuJoCo Warp on a GPU."""

import os

from dexgrasp.sim.engine.base import Engine
from dexgrasp.sim.engine.config import EngineName, WarpCfg
from dexgrasp.sim.engine.cpu import CpuEngine
from dexgrasp.sim.scene import ModelPool


def make_engine(
    name: EngineName, pool: ModelPool, num_envs: int, num_threads: int = 0, warp: WarpCfg | None = None
) -> Engine:
    """Return the engine `name`; `num_threads` is read by cpu alone (0 = all cores), `warp` by warp alone."""
    if name == "cpu":
        return CpuEngine(pool, num_envs, num_threads)
    if name != "warp":
        raise ValueError(f"engine must be cpu or warp, got '{name}'")
    from dexgrasp.sim.engine.warp import (
        WarpEngine,  # first: it says which extra is missing
        warp_device,
    )
    from dexgrasp.sim.engine.warp_buffer_sizing import with_measured_buffers

    device = warp_device(int(os.environ.get("LOCAL_RANK", "0")))
    engine = WarpEngine(pool, num_envs, with_measured_buffers(warp or WarpCfg(), pool, num_envs, device), device)
    engine.load_objects(pool.library.names)
    return engine
