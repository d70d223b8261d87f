"""`dexgrasp benchmark SET DIR`: measure a policy on a public object set; prints one row of JSON.

RUN/objects/SCALE       the library made from the meshes
RUN/SCALE-DISTURBANCE   one evaluation each, a run directory of its own
RUN/row.json            the row

The same command resumes an interrupted run; one whose policy, meshes, code or options have changed is refused.
"""

import contextlib
import hashlib
import json
import logging
import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from dexgrasp import configs
from dexgrasp.policies.evaluation.config import EvaluateCfg, apply_policy_config
from dexgrasp.policies.evaluation.evaluate import evaluate
from dexgrasp.policies.evaluation.statistics import success_summary
from dexgrasp.policies.input_identity import InputFile, hand_sha256, policy_sha256
from dexgrasp.policies.public_benchmark.object_sets import (
    PHYSICS,
    PROTOCOL,
    ObjectSet,
    find_set,
    meshes_sha256,
    spread,
)
from dexgrasp.policies.public_benchmark.rows import part_name, parts, to_line
from dexgrasp.policies.run_directory import Run, flat, git_state, read_facts
from dexgrasp.sim.objects.import_settings import ImportSettings
from dexgrasp.sim.objects.importer import ImportReport, import_meshes
from dexgrasp.utils.bounds import NumEnvs, Threads, bounded
from dexgrasp.utils.files import expand_user, write_text
from dexgrasp.utils.process_pool import available_cores

NO_CONDITION = ("objects", "disturbance", "trials", "out", "num_envs", "num_threads", "cluster", "videos")
"""Options of a part that differ between parts or change no outcome: the configuration's hash leaves them out."""

log = logging.getLogger("dexgrasp")


@dataclass(frozen=True)
@bounded
class PublicBenchmarkCfg:
    """Measure a policy on a public object set, by a protocol that is fixed; prints one row of JSON."""

    benchmark: str = ""
    """Object set: random_urdfs, dexgraspnet75, ycb or contactdb."""
    folder: str = ""
    """Folder with the meshes of the set."""
    policy: str = "synergy"
    """synergy (the scripted grasp), or a trained policy: a run, a checkpoint, a bundle, HAND/STAGE."""
    hand: str = "allegro"
    """Hand of the scripted grasp by name or path; a trained policy brings its own."""
    mount: str = "floating"
    """Mount of the hand: floating, or an arm, as of `evaluate`."""
    quick: bool = False
    """Run 24 objects with one trial each on physics=balanced, undisturbed and shifted: a try, not a result."""
    out: str = ""
    """Run directory; empty = a new one under runs/."""
    num_envs: NumEnvs = 64
    """Number of parallel trials."""
    num_threads: Threads = 0
    """Threads of the physics; 0 = all cores; with cluster, of each worker, 0 = one."""
    cluster: str = ""
    """Run the trials with Ray, as of `evaluate`: auto, local, or host:port."""


def benchmark(cfg: PublicBenchmarkCfg) -> None:
    """Run or resume the benchmark; print its row."""
    chosen = find_set(cfg.benchmark)
    meshes = chosen.meshes(cfg.folder)
    used = spread(meshes, chosen.count(True)) if cfg.quick else meshes
    base = _evaluation(cfg)
    inputs = {
        "policy": InputFile(cfg.policy, policy_sha256(cfg.policy)),
        "hand": InputFile(base.hand, hand_sha256(base.hand)),
        "folder": InputFile(cfg.folder, meshes_sha256(cfg.folder, meshes)),
    }
    with Run.claim(cfg.out, PublicBenchmarkCfg, resumes=True) as run:
        begun = read_facts(run.path)
        _refuse_other_code(run.path, begun)
        run.record(cfg, inputs=inputs, may_differ=("out", "num_envs", "num_threads", "cluster") if begun else None)
        results = []
        with contextlib.redirect_stdout(sys.stderr):  # the row alone goes to the standard output
            libraries = {scale: run.path / "objects" / f"{scale:g}" for scale in chosen.measured_scales(cfg.quick)}
            reports = {scale: _import(chosen, cfg.folder, used, out, scale) for scale, out in libraries.items()}
            for scale, disturbance in parts(chosen, cfg.quick):
                library, report = libraries[scale], reports[scale]
                count = len(report.library) * chosen.protocol(cfg.quick)["trials_per_object"]
                out = str(run.path / part_name(scale, disturbance))
                part = replace(base, objects=str(library), disturbance=disturbance, trials=count, out=out)
                result = evaluate(part)
                results.append({"scale": scale, "disturbance": disturbance} | _counts(result, Path(out)))
        report = reports[chosen.measured_scales(cfg.quick)[-1]]
        row = {
            "benchmark": cfg.benchmark,
            "quick": cfg.quick,
            "policy": cfg.policy,
            "hand": base.hand,
            "mount": cfg.mount,
            "attempts": base.attempts,
            "objects": len(report.library),
            "refused": len(used) - len(report.library),
            "results": results,
            "protocol_sha256": chosen.protocol_sha256(cfg.quick),
            "policy_sha256": inputs["policy"].sha256,
            "objects_sha256": inputs["folder"].sha256,
            "configuration_sha256": _configuration_sha256(base),
            **_code(run.facts),
        }
        write_text(run.file("row.json"), to_line(row) + "\n")
        print(to_line(row))


def _evaluation(cfg: PublicBenchmarkCfg) -> EvaluateCfg:
    """Return the configuration that all parts share, with what the policy prescribes."""
    words = [*PROTOCOL, f"physics={PHYSICS[cfg.quick]}"]
    shared = replace(
        configs.load(EvaluateCfg, "evaluate", words),
        policy=cfg.policy,
        hand=cfg.hand,
        mount=cfg.mount,
        num_envs=cfg.num_envs,
        num_threads=cfg.num_threads,
        cluster=cfg.cluster,
    )
    return apply_policy_config(shared)


def _import(chosen: ObjectSet, folder: str, meshes: Mapping[str, Path], out: Path, scale: float) -> ImportReport:
    """Import the meshes at one scale; what was imported before is reused."""
    settings = ImportSettings(
        scale=scale,
        mass_min=chosen.mass_kg[0],
        mass_max=chosen.mass_kg[1],
        decomposition=chosen.decomposition,
        include=tuple(path.as_posix() for path in meshes.values()),
    )
    return import_meshes(expand_user(folder), out, settings, available_cores(), one_per_thing=False)


def _counts(result: Mapping[str, Any], out: Path) -> dict[str, Any]:
    """Return first attempts and successes of one part."""
    notes = json.loads((out / "diagnostics.json").read_text("utf-8"))
    first = sum(notes["at_first_attempt"].values())
    return {
        "first_attempt": success_summary(first, result["trials"]),
        "success": success_summary(result["successes"], result["trials"]),
    }


def _configuration_sha256(cfg: EvaluateCfg) -> str:
    """Return the SHA-256 of the options of the evaluations that decide their numbers."""
    options = {key: value for key, value in flat(configs.as_dict(cfg)).items() if key not in NO_CONDITION}
    return hashlib.sha256(json.dumps(options, sort_keys=True).encode()).hexdigest()


def _code(facts: Mapping[str, Any]) -> dict[str, Any]:
    """Return version and commit of the code."""
    git = facts["git"] or {"hash": "", "dirty": False}
    version = facts["versions"].get("dexgrasp") or "unknown"
    return {"version": version, "commit": git["hash"], "local_changes": git["dirty"]}


def _refuse_other_code(path: Path, begun: Mapping[str, Any]) -> None:
    """Raise ValueError where a run was begun by another commit: its row would mix two versions."""
    before, now = begun.get("git") if begun else None, git_state()
    if begun and before != now:
        then, at_present = (
            "no checkout" if one is None else one["hash"][:12] + (" with local changes" if one["dirty"] else "")
            for one in (before, now)
        )
        raise ValueError(
            f"{path} was begun by other code (commit {then} then, {at_present} now): choose another out=, or give "
            "force=true, which moves the old run aside and starts anew"
        )
