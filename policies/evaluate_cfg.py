"""Options of `dexgrasp evaluate`, and the task that they describe."""

import math
from dataclasses import dataclass, field, replace
from typing import Literal

from policies import trained
from policies.attempts import ATTEMPTS
from policies.synergy import POLICIES, check_policy
from policies.trial_store import TrialPlan
from sim.disturbances import DISTURBANCES
from sim.engine_cfg import EngineName, WarpCfg
from sim.hands import HandSpec
from sim.objects import ObjectLibrary
from sim.scene import PhysicsCfg
from sim.task import GraspTask, task_class
from sim.task_cfg import TaskCfg


@dataclass(frozen=True)
class EvaluateCfg:
    """Measure the success rate of a policy; the same command with the same `out` goes on where it stopped."""

    policy: str = "synergy"
    """synergy (the scripted prior alone), zero, random, or a trained one: a run, a checkpoint, a bundle, HAND/STAGE.
    What of hand, task and view belongs to a trained policy is taken from it."""
    objects: str = "shipped"
    """Object library: shipped; generated:N (training objects, :test or :validation behind it for others);
    random_urdfs (PyBullet's 1,000, loaded once); a library folder; or a folder of OBJ/STL/PLY/GLB meshes."""
    hand: str = "allegro"
    """Hand by name (a folder of assets/hands) or path."""
    side: Literal["right", "left"] = "right"
    """Which hand; left ones are mirrored."""
    mount: str = "floating"
    """What carries the hand: floating or ur5e."""
    perception: Literal["model", "rendered"] = "model"
    """model: the camera of training, surface samples. rendered: depth images drawn by MuJoCo, with a D435's flaws,
    through the robot's own pipeline."""
    trials: int = 200
    """Trials per disturbance; trial i takes object i modulo the number of objects."""
    disturbance: Literal["none", "shift3", "shift5", "force", "heavy", "slippery", "all"] = "none"
    """What goes wrong on purpose; all = each in turn, with the same trials."""
    attempts: int = ATTEMPTS
    """Grasps in a trial at most: a student that feels its hand empty goes back and tries again. 1: never."""
    seed: int = 0
    """Seed of all chance; a trial is decided by the seed and its number."""
    out: str = ""
    """Run directory; empty = a new one under runs/."""
    videos: int = 0
    """At most so many videos of successes, and of failures."""
    num_envs: int = 64
    """Trials that run side by side."""
    num_threads: int = 0
    """Threads of the physics; 0 = all cores; with ray, of each worker, 0 = one."""
    ray: str = ""
    """Run the trials on many processes and machines with Ray: auto = the cluster in RAY_ADDRESS, else this machine's
    cores; local = this machine's cores; or host:port of a cluster. Trials are then stored as Parquet in RUN/trials."""
    engine: EngineName = "cpu"
    """cpu: MuJoCo. warp: MuJoCo Warp on a GPU, slowly on the CPU where there is none; needs the extra `gpu`."""
    warp: WarpCfg = field(default_factory=WarpCfg)
    """Buffers of engine=warp."""
    task: TaskCfg = field(default_factory=TaskCfg)
    """Phases, control rate, success criterion, reset noise."""
    physics: PhysicsCfg = field(default_factory=PhysicsCfg)
    """Physics settings; numbers to report are measured on reference."""
    plugins: tuple[str, ...] = ()
    """Modules or .py files imported first, comma-separated: they may register rewards and tasks."""

    def __post_init__(self) -> None:
        for name, least in (("trials", 1), ("attempts", 1), ("num_envs", 1), ("videos", 0), ("num_threads", 0)):
            if getattr(self, name) < least:
                raise ValueError(f"{name} must be at least {least}, got {getattr(self, name)}")
        if not 0 <= self.seed < 2**63:
            raise ValueError(f"seed must lie in 0..2^63 - 1, got {self.seed}")
        if self.ray and self.engine != "cpu":
            raise ValueError("ray spreads trials over processors: with engine=warp leave ray out")
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
    return task_class(cfg.task)(
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
