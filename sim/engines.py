"""Makes the physics engine of a task: MuJoCo on the CPU, or MuJoCo Warp on a GPU."""

import os

from sim.cpu import CpuEngine
from sim.engine import Engine
from sim.engine_cfg import EngineName, WarpCfg
from sim.scene import ModelPool


def make_engine(
    name: EngineName, pool: ModelPool, num_envs: int, num_threads: int = 0, warp: WarpCfg | None = None
) -> Engine:
    """Return the engine `name`; `num_threads` is read by cpu alone (0 = all cores), `warp` by warp alone."""
    if name == "cpu":
        return CpuEngine(pool, num_envs, num_threads)
    if name != "warp":
        raise ValueError(f"engine must be cpu or warp, got '{name}'")
    from sim.warp import WarpEngine  # first: it says which extra is missing
    from sim.warp_scene import warp_device
    from sim.warp_warmup import measured

    device = warp_device(int(os.environ.get("LOCAL_RANK", "0")))
    return WarpEngine(pool, num_envs, measured(warp or WarpCfg(), pool, num_envs, device), device)
