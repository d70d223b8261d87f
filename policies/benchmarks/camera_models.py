"""`dexgrasp bench cameras` and `bench tracking`: errors of the training camera and of tracking.

The training camera is compared with rendered depth, tracked points with the true ones.

Both cameras see the same scenes from the same place. During the scripted grasp the vectors from the hand's keypoints to
the nearest object point are computed for both; their difference is reported. The floor is the difference of two
renderings with independent noise. A vector to a distant object may jump from one side of it to the other, so keypoints
near the object are reported separately.
"""

from dataclasses import dataclass, field, replace
from typing import Annotated, Literal

import torch
from torch import Tensor

from dexgrasp import configs
from dexgrasp.perception.hand_features import nearest_vectors
from dexgrasp.policies.agents.registry import make_policy
from dexgrasp.policies.benchmarks import tracking
from dexgrasp.policies.benchmarks.engine import cpu_engine
from dexgrasp.policies.evaluation.statistics import percentile
from dexgrasp.policies.run_directory import Run
from dexgrasp.sim.objects import ObjectLibrary, open_library
from dexgrasp.sim.robots.hand import HandSpec
from dexgrasp.sim.scene import PhysicsCfg
from dexgrasp.sim.sensors.depth_camera import DepthCamera
from dexgrasp.sim.sensors.object_camera import CameraModel
from dexgrasp.sim.task.grasp_task import GraspTask, TaskCfg
from dexgrasp.utils.bounds import Bounds, NumEnvs, Seed, bounded
from dexgrasp.utils.files import write_json
from dexgrasp.utils.progress import Progress
from dexgrasp.utils.text import print_table

Disturbed = Literal["none", "shift3", "shift5", "force", "heavy", "slippery"]
NEAR_M = 0.05
"""Length of the vector to the object below which a keypoint counts as near [m]."""


@dataclass(frozen=True)
@bounded
class BenchCamerasCfg:
    """Compare the training camera with rendered depth, or tracked points with the true ones.

    task.camera.mode=first_frame: the first frames; latest: frames with the hand in them; tracked and tracked_updated:
    the tracked points.
    """

    objects: str = "shipped"
    """Object library, as in `evaluate`."""
    hand: str = "allegro"
    """Hand by name (a folder of assets/hands) or path."""
    trials: Annotated[int, Bounds(0, 1_000_000)] = 0
    """Number of scenes; trial i uses object i modulo their number. 0: one of each object."""
    flaws: bool = True
    """Whether the rendered images have the errors of a D435."""
    num_envs: NumEnvs = 36
    """Number of parallel scenes."""
    every_steps: Annotated[int, Bounds(1, 10_000)] = 6
    """Control steps between comparisons in the grasp phase; the first one is at its start."""
    disturbance: Disturbed = "none"
    """Disturbance in the comparison with true points."""
    seed: Seed = 0
    """Seed of all random numbers."""
    out: str = ""
    """Run directory; empty = a new one under runs/."""
    task: TaskCfg = field(default_factory=TaskCfg)
    """Task; its camera selects the comparison."""
    plugins: tuple[str, ...] = ()
    """Modules or .py files imported first, comma-separated: they may register rewards and tasks."""


@dataclass(frozen=True)
class Comparison:
    """Vectors of both cameras at identical times."""

    objects: list[str]
    """Object of each sample."""
    gap_m: Tensor
    """(sample, keypoint) length of the difference between both cameras' vectors."""
    length_m: Tensor
    """(sample, keypoint) length of the vector to the rendered points."""
    again_m: Tensor
    """(sample, keypoint) length of the difference between two renderings with independent noise."""
    seen: int
    """Number of requested samples; in the missing ones a camera saw too few points."""


def bench_cameras(cfg: BenchCamerasCfg) -> dict:
    """Compare, print the table, write RUN/bench.json; return its content."""
    torch.set_num_threads(1)
    hand, library = HandSpec.load(cfg.hand), open_library(cfg.objects)
    with Run.open(cfg.out, cfg) as run:
        result = _tracked(cfg, hand, library) if cfg.task.camera.tracks else _compared(cfg, hand, library)
        write_json(run.path / "bench.json", result | {"facts": run.facts})
        print(f"bench: {run.path / 'bench.json'}")
    return result


def _compared(cfg: BenchCamerasCfg, hand: HandSpec, library: ObjectLibrary) -> dict:
    result = summarise(compare(cfg, hand, library), hand.keypoint_names)
    _show(result, cfg)
    return result


def _tracked(cfg: BenchCamerasCfg, hand: HandSpec, library: ObjectLibrary) -> dict:
    task, physics = cfg.task, configs.load_option(PhysicsCfg, "physics", "balanced")
    tracks = tracking.track(task, hand, library, physics, _blocks(cfg, library), cfg.disturbance, cfg.seed)
    result = {camera: tracking.summarise(track, *task.phase_steps[:2]) for camera, track in tracks.items()}
    tracking.show(result, f"camera={task.camera.mode} against the truth, disturbance={cfg.disturbance}")
    return {"tracked": result}


def _blocks(cfg: BenchCamerasCfg, library: ObjectLibrary) -> list[range]:
    total = cfg.trials or len(library)
    return [range(first, min(first + cfg.num_envs, total)) for first in range(0, total, cfg.num_envs)]


def compare(cfg: BenchCamerasCfg, hand: HandSpec, library: ObjectLibrary) -> Comparison:
    """Run the scenes and return the vectors of both cameras."""
    blocks = _blocks(cfg, library)
    physics = configs.load_option(PhysicsCfg, "physics", "balanced")
    parts = []
    with Progress(sum(map(len, blocks)), "bench cameras") as progress:
        for trials in blocks:
            task = GraspTask(
                cfg.task, hand, library, physics, len(trials), 1, cfg.seed, in_order=True, auto_reset=False
            )
            parts.append(_block(cfg, task, trials))
            progress.advance(len(trials))
    return _joined(parts)


def _joined(parts: list[Comparison]) -> Comparison:
    gap, length, again = (torch.cat([getattr(p, name) for p in parts]) for name in ("gap_m", "length_m", "again_m"))
    return Comparison(
        objects=[name for p in parts for name in p.objects],
        gap_m=gap,
        length_m=length,
        again_m=again,
        seen=sum(p.seen for p in parts),
    )


def _block(cfg: BenchCamerasCfg, task: GraspTask, trials: range) -> Comparison:
    """Run one grasp in every row."""
    obs, rows = task.reset(trials), torch.arange(task.num_envs)
    drawn = [DepthCamera(cpu_engine(task).pool, task.engine, cfg.flaws) for _ in range(2)]
    state, objects = task.engine.state, task.objects
    clouds = [task.object_camera.points_w.clone()]
    for number, camera in enumerate(drawn):
        other = replace(task.draws, key=task.draws.key + number)  # independent noise for each rendering
        camera.look_at(rows, torch.nn.functional.pad(state.object_pos_w[:, :2], (0, 1)))
        pose = state.object_pos_w, state.object_quat_w
        clouds.append(camera.observe_first(rows, objects, *pose, task.object_camera.camera_w, other))
    policy = make_policy("synergy", task)
    policy.reset(trials)
    live, parts = cfg.task.camera.live, []
    for step in range(task.grasp_steps):
        if step % cfg.every_steps == 0 and (step or not live):
            enough = torch.ones_like(rows, dtype=torch.bool)
            if live:
                frames = [_frame(task, camera, rows) for camera in (task.object_camera.camera, *drawn)]
                clouds = [points for points, _ in frames]
                enough = torch.stack([count for _, count in frames]).amin(dim=0) >= cfg.task.camera.min_points
            parts.append(_sample(state.keypoints_w.float(), clouds, enough, objects))
        obs = task.step(policy.act(obs)).obs
    return _joined(parts)


def _frame(task: GraspTask, camera: CameraModel, rows: Tensor) -> tuple[Tensor, Tensor]:
    return camera.observe(rows, task.engine.state, task.object_camera.camera_w, task.draws, task.steps_since_reset)[:2]


def _sample(keypoints_w: Tensor, clouds: list[Tensor], enough: Tensor, objects: list[str]) -> Comparison:
    """Return the vectors of one time to the points of the model and of two renderings.

    Only rows in which each camera has `enough` points.
    """
    model, drawn, again = (nearest_vectors(keypoints_w, points_w)[enough] for points_w in clouds)
    names = [name for name, kept in zip(objects, enough.tolist(), strict=True) if kept]
    gap, repeat = (model - drawn).norm(dim=-1), (again - drawn).norm(dim=-1)
    return Comparison(objects=names, gap_m=gap, length_m=drawn.norm(dim=-1), again_m=repeat, seen=len(enough))


def summarise(comparison: Comparison, keypoints: tuple[str, ...]) -> dict:
    """Return median and 95th percentile [mm] per keypoint, of all and near ones; medians per object.

    Near: keypoints near the object.
    """
    gap_mm, near = 1e3 * comparison.gap_m, comparison.length_m < NEAR_M
    objects = sorted(set(comparison.objects))
    of = {name: torch.tensor([other == name for other in comparison.objects]) for name in objects}
    return {
        "keypoints": {name: _spread(gap_mm[:, i]) for i, name in enumerate(keypoints)},
        "all": _spread(gap_mm),
        "near": _spread(gap_mm[near]),
        "drawn_again": _spread(1e3 * comparison.again_m),
        "near_share": float(near.float().mean()),
        "objects": {name: float(gap_mm[rows].median()) for name, rows in of.items()},
        "samples": len(gap_mm),
        "asked_for": comparison.seen,
    }


def _spread(values_mm: Tensor) -> dict[str, float]:
    values = values_mm.flatten().tolist()
    return {"median_mm": percentile(values, 50.0), "p95_mm": percentile(values, 95.0)}


def _show(result: dict, cfg: BenchCamerasCfg) -> None:
    what = "frames" if cfg.task.camera.live else "first views"
    table = [("keypoint", "median", "95 %")]
    near = f"within {1e3 * NEAR_M:.0f} mm ({result['near_share']:.0%})"
    rows = {"all": result["all"], near: result["near"], "drawn twice": result["drawn_again"]}
    for name, row in {**result["keypoints"], **rows}.items():
        table.append((name, f"{row['median_mm']:.1f} mm", f"{row['p95_mm']:.1f} mm"))
    print_table(table, f"{what}, model against drawn depth")
    print(f"{result['samples']} of {result['asked_for']} views show enough of the object to both")
    worst = sorted(result["objects"].items(), key=lambda item: -item[1])[:5]
    print("largest medians: " + ", ".join(f"{name} {median:.1f} mm" for name, median in worst))
