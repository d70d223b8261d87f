"""Checks of a configuration before its command starts, so that mistakes are refused within seconds.

Checks that need the files of a policy stand at the start of the commands themselves.
"""

import importlib.util
import re
import tempfile
from collections.abc import Callable, Collection
from dataclasses import fields
from pathlib import Path
from typing import Any, get_args

from dexgrasp import configs
from dexgrasp.configs import ConfigError
from dexgrasp.configs.schema import fields as fields_of
from dexgrasp.perception.cameras.open import check_source, demand_camera_file
from dexgrasp.policies.agents.location import (
    UNTRAINED,
    check_policy,
    demand_checkpoint,
    find_checkpoint,
    find_policy,
)
from dexgrasp.policies.cli.source_schema import source_schema
from dexgrasp.policies.deploy.shipped import find_bundle, place
from dexgrasp.policies.dexgraspbench.folder import find_grasps, find_hand_model
from dexgrasp.policies.public_benchmark.object_sets import find_set
from dexgrasp.policies.run_directory import check_evaluation, evaluations
from dexgrasp.sim.robots.models.model_sources import find_hand
from dexgrasp.utils.output import refuse_foreign_file, refuse_url
from dexgrasp.utils.text import demand_known, install_command

LIBRARY_KEYS = ("objects", "validation_objects", "library", "test", "meshes")
"""Keys that name an object library."""


ENVIRONMENT_BYTES, TRAINING_BYTES = 450_000, 1_000_000
"""Memory of an environment on the CPU (measured), and with its part of a rollout."""


def check(cfg: Any, *, out_is_file: bool) -> None:
    """Raise ValueError, OSError or ImportError with the key that is wrong and what to do.

    `cfg` is the dataclass of any command, or the one of `source_schema`; the names and values of its fields decide what
    is checked. `out_is_file`: `out` is a file, not a folder. Nothing heavy is imported.
    """
    _check_extras(cfg)
    _check_out(cfg, out_is_file)
    _check_memory(cfg)
    check_names(cfg)
    if check_inputs := INPUTS.get(type(cfg).__name__):
        check_inputs(cfg)


def check_policy_options(cfg: Any, given: Collection[str]) -> None:
    """Raise ValueError where a given option contradicts the policy.

    `given`: keys and groups of the command line.
    """
    if _has_trained_policy(cfg):
        from dexgrasp.policies.agents.registry import refuse_contradictions

        refuse_contradictions(cfg, cfg.policy, given)


def with_policy_config(cfg: Any) -> Any:
    """Return the configuration with what its trained policy prescribes; other configurations as they are."""
    if not _has_trained_policy(cfg):
        return cfg
    from dexgrasp.policies.agents.registry import apply_policy_config

    return apply_policy_config(cfg, cfg.policy)


def _has_trained_policy(cfg: Any) -> bool:
    return {"policy", "hand", "side", "task"} <= {item.name for item in fields(cfg)} and cfg.policy not in UNTRAINED


EXTRAS: tuple[tuple[Callable[[Any, str], bool], tuple[str, ...], str], ...] = (
    (
        lambda _, kind: kind == "ExportCfg",
        ("onnx", "onnxscript"),
        f"export needs onnx and onnxscript: {install_command('export')}",
    ),
    (lambda _, kind: kind == "ViewerCfg", ("viser",), f"the viewer needs viser: {install_command('viz')}"),
    (
        lambda _, kind: kind in ("PrintBoardCfg", "CalibrateCameraCfg"),
        ("cv2",),
        f"calibration needs OpenCV: {install_command('calibrate')}",
    ),
    (lambda _, kind: kind == "ReplayCfg", ("rosbags",), f"reading a bag needs rosbags: {install_command('ros')}"),
    (
        lambda cfg, _: getattr(cfg, "cluster", "") != "" and cfg.engine == "cpu",  # else they exclude each other
        ("ray", "pyarrow"),
        f"cluster=... needs Ray and pyarrow: {install_command('ray')}",
    ),
    (
        lambda cfg, _: getattr(cfg, "tracker", "") == "wandb",
        ("wandb",),
        f"tracker=wandb needs wandb: {install_command('wandb')}",
    ),
    (
        lambda cfg, _: getattr(cfg, "tracker", "") == "tensorboard",
        ("tensorboard",),
        f"tracker=tensorboard needs tensorboard: {install_command('tensorboard')}",
    ),
    (
        lambda cfg, _: getattr(cfg, "engine", "") == "warp",
        ("mujoco_warp", "warp"),
        f"engine=warp needs mujoco_warp and warp: {install_command('gpu')}",
    ),
    (
        lambda cfg, _: _live_camera(cfg),
        ("pyrealsense2",),
        f"RealSense needs pyrealsense2: {install_command('realsense')}",
    ),
)
"""(condition on configuration and its class name, packages, message) of everything that an extra installs."""


def _live_camera(cfg: Any) -> bool:
    return str(getattr(cfg, "source", "")).partition(":")[0] == "realsense"


def _check_extras(cfg: Any) -> None:
    for needed, packages, message in EXTRAS:
        missing = [package for package in packages if importlib.util.find_spec(package) is None]
        if missing and needed(cfg, type(cfg).__name__):
            raise ImportError(f"{message} (No module named '{missing[0]}')")


def _check_out(cfg: Any, is_file: bool) -> None:
    """Raise ConfigError unless the folder or file `out` can be written; nothing is created."""
    out = getattr(cfg, "out", None)
    if out is None or (is_file and not out):  # the command chooses the file
        return
    refuse_url(out)
    path = Path(out) if out else Path("runs")
    if path.exists() and path.is_dir() == is_file:
        kinds = ("file", "folder") if is_file else ("folder", "file")
        raise ConfigError(f"out={path} is a {kinds[1]}, expected a {kinds[0]}: choose another out=")
    if path.exists() and not (path.is_dir() or path.is_file()):
        raise ConfigError(f"out={path} is a device or a pipe, expected a file: choose another out=")
    if is_file:
        refuse_foreign_file(path)
    above = path if path.is_dir() else path.absolute().parent
    while not above.exists():
        above = above.parent
    try:
        with tempfile.TemporaryFile(dir=above):
            pass
    except OSError as error:
        raise ConfigError(f"out={path} cannot be written ({error.strerror}: {above}): choose another out=") from error


def _check_memory(cfg: Any) -> None:
    """Raise ConfigError if the parallel environments need more memory than is free."""
    if getattr(cfg, "engine", "cpu") != "cpu" or not isinstance(envs := getattr(cfg, "num_envs", None), int):
        return
    envs = min(envs, getattr(cfg, "trials", 0) or envs)
    needed, free = envs * (TRAINING_BYTES if hasattr(cfg, "gamma") else ENVIRONMENT_BYTES), _free_bytes()
    if needed > free:
        raise ConfigError(
            f"num_envs={envs} needs about {needed / 2**30:.0f} GiB of memory, {free / 2**30:.0f} GiB are free: "
            "reduce num_envs"
        )


def _free_bytes() -> int:
    """Return the free memory of this machine, with caches that the system can drop."""
    found = re.search(r"MemAvailable:\s+(\d+) kB", Path("/proc/meminfo").read_text(encoding="utf-8"))
    assert found is not None
    return int(found[1]) * 1024


def check_names(cfg: Any) -> None:
    """Raise an error with the known names where a hand, library or policy does not exist."""
    kind = type(cfg).__name__
    if hasattr(cfg, "hand") and kind not in ("ReplayCfg", "BenchRosCfg", "PlayGraspsCfg"):  # driver, optional, an MJCF
        find_hand(cfg.hand)
    if hasattr(cfg, "mount"):
        from dexgrasp.sim.robots.arms.arm_file import check_arm

        check_arm(cfg.mount)
    if kind == "CheckArmCfg":
        from dexgrasp.sim.robots.arms.arm_file import find_arm

        if cfg.arm == "floating":
            raise ValueError("arm=floating is no arm: expected a shipped one (dexgrasp list arms), or a path")
        find_arm(cfg.arm)
    if hasattr(cfg, "presets"):
        demand_known(cfg.presets, configs.options("physics"), "presets: physics preset")
    if kind != "PublishCfg":  # its objects are a description
        from dexgrasp.sim.objects.registry import check_spec

        for key in LIBRARY_KEYS:
            if isinstance(name := getattr(cfg, key, None), str):
                check_spec(name, key)
    if kind == "EvaluateCfg":
        check_policy(cfg.policy)


def _check_training(cfg: Any) -> None:
    if cfg.stage == "teacher" and cfg.teacher:
        raise ConfigError(f"teacher={cfg.teacher} is for a student, and recipe=teacher has none: give recipe=student")
    if cfg.stage == "student":
        demand_checkpoint(cfg.teacher, "teacher", "teacher", cfg.stage)
    if cfg.init_checkpoint:
        demand_checkpoint(cfg.init_checkpoint, "init_checkpoint", cfg.stage, cfg.stage)


def _check_ablations(cfg: Any) -> None:
    known = get_args(fields_of(source_schema("dexgrasp.policies.evaluation.config:EvaluateCfg"))["disturbance"])
    demand_known(cfg.disturbances, [name for name in known if name != "all"], "disturbances: disturbance")
    for key in ("teacher", "init_checkpoint"):
        if name := getattr(cfg, key):
            find_policy(name, key, "checkpoint")


def _check_comparison(cfg: Any) -> None:
    if not cfg.a or not cfg.b:
        raise ConfigError("compare needs two policies: dexgrasp compare A B")
    for key in ("a", "b"):
        check_policy(getattr(cfg, key), key)


def _check_report(cfg: Any) -> None:
    if not cfg.runs:
        raise ConfigError("report needs the run directory of an evaluation: dexgrasp report RUN [RUN ...]")
    for run in evaluations(cfg.runs):
        check_evaluation(run)


def _check_video(cfg: Any) -> None:
    if not cfg.run:
        raise ConfigError("video needs the run directory of an evaluation: dexgrasp video RUN trial=N")
    check_evaluation(Path(cfg.run))


def _check_grasps(cfg: Any) -> None:
    if not cfg.run:
        raise ConfigError("benchmark grasps needs the run directory of an evaluation: dexgrasp benchmark grasps RUN")
    check_evaluation(Path(cfg.run))
    _demand_file(cfg.hand_model or "FILE", "hand_model", "the MJCF of this hand in DexGraspBench")


def _check_replay(cfg: Any) -> None:
    find_bundle(cfg.policy)
    if not Path(cfg.bag).exists():
        raise ConfigError(
            f"no bag '{cfg.bag}': give the folder that the recorder node wrote, or its .mcap or .db3 file"
        )
    _demand_file(cfg.camera_file, "camera_file", CAMERA_FILE)


def _check_viewer(cfg: Any) -> None:
    if cfg.source == "sim":
        check_policy(cfg.policy)
    else:
        check_source(cfg.source)
    _demand_file(cfg.camera_file, "camera_file", CAMERA_FILE)


def _check_calibration(cfg: Any) -> None:
    if not _live_camera(cfg):
        demand_camera_file(Path(cfg.source) / "camera.json")


def _demand_file(path: str, key: str, what: str) -> None:
    """Raise ConfigError where a file is named and does not exist."""
    if path and not Path(path).is_file():
        raise ConfigError(f"{key}: no file '{path}': expected {what}")


def _check_ros_bench(cfg: Any) -> None:
    find_bundle(cfg.policy)
    from dexgrasp.sim.robots.arms.arm_file import find_arm

    find_arm(cfg.arm)
    if cfg.hand:
        find_hand(cfg.hand)


CAMERA_FILE = "the pose of the camera, as `dexgrasp calibrate camera` writes it"
INPUTS: dict[str, Callable[[Any], object]] = {
    "TrainCfg": _check_training,
    "BenchAblationsCfg": _check_ablations,
    "CompareCfg": _check_comparison,
    "ReportCfg": _check_report,
    "VideoCfg": _check_video,
    "ViewerCfg": _check_viewer,
    "ReplayCfg": _check_replay,
    "CalibrateCameraCfg": _check_calibration,
    "CheckSceneCfg": lambda cfg: (
        check_source(cfg.source),
        _demand_file(cfg.camera_file, "camera_file", CAMERA_FILE),
    ),
    "ScanCfg": lambda cfg: [check_source(source) for source in cfg.sources],
    "ExportCfg": lambda cfg: find_policy(cfg.policy, kind="checkpoint"),
    "PublishCfg": lambda cfg: (
        find_policy(cfg.policy, kind="checkpoint"),
        _demand_file(cfg.sign, "sign", "the private Ed25519 key (PEM)"),
    ),
    "BenchDeployCfg": lambda cfg: find_policy(cfg.policy, kind="bundle"),
    "PublicBenchmarkCfg": lambda cfg: find_set(cfg.benchmark).meshes(cfg.folder),
    "ValidateBenchmarkCfg": lambda cfg: _demand_file(
        cfg.file or "FILE", "benchmark validate", "rows of `dexgrasp benchmark`, one per line"
    ),
    "PlayGraspsCfg": lambda cfg: (
        find_grasps(cfg.folder, cfg.grasps, cfg.most, only_judged=cfg.only_judged),
        find_hand_model(cfg.folder, cfg.grasps, cfg.hand),
    ),
    "WriteGraspsCfg": _check_grasps,
    "BenchRosCfg": _check_ros_bench,
    "BenchPhysicsCfg": lambda cfg: check_policy(cfg.policy),
    "UpgradeCfg": lambda cfg: find_checkpoint(cfg.source),
    "Sb3Cfg": lambda cfg: find_checkpoint(place(cfg.policy)),
}
"""Checks of the policies and files that a command reads, by the class of its configuration."""


def check_task(cfg: Any) -> None:
    """Raise ValueError for options of the task that exclude each other, before objects are made or read."""
    if not hasattr(cfg, "task"):
        return
    from dexgrasp.sim.task.grasp_task import check_engine, check_rates, task_class
    from dexgrasp.sim.task.rewards import check_registered

    task_class(cfg.task)
    check_registered(cfg.task.reward)
    check_engine(cfg.task, getattr(cfg, "engine", "cpu"))
    if hasattr(cfg, "physics") and not hasattr(cfg, "policy"):  # a trained policy brings its own control rate
        check_rates(cfg.task, cfg.physics)
