"""The conditions of an evaluation in words, and the command that repeats it."""

import logging
import math
import shlex
from collections.abc import Mapping
from typing import Any

from dexgrasp import configs
from dexgrasp.policies.agents.registry import BELONGS_TO_CAMERA, prescribes_camera
from dexgrasp.policies.evaluation.config import EvaluateCfg, apply_policy_config
from dexgrasp.policies.run_directory import flat
from dexgrasp.sim.randomization.episode_draws import RandomizationCfg
from dexgrasp.sim.scene import PhysicsCfg
from dexgrasp.sim.sensors.config import CameraCfg
from dexgrasp.sim.task.disturbances import DisturbanceCfg
from dexgrasp.sim.task.outcomes import RISE_M, SLIP_M, TOUCH_GRACE_S

NO_CONDITION = ("out", "num_threads", "videos", "cluster")
"""Keys that change no outcome of a trial: not part of the command that repeats a run."""

RESULTS_CAMERA = "d435"
"""Camera preset of the published success rates, with the errors of a RealSense D435."""

ENGINES = {"cpu": "MuJoCo (CPU)", "warp": "MuJoCo Warp"}

NO_ERRORS = "none"
"""Camera errors of an exact camera, in words."""

Config = Mapping[str, Any]

log = logging.getLogger("dexgrasp")


def conditions(config: Config, objects: int) -> dict[str, str]:
    """Return the conditions under which the number of a result was measured, by name."""
    task = config["task"]
    return {
        "policy": config["policy"],
        "objects": f"{config['objects']} ({objects} in these trials)",
        **({"scene": scene_in_words(config)} if config["task"]["scene"]["name"] != "single" else {}),
        "hand": f"{config['hand']} ({config['side']}), {config['mount']}",
        "camera": _camera(task["camera"]),
        "camera errors": _camera_errors(task["camera"]),
        "perception": _perception(task),
        "start noise": start_noise(config),
        "randomization": preset_name(task["randomization"], "randomization", RandomizationCfg),
        "disturbance": disturbance_in_words(config),
        **({"object mass": f"{1000 * task['object_mass_kg']:g} g"} if task["object_mass_kg"] else {}),
        "engine": ENGINES[config["engine"]],
        "physics": preset_name(config["physics"], "physics", PhysicsCfg),
        "hold": f"{task['hold_s']:g} s",
        "attempts": _attempts(config),
        "seed": str(config["seed"]),
    }


def _attempts(config: Config) -> str:
    if config.get("clear_table"):
        return "1 per grasp, 2 grasps for each object on a table"
    return f"up to {config['attempts']}" if config["attempts"] > 1 else "1"


def start_noise(config: Config) -> str:
    """Return how far palm and fingers start from the planned pre-grasp, in words; every trial has it."""
    reset = config["task"]["reset"]
    parts = [
        f"palm ±{1000 * reset['palm_xy_range_m']:g} mm",
        f"approach ±{1000 * reset['standoff_range_m']:g} mm",
        f"tilt sd {math.degrees(reset['tilt_sd_rad']):.2g}°",
        f"fingers ±{math.degrees(reset['finger_range_rad']):.2g}°",
    ]
    return ", ".join(parts)


def disturbance_in_words(config: Config) -> str:
    """Return the disturbance, with what of it was set: "shift5, one per attempt"."""
    name, chosen = config["disturbance"], DisturbanceCfg(**config["task"]["disturbance"])
    parts = [name]
    if chosen.per == "attempt" and name in ("shift3", "shift5", "all"):
        parts.append("a shift in each attempt")
    if name in ("force", "all"):
        parts.append(f"force of {chosen.force_in_words()}")
    return ", ".join(parts)


def results_camera(camera: Config, prescribed: bool) -> str:
    """Return the camera preset with errors whose observation is that of `camera`.

    Where there is none: RESULTS_CAMERA, or empty if the policy was trained for `camera` (`prescribed`).
    """
    for name in configs.options("camera"):
        preset = configs.as_dict(configs.load_option(CameraCfg, "camera", name))
        if _camera_errors(preset) != NO_ERRORS and all(preset[key] == camera[key] for key in BELONGS_TO_CAMERA):
            return name
    return "" if prescribed else RESULTS_CAMERA


def camera_errors_note(config: Config) -> str:
    """Return "none" and the preset that adds errors; empty where the camera of the evaluation has errors."""
    camera = config["task"]["camera"]
    if _camera_errors(camera) != NO_ERRORS:
        return ""
    preset = results_camera(camera, prescribes_camera(config["policy"]))
    return f"{NO_ERRORS}; camera={preset} adds those of a D435" if preset else NO_ERRORS


def success_definition(config: Config) -> str:
    """Return the criterion of success in one sentence."""
    return (
        f"Success: in the whole hold of {config['task']['hold_s']:g} s the object is at least {100 * RISE_M:g} cm "
        f"above its start, moves less than {100 * SLIP_M:g} cm relative to the palm, and is never without contact with "
        f"the hand for {TOUCH_GRACE_S:g} s."
    )


def repeat_command(config: Config) -> str:
    """Return the shortest `dexgrasp evaluate` command that has the configuration `config`.

    Groups are named where one of their options fits; a value is left out where it is the default, or prescribed by the
    policy.
    """
    words = [f"policy={config['policy']}"] if config["policy"] != EvaluateCfg.policy else []
    for group, default in configs.groups("evaluate").items():
        option = _nearest_option(config, group, default.place)
        words += [f"{group}={option}"] if option != default.option else []
    words += _differing(config, words)
    return shlex.join(["dexgrasp", "evaluate", *words])


def _differing(config: Config, words: list[str]) -> list[str]:
    """Return `key=value` of the leaves in which `config` differs from the configuration that `words` give."""
    level = log.level
    log.setLevel(logging.WARNING)  # the evaluation has said what its policy prescribes
    try:
        cfg = apply_policy_config(configs.load(EvaluateCfg, "evaluate", words))
    except (ValueError, OSError):  # the policy is gone: the command then names what it prescribed
        cfg = configs.load(EvaluateCfg, "evaluate", [word for word in words if not word.startswith("policy=")])
    finally:
        log.setLevel(level)
    given, wanted = flat(configs.as_dict(cfg)), flat(dict(config))
    return [
        f"{key}={configs.typed(wanted[key])}"
        for key in given
        if key in wanted and key not in ("policy", *NO_CONDITION) and given[key] != wanted[key]
    ]


def _nearest_option(config: Config, group: str, place: str) -> str:
    """Return the option of a group that differs from `config` in the fewest values."""
    whole = flat(configs.as_dict(EvaluateCfg()))
    usual = {key.removeprefix(f"{place}."): value for key, value in whole.items() if key.startswith(f"{place}.")}
    given = flat(_at(config, place))

    def differences(option: str) -> int:
        values = usual | flat(configs.read_plain(configs.ROOT / group / f"{option}.yaml"))
        return sum(_plain(given.get(key)) != _plain(value) for key, value in values.items())

    known = configs.options(group)
    default = configs.groups("evaluate")[group].option
    return min(known, key=lambda option: (differences(option), option != default))


def _at(config: Config, place: str) -> Any:
    for key in place.split("."):
        config = config[key]
    return config


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def preset_name(values: Config, group: str, schema: type) -> str:
    """Return the name of a preset, marked where its values were changed: "reference, changed"."""
    name = values["name"]
    if name not in configs.options(group):
        return name
    return name if values == configs.as_dict(configs.load_option(schema, group, name)) else f"{name}, changed"


def _camera(camera: Config) -> str:
    if camera["mode"] == "first_frame":
        carried = ", moved with the palm" if camera["move_with_palm"] else ""
        return f"first frame only{carried}"
    if camera["frozen"]:
        return f"{camera['mode']}: frozen, the first view of each attempt only"
    return (
        f"{camera['mode']}: a frame every {camera['frame_interval_steps']} control steps "
        f"({camera['hold_frame_interval_steps']} in hold), {camera['latency_steps']} late"
    )


def _camera_errors(camera: Config) -> str:
    parts = {
        "disparity_sd_px": "disparity {:g} px",
        "depth_unit_m": "depth steps {:g} m",
        "edge_dropout": "{:.0%} of edge points missing",
        "flying_pixel_rate": "{:.0%} flying",
        "hand_margin_m": "hand margin {:g} m",
    }
    return ", ".join(text.format(camera[key]) for key, text in parts.items() if camera[key]) or NO_ERRORS


def scene_in_words(config: Config) -> str:
    """Return what stands on the table: "clutter of 3 to 8 objects, packed"."""
    scene = config["task"]["scene"]
    if scene["name"] == "single":
        return "one object"
    least, most = scene["objects"]
    return f"clutter of {least if least == most else f'{least} to {most}'} objects, {scene['layout']}"


def _perception(task: Config) -> str:
    clutter = task["scene"]["name"] == "clutter"
    if task["camera"]["model"] == "rendered":
        told = "; the wanted object is pointed at in the first frame of an attempt, then followed" if clutter else ""
        return f"rendered depth images, segmented by the pipeline of the robot{told}"
    return "simulated points of the visible surface" + ("; the wanted object's are known by truth" if clutter else "")
