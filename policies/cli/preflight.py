"""Checks of a configuration before its command starts, so that mistakes are refused within seconds.

Checks that need the files of a policy stand at the start of the commands themselves.
"""

import importlib.util
import re
import tempfile
from collections.abc import Callable, Collection
from dataclasses import fields
from pathlib import Path
from typing import Any

from dexgrasp.configs import ConfigError
from dexgrasp.utils.output import refuse_url

LIBRARY_KEYS = ("objects", "validation_objects", "library", "test")
"""Keys that name an object library."""


ENVIRONMENT_BYTES, TRAINING_BYTES = 450_000, 1_000_000
"""Memory of an environment on the CPU (measured), and with its part of a rollout."""


def check(cfg: Any, *, out_is_file: bool) -> None:
    """Raise ValueError, OSError or ImportError with the key that is wrong and what to do.

    `cfg` is the dataclass of any command; the names and values of its fields decide what is checked. `out_is_file`:
    `out` is a file, not a folder.
    """
    _check_extras(cfg)
    _check_out(cfg, out_is_file)
    _check_memory(cfg)
    check_values(cfg)


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
    if not {"policy", "hand", "side", "task"} <= {item.name for item in fields(cfg)}:
        return False
    from dexgrasp.policies.agents.registry import POLICIES

    return cfg.policy not in POLICIES


def check_values(cfg: Any) -> None:
    """Raise ValueError or OSError for names that do not exist and options that exclude each other."""
    _check_names(cfg)
    _check_task(cfg)


EXTRAS: tuple[tuple[Callable[[Any, str], bool], tuple[str, ...], str], ...] = (
    (
        lambda _, kind: kind == "ExportCfg",
        ("onnx", "onnxscript"),
        "export needs onnx and onnxscript: pip install 'dexgrasp[export]'",
    ),
    (lambda _, kind: kind == "ViewerCfg", ("viser",), "the viewer needs viser: pip install 'dexgrasp[viz]'"),
    (
        lambda _, kind: kind in ("PrintBoardCfg", "CalibrateCameraCfg"),
        ("cv2",),
        "calibration needs OpenCV: pip install 'dexgrasp[calibrate]'",
    ),
    (lambda _, kind: kind == "ReplayCfg", ("rosbags",), "reading a bag needs rosbags: pip install 'dexgrasp[ros]'"),
    (
        lambda cfg, _: getattr(cfg, "cluster", "") != "",
        ("ray", "pyarrow"),
        "cluster=... needs Ray and pyarrow: pip install 'dexgrasp[ray]'",
    ),
    (
        lambda cfg, _: getattr(cfg, "tracker", "") == "wandb",
        ("wandb",),
        "tracker=wandb needs wandb: pip install 'dexgrasp[wandb]'",
    ),
    (
        lambda cfg, _: getattr(cfg, "tracker", "") == "tensorboard",
        ("tensorboard",),
        "tracker=tensorboard needs tensorboard: pip install 'dexgrasp[tensorboard]'",
    ),
    (
        lambda cfg, _: getattr(cfg, "engine", "") == "warp",
        ("mujoco_warp", "warp"),
        "engine=warp needs mujoco_warp and warp: pip install 'dexgrasp[gpu]'",
    ),
    (
        lambda cfg, _: _live_camera(cfg),
        ("pyrealsense2",),
        "RealSense needs pyrealsense2: pip install 'dexgrasp[realsense]'",
    ),
)
"""(condition on configuration and its class name, packages, message) of everything that an extra installs."""


def _live_camera(cfg: Any) -> bool:
    return str(getattr(cfg, "source", "")).partition(":")[0] == "realsense"


def _check_extras(cfg: Any) -> None:
    for needed, packages, message in EXTRAS:
        missing = [package for package in packages if importlib.util.find_spec(package) is None]
        if missing and needed(cfg, type(cfg).__name__):
            raise ImportError(f"{message} (no module {missing[0]})")


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


def _check_names(cfg: Any) -> None:
    """Raise an error that lists the known names where a hand, mount, library or policy does not exist."""
    kind = type(cfg).__name__
    if hasattr(cfg, "hand") and kind != "ReplayCfg":  # its hand is a ROS driver
        from dexgrasp.sim.robots.hand import find_hand

        find_hand(cfg.hand)
    if hasattr(cfg, "mount"):
        from dexgrasp.sim.robots.arm_file import check_arm

        check_arm(cfg.mount)
    if kind != "PublishCfg":  # its objects are a description
        from dexgrasp.sim.objects.registry import check_spec

        for key in LIBRARY_KEYS:
            if isinstance(name := getattr(cfg, key, None), str):
                check_spec(name, key)
    if hasattr(cfg, "policy") and hasattr(cfg, "task"):
        from dexgrasp.policies.agents.registry import check_policy

        for key in ("policy", "a", "b"):
            if name := getattr(cfg, key, ""):
                check_policy(name, key)


def _check_task(cfg: Any) -> None:
    """Raise ValueError for options of the task that exclude each other, before objects are made or read."""
    if not hasattr(cfg, "task"):
        return
    from dexgrasp.sim.task.grasp_task import check_rates, task_class
    from dexgrasp.sim.task.rewards import check_registered

    if type(cfg).__name__ == "TrainCfg" and cfg.stage == "teacher" and cfg.teacher:
        raise ConfigError(f"teacher={cfg.teacher} is for a student, and recipe=teacher has none: give recipe=student")
    task_class(cfg.task)
    check_registered(cfg.task.reward)
    if hasattr(cfg, "physics") and not hasattr(cfg, "policy"):  # a trained policy brings its own control rate
        check_rates(cfg.task, cfg.physics)
