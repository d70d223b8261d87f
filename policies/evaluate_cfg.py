"""Options of `dexgrasp evaluate`, and the task that they describe."""

import math
from dataclasses import dataclass, field, replace
from typing import Literal

from policies import trained
from policies.attempts import ATTEMPTS
from policies.synergy import POLICIES, check_policy
from policies.trial_store import TrialPlan
from sim.disturbances import DISTURBANCES
from sim.engines import EngineName, WarpCfg
from sim.hands import HandSpec
from sim.objects import ObjectLibrary
from sim.scene import PhysicsCfg
from sim.task import GraspTask
from sim.task_cfg import TaskCfg


@dataclass(frozen=True)
class EvaluateCfg:
    """Measure the success rate of a policy; the same command with the same `out` resumes an interrupted run."""

    policy: str = "synergy"
    """synergy (the scripted grasp without corrections), zero, random, or a trained policy: a run, a checkpoint, a
    bundle, or HAND/STAGE for a shipped one. The options of hand, task and view are then those of its training."""
    objects: str = "shipped"
    """Object library: shipped; generated:N (training objects), generated:N:validation, generated:N:test; random_urdfs
    (PyBullet's 1,000, downloaded once); a library folder; or a folder of OBJ/STL/PLY/GLB meshes."""
    hand: str = "allegro"
    """Hand by name (a folder of assets/hands) or path."""
    side: Literal["right", "left"] = "right"
    """Right or left hand; left hands are mirrored right ones."""
    mount: str = "floating"
    """Mount of the hand: floating (servos of the palm) or ur5e (arm)."""
    perception: Literal["model", "rendered"] = "model"
    """model: the camera of training, visible surface samples. rendered: depth images with the errors of a D435,
    processed by the perception pipeline of the robot."""
    trials: int = 200
    """Trials per disturbance; trial i takes object i modulo the number of objects."""
    disturbance: Literal["none", "shift3", "shift5", "force", "heavy", "slippery", "all"] = "none"
    """Disturbance of the trials; all = each of them, on identical trials."""
    attempts: int = ATTEMPTS
    """Maximum number of grasps per trial: a student that detects an empty hand tries again. 1: no regrasp."""
    seed: int = 0
    """Seed of all random numbers; a trial depends on the seed and its number only."""
    out: str = ""
    """Run directory; empty = a new one under runs/."""
    videos: int = 0
    """Maximum number of videos of successes, and of failures."""
    num_envs: int = 64
    """Number of trials that are simulated in parallel."""
    num_threads: int = 0
    """Threads of the physics, 0 = all cores; with ray: threads per worker, 0 = one."""
    ray: str = ""
    """Run the trials on many processes and machines with Ray: auto = the cluster in RAY_ADDRESS, else this machine's
    cores; local = this machine's cores; or host:port of a cluster. Trials are then stored as Parquet in RUN/trials."""
    engine: EngineName = "cpu"
    """cpu: MuJoCo. warp: MuJoCo Warp on a GPU, or slowly on the CPU without one; needs the extra `gpu`."""
    warp: WarpCfg = field(default_factory=WarpCfg)
    """Buffers of engine=warp."""
    task: TaskCfg = field(default_factory=TaskCfg)
    """Phases, control rate, success criterion, reset noise."""
    physics: PhysicsCfg = field(default_factory=PhysicsCfg)
    """Physics settings; report success rates measured with reference."""

    def __post_init__(self) -> None:
        for name, least in (("trials", 1), ("attempts", 1), ("num_envs", 1), ("videos", 0), ("num_threads", 0)):
            if getattr(self, name) < least:
                raise ValueError(f"{name} must be at least {least}, got {getattr(self, name)}")
        if not 0 <= self.seed < 2**63:
            raise ValueError(f"seed must lie in 0..2^63 - 1, got {self.seed}")
        if self.ray and self.engine != "cpu":
            raise ValueError("ray distributes trials over CPU cores: with engine=warp leave ray out")
        check_policy(self.policy)

    def disturbances(self) -> list[str]:
        """Return the names of the disturbances to run, in order."""
        return list(DISTURBANCES) if self.disturbance == "all" else [self.disturbance]

    def rows(self) -> int:
        """Return the number of trials per block: at most num_envs, equal for all blocks."""
        return math.ceil(self.trials / math.ceil(self.trials / self.num_envs))

    def plan(self, library: ObjectLibrary) -> TrialPlan:
        """Return the trials to run, in blocks."""
        return TrialPlan(disturbances=self.disturbances(), trials=self.trials, rows=self.rows(), objects=library.names)


def apply_policy_config(cfg: EvaluateCfg) -> EvaluateCfg:
    """Return `cfg` with the hand, task and camera options that its policy prescribes.

    Raises ValueError where `cfg` sets one of them to another value.
    """
    return cfg if cfg.policy in POLICIES else trained.adopt(cfg, cfg.policy)


def make_task(cfg: EvaluateCfg, hand: HandSpec, library: ObjectLibrary, disturbance: str, rows: int) -> GraspTask:
    """Return the task of one disturbance with `rows` environments."""
    view = replace(cfg.task.view, camera="rendered") if cfg.perception == "rendered" else cfg.task.view
    return GraspTask(
        replace(cfg.task, view=view),
        hand,
        library,
        cfg.physics,
        num_envs=rows,
        num_threads=cfg.num_threads,
        seed=cfg.seed,
        mount=cfg.mount,
        disturbance=disturbance,
        auto_reset=False,
        in_order=True,
        engine=cfg.engine,
        warp=cfg.warp,
    )
