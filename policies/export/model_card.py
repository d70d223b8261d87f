"""`dexgrasp publish`: folder with a trained policy, its bundle, learning curves and model card.

OUT/policy.zip, config.yaml   the best checkpoint and its configuration: evaluate, export, train start=... take them
OUT/bundle/                   of a student: what a robot runs
OUT/curves.png                its learning curves
OUT/README.md                 the model card: training, use, measured results
"""

import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml

from dexgrasp import configs
from dexgrasp.policies.agents import registry
from dexgrasp.policies.agents.checkpoint import config_of, read_checkpoint, write_checkpoint
from dexgrasp.policies.deploy.signature import check_private_key
from dexgrasp.policies.evaluation.conditions import start_noise
from dexgrasp.policies.evaluation.config import EvaluateCfg
from dexgrasp.policies.evaluation.summary import percent
from dexgrasp.policies.export.export import ExportCfg, write_new_bundle
from dexgrasp.policies.run_directory import flat
from dexgrasp.policies.training.config import TrainCfg
from dexgrasp.policies.training.learning_curves import read_columns
from dexgrasp.sim.task.grasp_task import TaskCfg
from dexgrasp.utils.files import atomic_folder, write_text
from dexgrasp.utils.output import FolderKind, claimed_folder
from dexgrasp.utils.readers import read_json_object, reading

PATHS = ("objects", "validation_objects", "out", "init_checkpoint", "teacher")
"""Keys of a training's configuration that name folders."""
UNLISTED = (*PATHS, "num_threads", "time_limit_min", "validation_interval")
"""Keys that a model card does not list, because the learnt policy does not depend on them."""


@dataclass(frozen=True)
class PublishCfg:
    """Put a trained policy and its model card into one folder."""

    policy: str
    """Policy to publish: the run directory of its training, or one of its checkpoints."""
    out: str
    """Folder to write, for instance assets/policies/allegro/student."""
    results: tuple[str, ...] = ()
    """Run directories of evaluations of this policy; their numbers go into the model card."""
    objects: str = ""
    """Description of the training objects, if the configuration names a folder."""
    history: tuple[str, ...] = ()
    """Run directories that this run was started from, oldest first; their steps and minutes count."""
    sign: str = ""
    """File of the private Ed25519 key (PEM) that signs the bundle of a student; empty = not signed."""
    plugins: tuple[str, ...] = ()
    """Modules or .py files imported first, comma-separated: they may register rewards and tasks."""


PUBLISHED_FILES = ("policy.zip", "config.yaml", "bundle", "curves.png", "README.md")
MEASURED = "## Measured"
"""Heading of every model card."""


def _is_published(folder: Path) -> bool:
    """Return whether a folder holds a policy and the model card of `publish`."""
    readme = folder / "README.md"
    if not (folder / "policy.zip").is_file() or not readme.is_file():
        return False
    return MEASURED in readme.read_text(encoding="utf-8", errors="replace").splitlines()


PUBLISHED = FolderKind("published policy", _is_published)
"""Kind of the folder that `publish` writes."""


def publish(cfg: PublishCfg) -> None:
    """Write policy, configuration, bundle, curves and model card into the folder `out`."""
    with claimed_folder(cfg.out, PUBLISHED) as out:
        _publish(cfg, out)
    print(f"published: {out}")


def _publish(cfg: PublishCfg, out: Path) -> None:
    checkpoint = registry.find_policy(cfg.policy, kind="checkpoint").path
    run, data = checkpoint.parent, read_checkpoint(checkpoint)
    config = _current(config_of(checkpoint, data.manifest), checkpoint)
    if cfg.sign and config["stage"] != "student":
        raise ValueError(f"sign={cfg.sign}: {checkpoint} is a teacher, which has no bundle to sign")
    if cfg.sign:
        check_private_key(cfg.sign)
    stages = [_stage(Path(path)) for path in (*cfg.history, run)]
    results = [_result(Path(path)) for path in cfg.results]  # before anything is written: a run may lack its files
    with atomic_folder(out, own=PUBLISHED_FILES) as partial:
        write_checkpoint(partial / "policy.zip", replace(data, manifest=_portable_manifest(data.manifest)))
        write_text(partial / "config.yaml", yaml.safe_dump(_portable(config), sort_keys=False, allow_unicode=True))
        if (run / "curves.png").is_file():
            shutil.copyfile(run / "curves.png", partial / "curves.png")
        if config["stage"] == "student":
            words = [f"policy={partial / 'policy.zip'}", f"out={out / 'bundle'}", f"sign={cfg.sign}"]
            write_new_bundle(configs.load(ExportCfg, "export", words), partial / "bundle")
        write_text(partial / "README.md", card(config, cfg.objects or Path(config["objects"]).name, stages, results))


def card(config: dict[str, Any], objects: str, stages: list[dict[str, Any]], results: list[dict[str, Any]]) -> str:
    """Return the model card as Markdown."""
    steps, minutes = sum(stage["steps"] for stage in stages), sum(stage["minutes"] for stage in stages)
    lines = [
        f"# {config['hand']}, {config['stage']}",
        "",
        *_observes(config),
        "",
        f"Trained on {objects}: {1e-6 * steps:.2f} million control steps in {minutes:.0f} minutes of "
        f"{stages[-1]['machine']}, physics `{config['physics']['name']}`, randomisation "
        f"`{config['task']['randomization']['name']}`. The scans that appear below were no part of it.",
        "",
        "| run | iterations | million steps | minutes | started from | other than the defaults |",
        "|---|---|---|---|---|---|",
        *(_stage_row(stage) for stage in stages),
        "",
        "Curves of the last run:",
        "",
        "![learning curves](curves.png)",
        "",
        MEASURED,
        "",
        "| objects | mount | physics | randomisation | camera | perception | disturbance | trials | first attempt "
        "| success |",
        "|---|---|---|---|---|---|---|---|---|---|",
        *(row for result in results for row in _rows(result)),
        "",
        "With the 95 % Wilson interval; success: 0.1 m above the start, held 3 s, moving < 8 cm in the hand. A student "
        "that feels its hand empty tries again, as the README says.",
        *(f"Start noise: {noise}." for noise in dict.fromkeys(result["start_noise"] for result in results)),
        "",
        f"`make train HAND={config['hand']}` trains teacher and student with the defaults of now; see the README.",
    ]
    return "\n".join(lines) + "\n"


def _observes(config: dict[str, Any]) -> list[str]:
    if config["stage"] == "teacher":
        return ["Privileged: knows contacts, forces, the whole object and its motion. For simulation only."]
    mode = config["task"]["camera"]["mode"]
    return [f"Knows proprioception and one depth camera's points (camera `{mode}`); `bundle/` is what a robot runs."]


def _current(config: dict[str, Any], path: Path) -> dict[str, Any]:
    """Return the configuration of a training under the key names of this version."""
    return configs.upgrade(TrainCfg, config, str(path))


def _stage(run: Path) -> dict[str, Any]:
    """Return the facts of a run directory for the model card."""
    run = run if run.is_dir() else run.parent
    with reading(run, "run directory of a training"):
        facts = read_json_object(run / "run.json")
        config = _current(configs.read_plain(run / "config.yaml"), run / "config.yaml")
        columns = read_columns(run / "progress.csv")
        return {
            "name": run.name,
            "steps": columns["rollout/success"][0][-1],
            "iterations": len(columns["rollout/success"][0]),
            "minutes": sum(_starts(columns["time/time_elapsed"][1])) / 60,
            "start": _named(config.get("init_checkpoint", "")) or _named(config.get("teacher", "")) or "scratch",
            "machine": f"{facts['machine']['cpus']} processor cores",
            "differs": _processes(config, columns["rollout/success"][0]) + _differences(config),
        }


def _named(checkpoint: str) -> str:
    """Return the run directory of a checkpoint; its own name where no folder is known."""
    return Path(checkpoint).parent.name or Path(checkpoint).stem


def _stage_row(stage: dict[str, Any]) -> str:
    return (
        f"| {stage['name']} | {stage['iterations']} | {1e-6 * stage['steps']:.2f} | {stage['minutes']:.0f} "
        f"| {stage['start']} | {', '.join(stage['differs'])} |"
    )


def _processes(config: dict[str, Any], steps: list[float]) -> list[str]:
    """Return the number of training processes if there were several.

    Computed from the control steps of all processes and those of one.
    """
    episode_steps = configs.from_dict(TaskCfg, config["task"], "task").phase_steps[-1]
    count = round(steps[-1] / (len(steps) * config["num_envs"] * episode_steps))
    return [f"{count} processes"] if count > 1 else []


def _portable(config: dict[str, Any]) -> dict[str, Any]:
    """Return the configuration without the folders of one machine."""
    return config | {key: Path(config[key]).name for key in PATHS if Path(config.get(key, "")).is_absolute()}


def _portable_manifest(facts: dict[str, Any]) -> dict[str, Any]:
    """Return a manifest without the folders of one machine."""
    words = [word.rpartition("=") for word in facts.get("command", [])]
    command = [key + sign + (Path(value).name if Path(value).is_absolute() else value) for key, sign, value in words]
    inputs = {key: item | {"value": Path(item["value"]).name} for key, item in facts.get("inputs", {}).items()}
    return facts | {"config": _portable(facts["config"]), "command": command} | ({"inputs": inputs} if inputs else {})


def _differences(config: dict[str, Any]) -> list[str]:
    """Return `key=value` of all options that differ from the stage's present configuration."""
    now = flat(configs.as_dict(configs.load(TrainCfg, "train", [f"recipe={config['stage']}"])))
    then = flat(config)
    changed = [key for key in then if key not in UNLISTED and then[key] != now.get(key)]
    domain = "task.randomization."
    if domain + "name" in changed:  # the name of the option says enough
        changed = [key for key in changed if not key.startswith(domain) or key == domain + "name"]
    return [f"{key}={then[key]}" for key in changed]


def _starts(elapsed_s: list[float]) -> list[float]:
    """Return the seconds of each start of a run, from a time column that restarts with every start."""
    return [now for now, then in zip(elapsed_s, [*elapsed_s[1:], -1.0], strict=True) if then < now]


def _result(run: Path) -> dict[str, Any]:
    """Return an evaluation's result.json, and the first attempts of its diagnostics.json."""
    result, notes = (read_json_object(run / f"{name}.json") for name in ("result", "diagnostics"))
    with reading(run, "run directory of an evaluation"):
        config = configs.upgrade(EvaluateCfg, result["config"], str(run / "result.json"))
        whole = result | {"config": config, "at_first_attempt": notes["at_first_attempt"]}
        whole |= {"start_noise": start_noise(config)}
        _rows(whole)  # every value of the card is there
        return whole


def _rows(result: dict[str, Any]) -> list[str]:
    config, rows = result["config"], []
    for disturbance, summary in result["per_disturbance"].items():
        low, high = (100 * end for end in summary["wilson95"])
        task = config["task"]
        errors = ", errors of a D435" if task["camera"].get("disparity_sd_px") else ""
        rows.append(
            f"| {Path(config['objects']).name} | {config['mount']} | {config['physics']['name']} "
            f"| {task['randomization']['name']} "
            f"| {task['camera']['mode']} | {task['camera']['model']}{errors} | {disturbance} | {summary['trials']} "
            f"| {percent(result['at_first_attempt'][disturbance], summary['trials'])} "
            f"| {100 * summary['success_rate']:.1f} % ({low:.1f} – {high:.1f}) |"
        )
    return rows
