"""Scene of the Warp engine, and the features that Warp lacks.

The table, by MuJoCo Warp 4.0.0:
    orientation servo    missing; sim/engine/warp_servo.py makes it of three servos
    solver tolerance     not below 1e-6: numbers are float32
    arms                 not here: their inverse kinematics runs on the CPU
"""

import logging
from pathlib import Path

import mujoco
import mujoco_warp as mjw
import numpy as np
import torch
import warp as wp

from dexgrasp.sim.engine.config import WarpCfg
from dexgrasp.sim.engine.warp_objects import PER_WORLD
from dexgrasp.sim.scene import OBJECT, TABLE, ModelPool, build_model

log = logging.getLogger(__name__)

TOLERANCE = 1e-6
"""Least solver tolerance of Warp."""


def warp_device(index: int) -> str:
    """Return the GPU `index` for Warp and torch, "cpu" without one. Raise ValueError where only Warp finds it."""
    if not wp.is_cuda_available():
        log.warning("engine=warp: no GPU here, physics runs slowly on Warp's CPU backend")
        return "cpu"
    if not torch.cuda.is_available():
        raise ValueError(
            f"engine=warp: Warp finds a GPU, this torch ({torch.__version__}) does not; install a build of torch "
            "for CUDA, or hide the GPU with CUDA_VISIBLE_DEVICES="
        )
    if not any(Path(wp.config.kernel_cache_dir or "").rglob("*.cubin")):
        log.warning("engine=warp: compiling kernels for this GPU, once; that takes minutes")
    return f"cuda:{index % torch.cuda.device_count()}"


def compile_scene(pool: ModelPool) -> mujoco.MjModel:
    """Compile the scene with all object slots collidable; each world enables its own."""
    if pool.mount != "floating":
        raise ValueError(
            f"engine=warp knows mount=floating, got '{pool.mount}': the inverse kinematics of an arm runs on the CPU; "
            "use engine=cpu"
        )
    obj = pool.library[pool.library.names[0]]
    model = build_model(pool.hand, obj, pool.physics, pool.mount, pool.slots, turn="axes")
    slots = [model.geom(f"object_{i}").id for i in range(pool.slots)]
    model.geom_contype[slots], model.geom_conaffinity[slots] = OBJECT, TABLE
    return model


def put_model(compiled: mujoco.MjModel, num_envs: int, cfg: WarpCfg) -> mjw.Model:
    """Put the model on the device with its per-world fields. Raise ValueError where Warp lacks a feature."""
    worlds = max(num_envs, 2)  # Warp looks for absent pieces only where it sees several rows of them
    try:
        model = mjw.put_model(compiled, batch_sizes=dict.fromkeys(PER_WORLD, worlds))
    except NotImplementedError as error:
        raise ValueError(
            f"engine=warp cannot simulate this scene, MuJoCo Warp says: {error}; use engine=cpu"
        ) from error
    if compiled.opt.tolerance < TOLERANCE:
        log.info("engine=warp: solver tolerance %g instead of %g", TOLERANCE, compiled.opt.tolerance)
    model.opt.contact_sensor_maxmatch = cfg.max_contacts_per_sensor
    model.opt.gravity = wp.array(np.tile(compiled.opt.gravity, (worlds, 1)), dtype=wp.vec3)
    return model
