"""`dexgrasp bench tracking`: error of the tracked points, and detection of lost tracking.

While the scripted grasp runs, the tracked points are compared with their true positions on the object and with the
object's true surface. The second error matters to a policy: it does not count rotation about an axis of symmetry.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from dexgrasp.perception.transforms import quat_rotate, quat_rotate_inverse
from dexgrasp.policies.agents.registry import make_policy
from dexgrasp.policies.evaluation.statistics import percentile, wilson_interval
from dexgrasp.sim.objects import ObjectLibrary
from dexgrasp.sim.randomization.episode_draws import ResetCfg
from dexgrasp.sim.robots.hand import HandSpec
from dexgrasp.sim.scene import PhysicsCfg
from dexgrasp.sim.task.grasp_task import GraspTask, TaskCfg
from dexgrasp.utils.progress import Progress
from dexgrasp.utils.text import print_table

OFF_M = 0.015
"""Mean distance of tracked points from the true surface above which tracking counts as lost [m]."""
CAMERAS = ("overhead", "side")


@dataclass(frozen=True)
class Track:
    """Tracking errors of one episode of every row; first dimension: step."""

    place_m: Tensor
    """(step, env) mean distance of the tracked points from their true positions on the object."""
    surface_m: Tensor
    """(step, env) mean distance of the tracked points from the object's surface."""
    visible_fraction: Tensor
    """(step, env) number of visible points as a fraction of the first frame's."""
    seen: Tensor
    """(step, env) bool: the last frame had enough points."""
    declared: Tensor
    """(step, env) bool: the tracker reported valid tracking."""


def track(cfg: TaskCfg, hand: HandSpec, library: ObjectLibrary, physics: PhysicsCfg, trials: Sequence[range],
          disturbance: str, seed: int) -> dict[str, Track]:  # fmt: skip
    """Run the trials, block by block, with the camera on the axis of the approach and beside it."""
    found: dict[str, list[Track]] = {camera: [] for camera in CAMERAS}
    with Progress(len(CAMERAS) * sum(map(len, trials)), "bench tracking") as progress:
        for camera in CAMERAS:
            reset: ResetCfg = replace(cfg.reset, camera_placement=camera)
            for block in trials:
                task = GraspTask(replace(cfg, reset=reset), hand, library, physics, len(block), 1, seed,
                                 disturbance=disturbance, in_order=True, auto_reset=False)  # fmt: skip
                found[camera].append(_episodes(task, block))
                progress.advance(len(block))
    return {camera: _joined(parts) for camera, parts in found.items()}


def _episodes(task: GraspTask, trials: range) -> Track:
    obs = task.reset(trials)
    state, view = task.engine.state, task.object_camera
    first_o = quat_rotate_inverse(state.object_quat_w[:, None], view.points_w.double() - state.object_pos_w[:, None])
    surface_o = _surface_o(task)
    policy, rows = make_policy("synergy", task), []
    policy.reset(trials)
    for _ in range(task.episode_steps):
        obs = task.step(policy.act(obs)).obs
        true_w, surface_w = (
            quat_rotate(state.object_quat_w[:, None], points) + state.object_pos_w[:, None]
            for points in (first_o, surface_o)
        )
        tracked_w = view.tracked_w()
        place = (tracked_w - true_w).norm(dim=-1).mean(dim=1)
        few = tracked_w[:, ::4].float()
        surface = torch.cdist(few, surface_w.float()).amin(dim=2).mean(dim=1)
        rows.append(
            {
                "place_m": place,
                "surface_m": surface,
                "visible_fraction": view.visible_fraction.clone(),
                "seen": view.seen.clone(),
                "declared": view.fresh.clone(),
            }
        )
    return Track(**{name: torch.stack([row[name] for row in rows]) for name in Track.__annotations__})


def _surface_o(task: GraspTask) -> Tensor:
    """Return samples of the objects' whole surfaces (env, point, 3), object frame [m]."""
    points = torch.stack([torch.from_numpy(task.library[name].points) for name in task.objects]).double()
    return points * task.draws.size[:, None, None]


def _joined(parts: list[Track]) -> Track:
    return Track(**{name: torch.cat([getattr(part, name) for part in parts], dim=1) for name in Track.__annotations__})


def summarise(track: Track, grasp: int, lift: int) -> dict[str, dict]:
    """Return statistics of each phase: approach and closing (halves of the grasp), lift, hold."""
    spans = {"approach": (0, grasp // 2), "closing": (grasp // 2, grasp), "lift": (grasp, grasp + lift)}
    spans["hold"] = (grasp + lift, len(track.place_m))
    parts = {
        name: {field: getattr(track, field)[a:b] for field in Track.__annotations__} for name, (a, b) in spans.items()
    }
    return {name: _phase(Track(**part)) for name, part in parts.items() if len(part["seen"])}


def _phase(part: Track) -> dict:
    seen, declared, off = part.seen, part.declared, part.surface_m > OFF_M
    ended = seen[-1]
    return {
        "place_mm": _middle_and_end(part.place_m),
        "surface_mm": _middle_and_end(part.surface_m),
        "visible_share": float(part.visible_fraction.mean()),
        "unseen": float((~seen).float().mean()),
        "lost_of_seen": _rate(~declared[seen]),
        "lost_of_seen_at_end": _interval(~declared[-1][ended]),
        "off": _rate(off),
        "declared_right": _rate(~off[declared]),
        "off_declared_lost": _rate(~declared[off]),
    }


def _rate(values: Tensor) -> float | None:
    return float(values.float().mean()) if values.numel() else None


def _interval(values: Tensor) -> tuple[float, float, float] | None:
    """Return the rate and the ends of its 95 % Wilson interval; one value per trial."""
    if not values.numel():
        return None
    return (float(values.float().mean()), *wilson_interval(int(values.sum()), values.numel()))


def _middle_and_end(values_m: Tensor) -> dict[str, float]:
    values = (1e3 * values_m).flatten().tolist()
    return {"median": percentile(values, 50.0), "p95": percentile(values, 95.0)}


def show(result: dict[str, dict[str, dict]], title: str) -> None:
    """Print the table."""
    columns = ["camera, phase", "place", "95 %", "surface", "95 %", "visible", "unseen", "lost", "right", "noticed"]
    table = [columns]
    for camera, phases in result.items():
        for name, row in phases.items():
            lengths = [f"{row[key][k]:.1f} mm" for key in ("place_mm", "surface_mm") for k in ("median", "p95")]
            keys = ("visible_share", "unseen", "lost_of_seen", "declared_right", "off_declared_lost")
            table.append([f"{camera}, {name}", *lengths, *(_percent(row[key]) for key in keys)])
    print_table(table, title)
    print(
        f"unseen: too few points. lost: of the seen, those said to be lost. right: of those said to be on track, not "
        f"over {1e3 * OFF_M:.0f} mm off the surface. noticed: of those that are, said to be lost or unseen"
    )


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{value:.1%}"
