"""Sizes of Warp's contact buffers, measured by pressing hands on objects."""

import logging
from dataclasses import replace

import numpy as np
import torch

from dexgrasp.perception.transforms import quat_rotate
from dexgrasp.sim.engine.base import InitialState, PhysicsVariation
from dexgrasp.sim.engine.config import WarpCfg
from dexgrasp.sim.engine.warp import BufferUsage, WarpEngine
from dexgrasp.sim.objects import ObjectModel
from dexgrasp.sim.scene import ModelPool

log = logging.getLogger(__name__)

WORLDS, STEPS, PERIOD_S = 16, 12, 0.05
WARM_UP_BUFFERS = WarpCfg(nconmax=256, njmax=960)
"""Buffer sizes of the warm-up."""
FEW_ENVS, FEW_NCONMAX = 256, 128
"""Below FEW_ENVS environments nconmax is at least FEW_NCONMAX: contacts of one average out over too few others."""
ABOVE_M, DOWN_M = 0.06, 0.05
"""Start height of the palm above an object, and its way down."""
DOWN = (0.5**0.5, 0.0, 0.5**0.5, 0.0)
"""Palm frame whose normal, +x, points down."""


def with_measured_buffers(cfg: WarpCfg, pool: ModelPool, num_envs: int, device: str) -> WarpCfg:
    """Return `cfg` with every size of 0 replaced by the measured need of a warm-up, with a margin."""
    if cfg.nconmax and cfg.njmax:
        return cfg
    peaks = measure_contact_load(pool, device, cfg.max_contacts_per_sensor)
    nconmax, njmax = peaks.sizes(WORLDS)
    nconmax = max(nconmax, FEW_NCONMAX) if num_envs < FEW_ENVS else nconmax
    sized = replace(cfg, nconmax=cfg.nconmax or nconmax, njmax=cfg.njmax or njmax)
    log.info(
        "engine=warp: a warm-up of %d environments needed %d contacts, %d pairs and %d rows; nconmax=%d njmax=%d",
        *(WORLDS, peaks.contacts, peaks.pairs, peaks.rows, sized.nconmax, sized.njmax),
    )
    return sized


def measure_contact_load(pool: ModelPool, device: str, max_contacts_per_sensor: int) -> BufferUsage:
    """Measure the buffers needed while closing hands press on the objects with the most pieces."""
    engine = WarpEngine(pool, WORLDS, replace(WARM_UP_BUFFERS, max_contacts_per_sensor=max_contacts_per_sensor), device)
    start = _start(pool)
    engine.reset(torch.arange(WORLDS, device=engine.device), start)
    state, hand = engine.state, pool.hand
    closing = hand.power.closing.to(engine.device)
    for step in range(STEPS):
        way = torch.tensor([0.0, 0.0, DOWN_M * min(1.0, 2 * (step + 1) / STEPS)])
        palm = start.palm_pos_w - way.double()
        fingers = hand.motors.positions(state.joint_pos) + 0.3 * closing
        engine.step(fingers, palm.to(engine.device), start.palm_quat_w.to(engine.device), PERIOD_S)
    return engine.buffers.peak_usage()


def _start(pool: ModelPool) -> InitialState:
    library, hand = pool.library, pool.hand
    names = sorted(library.names, key=lambda name: -library.entry(name).pieces)
    names = [names[i % len(names)] for i in range(WORLDS)]
    library.prepare(names)
    objects = [library[name] for name in names]
    heights = torch.tensor([float(obj.rest_height[0]) for obj in objects]).double()
    zero = torch.zeros_like(heights)
    tops = torch.tensor([_top_m(obj) for obj in objects]).double()
    return InitialState(
        objects=names,
        object_pos_w=torch.stack([zero, zero, heights], dim=1),
        object_quat_w=torch.tensor(np.stack([obj.rest_quat[0] for obj in objects])),
        palm_pos_w=torch.stack([zero, zero, tops + ABOVE_M], dim=1),
        palm_quat_w=torch.tensor(DOWN).double().expand(WORLDS, 4).clone(),
        joint_pos=hand.power.open_pose.double().expand(WORLDS, -1).clone(),
        variation=PhysicsVariation.none(WORLDS, len(hand.motors.names)),
    )


def _top_m(obj: ObjectModel) -> float:
    """Return the height of the resting object over the table [m]."""
    turned = quat_rotate(torch.from_numpy(obj.rest_quat[0]).double(), torch.from_numpy(obj.points).double())
    return float(turned[:, 2].max() + obj.rest_height[0])
