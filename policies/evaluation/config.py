"""Options of `dexgrasp evaluate`, and the task that they describe."""

import math
from dataclasses import dataclass, field, replace
from typing import Annotated, Literal

from dexgrasp.policies.agents import registry
from dexgrasp.policies.agents.registry import POLICIES, check_policy
from dexgrasp.policies.evaluation.episodes import ATTEMPTS
from dexgrasp.policies.evaluation.trial_store import TrialPlan
from dexgrasp.sim.engine.config import EngineName, WarpCfg
from dexgrasp.sim.objects import ObjectLibrary
from dexgrasp.sim.robots.hand import HandSpec
from dexgrasp.sim.scene import PhysicsCfg
from dexgrasp.sim.task.actions import wrist_on
from dexgrasp.sim.task.disturbances import DISTURBANCES
from dexgrasp.sim.task.grasp_task import GraspTask, TaskCfg, task_class
from dexgrasp.utils.bounds import Bounds, NumEnvs, NumTrials, Seed, Threads, bounded


@dataclass(frozen=True)
@bounded
class EvaluateCfg:
    """Measure the success rate of a policy; the command repeated with its `out` resumes the run."""

    policy: str = "synergy"
    """synergy (the scripted grasp alone), zero, random, or a trained one: a run, a checkpoint, a bundle, HAND/STAGE.
    Options of hand, task and camera that belong to a trained policy are read from it."""
    objects: str = "shipped"
    """Object library: shipped; generated:N (training objects, :test or :validation behind it for others);
    random_urdfs (PyBullet's 1,000, loaded once); a library folder; or a folder of OBJ/STL/PLY/GLB meshes."""
    hand: str = "allegro"
    """Hand by name (a folder of assets/hands) or path."""
    side: Literal["right", "left"] = "right"
    """Side of the hand; left hands are mirrored right ones."""
    mount: str = "floating"
    """Mount: floating, or an arm: ur5e, a folder, an arm.yaml, an MJCF or a URDF."""
    trials: NumTrials = 200
    """Trials per disturbance; trial i takes object i modulo the number of objects."""
    disturbance: Literal["none", "shift3", "shift5", "force", "heavy", "slippery", "all"] = "none"
    """Disturbance of the trials; all = each in turn, with identical trials."""
    attempts: Annotated[int, Bounds(1, 100)] = ATTEMPTS
    """Largest number of grasps in a trial: an empty hand tries again. 1: no regrasp."""
    seed: Seed = 0
    """Seed of all random numbers; seed and number determine a trial."""
    out: str = ""
    """Run directory; empty = a new one under runs/."""
    videos: Annotated[int, Bounds(0, 10_000)] = 0
    """Largest number of videos of successes, and of failures."""
    clear_table: bool = False
    """true: with scene=clutter a trial is a table, whose objects are taken one after another with up to two grasps for
    each; success is an empty table. false: one wanted object."""
    num_envs: NumEnvs = 64
    """Number of parallel trials."""
    num_threads: Threads = 0
    """Threads of the physics; 0 = all cores; with cluster, of each worker, 0 = one."""
    cluster: str = ""
    """Run the trials on many processes and machines with Ray: auto = RAY_ADDRESS, else this machine; local = this
    machine; or host:port of a cluster. Trials are then stored as Parquet in RUN/trials."""
    engine: EngineName = "cpu"
    """cpu: MuJoCo. warp: MuJoCo Warp on a GPU; needs the extra `gpu`."""
    warp: WarpCfg = field(default_factory=WarpCfg)
    """Buffer sizes of engine=warp."""
    task: TaskCfg = field(default_factory=TaskCfg)
    """Phases, control rate, success criterion, reset noise."""
    physics: PhysicsCfg = field(default_factory=PhysicsCfg)
    """Physics settings; numbers to report are measured on reference."""
    plugins: tuple[str, ...] = ()
    """Modules or .py files imported first, comma-separated: they may register rewards and tasks."""

    def __post_init__(self) -> None:
        if self.cluster and self.engine != "cpu":
            raise ValueError("cluster spreads trials over processors: with engine=warp leave cluster out")
        if self.clear_table and not self.task.scene.is_clutter:
            raise ValueError("clear_table=true needs several objects: give scene=clutter")
        if self.clear_table and (self.videos or self.disturbance not in ("none", "heavy", "slippery")):
            raise ValueError("clear_table=true takes no videos, shifts or forces: leave videos and disturbance out")
        if self.clear_table and self.task.randomization.size_scales != (1.0,):
            raise ValueError("clear_table=true takes objects in their size: set task.randomization.size_scales=[1.0]")
        if self.cluster and self.task.scene.is_clutter:
            raise ValueError("cluster runs single objects: leave cluster out, or take scene=single")

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

    An untrained policy keeps the wrist of the arm clear of the table; a trained one brings the limits of its training.
    Raises ValueError where `cfg` sets one of them to another value, or there is no such policy.
    """
    check_policy(cfg.policy)
    if cfg.policy not in POLICIES:
        return registry.apply_policy_config(cfg, cfg.policy)
    wrist = wrist_on(cfg.mount, HandSpec.load(cfg.hand, cfg.side), cfg.task.wrist)
    return replace(cfg, task=replace(cfg.task, wrist=wrist))


def make_task(cfg: EvaluateCfg, hand: HandSpec, library: ObjectLibrary, disturbance: str, rows: int) -> GraspTask:
    """Return the task of one disturbance with `rows` environments."""
    return task_class(cfg.task)(
        cfg.task,
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
