"""Options of `dexgrasp train`."""

from dataclasses import dataclass, field
from typing import Annotated, Literal

from dexgrasp.policies.algorithms.distillation import DistillationCfg
from dexgrasp.policies.networks.actor_critic import Encoder
from dexgrasp.sim.engine.config import EngineName, WarpCfg
from dexgrasp.sim.scene import PhysicsCfg
from dexgrasp.sim.task.grasp_task import TaskCfg
from dexgrasp.utils.bounds import Bounds, NumEnvs, NumTrials, Seed, Share, Threads, bounded


@dataclass(frozen=True)
@bounded
class TrainCfg:
    """Train a policy; the command repeated with its `out` resumes where it stopped."""

    stage: Literal["teacher", "student"] = "teacher"
    """teacher: observes contacts, forces, the whole object and its motion. student: proprioception and one camera."""
    hand: str = "allegro"
    """Hand: name of a folder of assets/hands, or a path."""
    side: Literal["right", "left"] = "right"
    """Side of the hand; a left hand is mirrored from the right one."""
    objects: str = "generated:1440"
    """Training objects: generated:N (made on first use), a library or a mesh folder."""
    validation_objects: str = "generated:216:validation"
    """Objects on which the best checkpoint is chosen; no training or test objects."""
    disturbance: Literal["none", "mixed"] = "mixed"
    """mixed: objects shifted, pushed, heavy or slippery, more as success grows; none."""
    disturbance_step: Share = 0.02
    """Growth of the disturbances' strength with an iteration of high success; their full strength is 1."""
    iterations: Annotated[int, Bounds(1, 10_000_000)] = 400
    """Number of rollouts of one episode in every environment, each with an update."""
    time_limit_min: Annotated[float, Bounds(0, 1e6)] = 0.0
    """Minutes after which this start ends; 0: no limit."""
    num_envs: NumEnvs = 256
    """Environments of each process."""
    num_threads: Threads = 0
    """Threads of the physics; 0: all cores."""
    validation_interval: Annotated[int, Bounds(1, 10_000_000)] = 25
    """Iterations between validations."""
    validation_trials: NumTrials = 216
    """Trials of each validation."""
    early_stop_patience: Annotated[int, Bounds(0, 1_000_000)] = 0
    """Validations without a better success rate after which training ends; 0: never."""
    engine: EngineName = "cpu"
    """cpu: MuJoCo. warp: MuJoCo Warp on a GPU; needs the extra `gpu`."""
    warp: WarpCfg = field(default_factory=WarpCfg)
    """Buffer sizes of engine=warp."""
    seed: Seed = 0
    """Seed of all random numbers."""
    out: str = ""
    """Run directory; empty: a new one under runs/."""
    resume: Literal["auto", "never"] = "auto"
    """auto: resume from RUN/last.zip where there is one. never: move the old run aside and start anew."""
    init_checkpoint: str = ""
    """Policy of the same stage to start from: a shipped name, a run or a checkpoint."""
    learning_rate: Annotated[float, Bounds(1e-8, 1)] = 3e-4
    """Learning rate at the start; it follows `target_kl` afterwards."""
    target_kl: Annotated[float, Bounds(1e-8, 10)] = 0.02
    """KL divergence of a minibatch step that the learning rate aims at; it falls to a third until the end."""
    num_epochs: Annotated[int, Bounds(1, 1000)] = 5
    """Passes over each rollout."""
    num_minibatches: Annotated[int, Bounds(1, 100_000)] = 4
    """Minibatches of each pass over a rollout."""
    gamma: Annotated[float, Bounds(0.001, 0.999999)] = 0.99
    """Discount per control step."""
    init_std: Annotated[float, Bounds(0.0001, 10)] = 0.3
    """Standard deviation of the exploration at the start, in units of the action."""
    final_std: Annotated[float, Bounds(0, 10)] = 0.0
    """Standard deviation to which exploration is limited at the end of `iterations`; 0: no limit."""
    hidden: Annotated[tuple[int, ...], Bounds(1, 8192, items=(0, 16))] = (256, 128)
    """Widths of the hidden layers of actor and critic; with init_from_teacher=true those of the teacher."""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """bf16: networks compute in bfloat16 up to their last layers. auto: bf16 where the processor supports it."""
    teacher: str = ""
    """Teacher of a student: a run, its best.zip, or a shipped one (HAND/teacher)."""
    init_from_teacher: bool = True
    """Initialise the student from the teacher where observation terms match."""
    history_encoder: Encoder = "conv"
    """Network that reads the student's history: lstm (the published method), conv or mlp."""
    distillation: DistillationCfg = field(default_factory=DistillationCfg)
    """Schedule of the student from imitation to reinforcement."""
    reproduce_release: bool = False
    """true: deviate from the paper as the published release does: exploration stays at `init_std`, rewards have no
    floor, the palm's position has no noise."""
    task: TaskCfg = field(default_factory=TaskCfg)
    """Task of the training; its hold is shorter than that of an evaluation."""
    physics: PhysicsCfg = field(default_factory=PhysicsCfg)
    """Physics settings."""
    tracker: Literal["auto", "tensorboard", "wandb", "none"] = "auto"
    """Writer of the curves beside RUN/progress.csv. auto: TensorBoard where it is installed; each needs the extra of
    its name."""
    plugins: tuple[str, ...] = ()
    """Modules or .py files imported first, comma-separated: they may register rewards and tasks."""
