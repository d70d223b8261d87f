"""Options of `dexgrasp.make` and the environments: command-line values, objects or dictionaries.

physics="turbo"          one of configs/physics, as on the command line     physics=PhysicsCfg(...)   the object itself
task={"hold_s": 1.0}     some keys of it                                    **{"task.hold_s": 1.0}    one key
"""

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, fields, is_dataclass, replace
from pathlib import Path
from typing import Any, Literal, TypeVar

from dexgrasp import configs
from dexgrasp.policies.agents import registry
from dexgrasp.sim.engine.factory import EngineName, WarpCfg
from dexgrasp.sim.objects import ObjectLibrary
from dexgrasp.sim.robots.hand import HandSpec
from dexgrasp.sim.scene import PhysicsCfg
from dexgrasp.sim.task.grasp_task import TaskCfg
from dexgrasp.utils.bounds import Seed, Threads, bounded
from dexgrasp.utils.text import did_you_mean

T = TypeVar("T")


@dataclass(frozen=True)
@bounded
class MakeCfg:
    """Options of a task made from Python."""

    hand: str = "allegro"
    """Hand by name (a folder of assets/hands) or path."""
    side: Literal["right", "left"] = "right"
    """Side of the hand; left hands are mirrored right ones."""
    mount: str = "floating"
    """Mount of the hand: floating, or an arm: ur5e, a folder with arm.yaml, an arm.yaml, an MJCF or a URDF."""
    disturbance: str = "none"
    """Disturbance during the grasp: none, shift3, shift5, force, heavy or slippery."""
    seed: Seed = 0
    """Seed of all random numbers."""
    num_threads: Threads = 0
    """Threads of the physics; 0 = one per core, but no more than environments."""
    in_order: bool = False
    """Whether trial i uses object i modulo the library's size; otherwise objects are drawn."""
    auto_reset: bool = False
    """Whether the task itself starts the next trial where an episode ended."""
    engine: EngineName = "cpu"
    """Physics engine: cpu (MuJoCo) or warp (MuJoCo Warp on a GPU, extra `gpu`)."""
    warp: WarpCfg = field(default_factory=WarpCfg)
    """Buffer sizes of engine=warp."""
    task: TaskCfg = field(default_factory=TaskCfg)
    """Phases, control rate, observations and rewards of the task."""
    physics: PhysicsCfg = field(default_factory=PhysicsCfg)
    """Physics settings."""


def task_arguments(
    function: str,
    hand: str | HandSpec | None,
    options: Mapping[str, Any],
    policy: str | None = None,
    known: Collection[str] = (),
) -> dict[str, Any]:
    """Return the keyword arguments of `make_task` except the number of environments and the objects.

    See `dexgrasp.sim.envs.trial_streams.make_task`.

    `policy`: a trained policy whose hand, task and camera settings replace the defaults. `function` and `known`, the
    names of its other arguments, appear in the message of the ValueError that an unknown option raises.
    """
    values = dict(options)
    spec = hand if isinstance(hand, HandSpec) else None
    if spec is not None:
        values |= {"hand": spec.name, "side": spec.side}
    elif hand is not None:
        values["hand"] = str(hand)
    cfg = load(MakeCfg, "evaluate", values, function, known)  # its YAML holds presets alone
    if policy is not None:
        cfg = registry.apply_policy_config(cfg, policy)
        if hand is not None and cfg.hand != values["hand"]:
            raise ValueError(f"{function}: '{policy}' was trained with the hand {cfg.hand}, not {values['hand']}")
    given = {item.name: getattr(cfg, item.name) for item in fields(cfg) if item.name not in ("hand", "side")}
    return given | {"hand": spec or HandSpec.load(cfg.hand, side=cfg.side)}


def load(schema: type[T], name: str, options: Mapping[str, Any], function: str, known: Collection[str] = ()) -> T:
    """Return the configuration `name` with `options` applied.

    Options are presets by name, plain values, dictionaries or dataclass instances.

    `function` and `known`, the names of its other arguments, appear in the ValueError that an unknown option raises.
    """
    objects = {key: value for key, value in options.items() if is_dataclass(value)}
    plain = _flat({key: value for key, value in options.items() if key not in objects})
    try:
        cfg = configs.load(schema, name, [f"{key}={_text(value)}" for key, value in plain.items()])
    except configs.ConfigError as error:
        _refuse_unknown(function, options, [*known, *(item.name for item in fields(schema))], name)  # pyright: ignore
        raise ValueError(f"{function}: {str(error).removeprefix(f'{name}: ')}") from error
    for key, value in objects.items():
        if mixed := [other for other in plain if other.startswith(f"{key}.")]:
            raise ValueError(f"{name}: {key} is given as a {type(value).__name__}, and {', '.join(mixed)} beside it")
    places = {word: group.place for word, group in configs.groups(name).items()}
    for key in sorted(objects, key=lambda key: places.get(key, key).count(".")):  # task before task.camera
        value = objects[key]
        if key == "task":  # presets of its parts hold beside it
            parts = {places[word].partition(".")[2] for word in plain if places.get(word, "").startswith("task.")}
            value = replace(value, **{part: getattr(cfg.task, part) for part in parts})  # pyright: ignore
        cfg = _put(cfg, places.get(key, key).split("."), value)
    return cfg


def _refuse_unknown(function: str, options: Mapping[str, Any], known: Collection[str], name: str) -> None:
    """Raise ValueError for the first option that neither `function` nor the configuration `name` has."""
    words = list(dict.fromkeys([*known, *configs.groups(name)]))
    for key in options:
        if key.partition(".")[0] not in words:
            hint = "." + did_you_mean(key, words)
            raise ValueError(f"{function}: unknown option '{key}'{hint} Options: {', '.join(words)}")


def objects_argument(objects: str | Path | ObjectLibrary) -> str | ObjectLibrary:
    """Return the library, or its name or folder as a string."""
    return objects if isinstance(objects, ObjectLibrary) else str(objects)


def _flat(options: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in options.items():
        found |= _flat(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {prefix + key: value}
    return found


def _text(value: Any) -> str:
    """Return a value as the command line would hold it."""
    return str(value) if isinstance(value, (str, Path)) else json.dumps(value)


def _put(cfg: Any, path: list[str], value: Any) -> Any:
    first, *rest = path
    expected = type(getattr(cfg, first))
    if not rest and not isinstance(value, expected):
        raise TypeError(f"{first} must be the name of a preset, a dictionary or a {expected.__name__}, got {value!r}")
    return replace(cfg, **{first: _put(getattr(cfg, first), rest, value) if rest else value})
