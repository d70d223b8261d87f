"""Public functions of dexgrasp: tasks, environments, policies, evaluations.

Heavy modules are imported when a function is called.

    env = dexgrasp.make_gym_vec("allegro", num_envs=8, obs="dict", policy="allegro/student")
    policy = dexgrasp.load_policy("allegro/student", env)
    obs, info = env.reset(seed=0)
    successes = []
    while len(successes) < 16:
        obs, reward, terminated, truncated, info = env.step(policy.act(obs))
        if (ended := terminated | truncated).any():
            successes += info["final_info"]["is_success"][ended].tolist()

`options` of `make`, `make_gym`, `make_gym_vec`, `make_sb3` and `make_isaacgym`:

    physics         preset of configs/physics: reference, balanced (default of training), turbo
    task            preset of configs/task: grasp, paper
    randomization   preset of configs/randomization: off, train, paper
    camera          preset of configs/camera: first_frame, published, d435, d435_tracked, d435_latest,
                    d435_frozen
    disturbance     none, shift3, shift5, force, heavy, slippery
    mount           carrier of the hand: floating, ur5e, or the folder, arm.yaml, MJCF or URDF of an arm
    side            right or left
    seed            seed of all random numbers
    engine          cpu, or warp for a GPU (extra gpu); warp: its buffer sizes
    num_threads     threads of the physics; 0: one per core, but no more than environments
    in_order        trial i uses object i modulo the library's size; otherwise objects are drawn

In place of a preset's name they accept a dataclass instance or a dictionary of some keys: task={"hold_s": 1.0}. Single
keys are dotted, as on the command line: **{"task.hold_s": 1.0}.
"""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import gymnasium
    from torch import Tensor

    from dexgrasp.policies.agents.env_agent import EnvAgent
    from dexgrasp.policies.agents.registry import Agent
    from dexgrasp.results import EvaluationResult
    from dexgrasp.sim.envs.isaacgym.vec_task import VecTask
    from dexgrasp.sim.envs.sb3_env import GraspVecEnv
    from dexgrasp.sim.objects import ObjectLibrary
    from dexgrasp.sim.robots.hand import HandSpec
    from dexgrasp.sim.task.grasp_task import GraspTask
    from dexgrasp.sim.task.rewards import RewardContext


def make(
    hand: "str | Path | HandSpec | None" = None,
    objects: "str | Path | ObjectLibrary" = "shipped",
    num_envs: int = 64,
    *,
    policy: str | None = None,
    auto_reset: bool = True,
    **options: Any,
) -> "GraspTask":
    """Return a batch of `num_envs` episodes on torch tensors.

    `hand`, `objects`: names, folders or loaded objects; the default hand is the policy's, else allegro.
    `policy`: a trained policy whose hand, task and camera settings are used.
    `auto_reset`: the next trial starts in the step that ends an episode. `options`: physics, task, randomization,
    camera, disturbance, mount, side, seed, engine, num_threads, in_order; described in `dexgrasp.api`.
    """
    return _make("make", hand, objects, num_envs, policy, options | {"auto_reset": auto_reset})


def make_gym(
    hand: "str | Path | HandSpec | None" = None,
    objects: "str | Path | ObjectLibrary" = "shipped",
    *,
    obs: str = "student",
    policy: str | None = None,
    attempts: int = 1,
    render_mode: str | None = None,
    **options: Any,
) -> "gymnasium.Env[Any, Any]":
    """Return a `gymnasium.Env` of one episode at a time.

    `obs`: student, teacher, both or dict (what any trained policy needs). `attempts` > 1: grasps per episode, see
    `RegraspWrapper`. Other arguments: see `make`.
    """
    from dexgrasp.sim.envs.gymnasium_env import GraspEnv

    given = _arguments("make_gym", hand, objects, policy, options, GYM_OPTIONS)
    env = GraspEnv(obs=obs, render_mode=render_mode, **given)
    if attempts == 1:
        return env
    from dexgrasp.policies.evaluation.regrasp_wrapper import RegraspWrapper

    return RegraspWrapper(env, attempts)


def make_gym_vec(
    hand: "str | Path | HandSpec | None" = None,
    objects: "str | Path | ObjectLibrary" = "shipped",
    num_envs: int = 64,
    *,
    obs: str = "student",
    policy: str | None = None,
    attempts: int = 1,
    render_mode: str | None = None,
    **options: Any,
) -> "gymnasium.vector.VectorEnv[Any, Any, Any]":
    """Return a `gymnasium.vector.VectorEnv` that resets finished episodes in the same step.

    Arguments: see `make_gym`.
    """
    from dexgrasp.sim.envs.gymnasium_env import GraspVectorEnv

    given = _arguments("make_gym_vec", hand, objects, policy, options, GYM_OPTIONS)
    env = GraspVectorEnv(num_envs, obs=obs, render_mode=render_mode, **given)
    if attempts == 1:
        return env
    from dexgrasp.policies.evaluation.regrasp_wrapper import VectorRegraspWrapper

    return VectorRegraspWrapper(env, attempts)


RENDERING = {"render_modes": ["human", "rgb_array"], "render_fps": 20.0}
make_gym.metadata = make_gym_vec.metadata = RENDERING  # pyright: ignore[reportFunctionMemberAccess] # for gymnasium.make
GYM_OPTIONS = ("hand", "objects", "num_envs", "obs", "policy", "attempts", "render_mode")


def make_sb3(
    hand: "str | Path | HandSpec | None" = None,
    objects: "str | Path | ObjectLibrary" = "shipped",
    num_envs: int = 64,
    *,
    obs: str = "student",
    policy: str | None = None,
    render_mode: str | None = None,
    **options: Any,
) -> "GraspVecEnv":
    """Return a Stable-Baselines3 `VecEnv`. Arguments: see `make_gym`."""
    from dexgrasp.sim.envs.sb3_env import GraspVecEnv

    known = tuple(name for name in GYM_OPTIONS if name != "attempts")
    given = _arguments("make_sb3", hand, objects, policy, options, known)
    return GraspVecEnv(num_envs, obs=obs, render_mode=render_mode, **given)


def make_isaacgym(
    hand: "str | Path | HandSpec | None" = None,
    objects: "str | Path | ObjectLibrary" = "shipped",
    num_envs: int = 64,
    *,
    task: "str | type[VecTask]" = "Grasp",
    task_cfg: Any = None,
    policy: str | None = None,
    seed: int = 0,
    **options: Any,
) -> "VecTask":
    """Return a `VecTask` of IsaacGymEnvs.

    `task`: its name, or a subclass of `dexgrasp.sim.envs.isaacgym.vec_task.VecTask`; names are added with
    `register_isaacgym_task`. `task_cfg`: the task's configuration, the option `task` of `make`. Options of `VecTask`
    are accepted besides those of `make`.
    """
    from dexgrasp.sim.envs.isaacgym import vec_task

    own = {key: options.pop(key) for key in vec_task.OPTIONS if key in options}
    if task_cfg is not None:
        options["task"] = task_cfg
    known = ("hand", "objects", "num_envs", "task_cfg", "policy", *vec_task.OPTIONS)
    given = _arguments("make_isaacgym", hand, objects, policy, options | {"seed": seed}, known)
    return vec_task.make(task=task, num_envs=num_envs, task_cfg=given.pop("task"), **own, **given)


def load_policy(policy: str | Path, task: Any = None) -> "Agent | EnvAgent":
    """Return a trained policy by shipped name, run directory, checkpoint or bundle.

    `task`: a `GraspTask` (also for the names zero, random and synergy) gives a policy on torch tensors; an environment
    of `make_gym`, `make_gym_vec` or `make_sb3`, one that acts on its observations; None, one for obs="dict".
    """
    from dexgrasp.sim.task.grasp_task import GraspTask

    if isinstance(task, GraspTask):
        from dexgrasp.policies.agents.registry import make_policy

        return make_policy(str(policy), task)
    from dexgrasp.policies.agents.env_agent import load_env_agent

    return load_env_agent(str(policy), task)


def open_objects(objects: "str | Path" = "shipped") -> "ObjectLibrary":
    """Return an object library: shipped, generated:N[:validation|:test], random_urdfs[:N], or a folder."""
    from dexgrasp.sim.objects import open_library

    return open_library(objects)


def evaluate(
    policy: str | Path = "synergy",
    objects: "str | Path | ObjectLibrary" = "shipped",
    trials: int = 200,
    **options: Any,
) -> "EvaluationResult":
    """Measure the success rate of a policy as `dexgrasp evaluate` does. `options`: those of the command.

    The run directory is `out`, by default a new one under runs/; a second call with it continues where it stopped.
    """
    from dexgrasp.results import evaluate_policy

    return evaluate_policy(str(policy), objects, trials, options)


def register_reward(name: str, function: "Callable[[RewardContext], Tensor]") -> None:
    """Add a reward term that `task.reward.extra={name: weight}` turns on.

    `function` takes a `dexgrasp.sim.task.rewards.RewardContext` and returns the term before its weight, (env,) float
    or bool.
    """
    from dexgrasp.sim.task.rewards import register_reward as register

    register(name, function)


def register_task(name: str, task: "type[GraspTask]") -> None:
    """Add a subclass of `dexgrasp.sim.task.grasp_task.GraspTask` that `task.class_name=name` selects."""
    from dexgrasp.sim.task.grasp_task import register_task as register

    register(name, task)


def register_isaacgym_task(name: str, task: "type[VecTask]") -> None:
    """Add a `VecTask` subclass under the name that `make_isaacgym(task=name)` accepts.

    The base class is `dexgrasp.sim.envs.isaacgym.vec_task.VecTask`.
    """
    from dexgrasp.sim.envs.isaacgym import vec_task

    vec_task.register(name, task)


def register_envs() -> None:
    """Register "dexgrasp/Grasp-v0" with Gymnasium."""
    from dexgrasp.sim.envs.registration import register_envs as register

    register()


def _make(
    function: str,
    hand: "str | Path | HandSpec | None",
    objects: "str | Path | ObjectLibrary",
    num_envs: int,
    policy: str | None,
    options: dict[str, Any],
) -> "GraspTask":
    from dexgrasp.sim.envs.trial_streams import make_task

    given = _arguments(function, hand, objects, policy, options, ("hand", "objects", "num_envs", "policy"))
    return make_task(num_envs, **given)


def _arguments(
    function: str,
    hand: "str | Path | HandSpec | None",
    objects: "str | Path | ObjectLibrary",
    policy: str | None,
    options: dict[str, Any],
    known: tuple[str, ...],
) -> dict[str, Any]:
    """Return the keyword arguments of `make_task` except the number of environments.

    See `dexgrasp.sim.envs.trial_streams.make_task`.
    """
    from dexgrasp.task_options import objects_argument, task_arguments

    hand = str(hand) if isinstance(hand, Path) else hand
    given = task_arguments(function, hand, options, policy, known)
    return given | {"objects": objects_argument(objects)}
