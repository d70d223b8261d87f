"""`dexgrasp benchmark grasps RUN`: write the grasps of an evaluation in the format of DexGraspBench.

OUT/output/dexgrasp_HAND/graspdata/OBJECT/TRIAL.npy   the grasp of each trial that succeeded
OUT/assets/object/dexgrasp/OBJECT/                    its object, in metres

Trials are repeated from the run's configuration. A grasp is the state at the first control step of the hold.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Annotated

import numpy as np
import torch

from dexgrasp.policies.agents.registry import make_policy
from dexgrasp.policies.evaluation.config import make_task
from dexgrasp.policies.evaluation.episodes import play
from dexgrasp.policies.evaluation.stored_run import StoredRun
from dexgrasp.policies.run_directory import Run
from dexgrasp.sim.dexgraspbench.grasp_files import Grasp, write_grasp
from dexgrasp.sim.dexgraspbench.hand_frames import HandFrames
from dexgrasp.sim.dexgraspbench.object_files import write_object
from dexgrasp.sim.objects import ObjectLibrary, open_library
from dexgrasp.sim.robots.hand import HandSpec
from dexgrasp.sim.task.grasp_task import GraspTask
from dexgrasp.utils.bounds import Bounds, bounded
from dexgrasp.utils.files import expand_user
from dexgrasp.utils.plugins import refuse_unnamed
from dexgrasp.utils.progress import Progress
from dexgrasp.utils.text import counted

OPENING = 0.1
"""Opening of the fingers at the pregrasp, in units of the hand's closing direction: about 1 cm at the tips."""


@dataclass(frozen=True)
@bounded
class WriteGraspsCfg:
    """Write the final grasps of an evaluation's successful trials in the format of DexGraspBench."""

    run: str = ""
    """Run directory of an evaluation."""
    hand_model: str = ""
    """MJCF of this hand in DexGraspBench: assets/hand/allegro/right_hand.xml of its repository."""
    most: Annotated[int, Bounds(1, 1_000_000)] = 1000
    """Largest number of grasps."""
    out: str = ""
    """Folder to write; empty = a new one under runs/. Its content can be copied into DexGraspBench's repository."""
    plugins: tuple[str, ...] = ()
    """Modules or .py files imported first, comma-separated; those of the evaluation must be among them."""


def write_grasps(cfg: WriteGraspsCfg) -> None:
    """Repeat successful trials, write their grasps and objects, print where."""
    torch.set_num_threads(1)  # as in the evaluation
    with Run.claim(cfg.out, WriteGraspsCfg) as run:
        stored, model = StoredRun.read(cfg.run), expand_user(cfg.hand_model)
        refuse_unnamed(stored.cfg.plugins, cfg.plugins, str(stored.path))
        hand = HandSpec.load(stored.cfg.hand, side=stored.cfg.side)
        frames = HandFrames.of(hand, model)
        first = stored.cfg.disturbances()[0]
        trials = [one.trial for one in stored.outcomes if one.success and one.disturbance == first][: cfg.most]
        if not trials:
            raise ValueError(f"{stored.path}: no trial with disturbance={first} succeeded: there is no grasp to write")
        run.record(cfg)
        library, rows = open_library(stored.cfg.objects), stored.cfg.num_envs
        folder = f"output/dexgrasp_{model.absolute().parent.name}"
        written = 0
        with Progress(len(trials), "grasps") as progress:
            for start in range(0, len(trials), rows):
                block = trials[start : start + rows]
                for trial, name, grasp in final_grasps(stored, hand, frames, library, block, first):
                    write_object(run.path / grasp.obj_path, library[name])
                    write_grasp(run.file(f"{folder}/graspdata/{name}/{trial:06d}.npy"), grasp)
                    written += 1
                progress.advance(len(block))
        lost = f"; {len(trials) - written} did not succeed again" if written < len(trials) else ""
        print(f"{run.path / folder}: {counted(written, 'grasp')}{lost}")


def final_grasps(
    stored: StoredRun,
    hand: HandSpec,
    frames: HandFrames,
    library: ObjectLibrary,
    trials: Sequence[int],
    disturbance: str,
) -> list[tuple[int, str, Grasp]]:
    """Repeat trials side by side; return trial, object and grasp of those that succeed again."""
    task = make_task(replace(stored.cfg, num_threads=1), hand, library, disturbance, rows=len(trials))
    policy = make_policy(stored.cfg.policy, task)
    found: dict[int, tuple[int, Grasp]] = {}

    def watch() -> None:
        attempts = task.outcome_tracker.attempts.tolist()
        for row in task.outcome_tracker.held.nonzero().squeeze(1).tolist():
            if found.get(row, (0,))[0] != attempts[row]:  # the first held step of its last attempt stays
                found[row] = attempts[row], grasp_of(task, frames, row)

    outcomes = play(task, policy, trials, stored.cfg.attempts, watch)
    return [
        (outcome.trial, outcome.object, found[row][1])
        for row, outcome in enumerate(outcomes)
        if outcome.success and row in found
    ]


def grasp_of(task: GraspTask, frames: HandFrames, row: int) -> Grasp:
    """Return the grasp in which an environment holds its object now.

    Squeeze: the targets at which the servos of DexGraspBench's hand give the present torques. Pregrasp: the fingers
    opened by OPENING, within their limits.
    """
    state, hand = task.engine.state, task.hand
    palm = state.palm_pos_w[row].cpu(), state.palm_quat_w[row].cpu()
    joints, torque = (one[row].cpu().double().numpy() for one in (state.joint_pos, state.joint_torque))
    opened = np.clip(joints - OPENING * hand.power.closing.numpy(), hand.joint_lower, hand.joint_upper)
    return Grasp(
        obj_path=f"assets/object/dexgrasp/{task.objects[row]}",
        obj_scale=float(task.draws.size[row]),
        obj_pose=torch.cat([state.object_pos_w[row], state.object_quat_w[row]]).cpu().double().numpy(),
        pregrasp_qpos=frames.qpos(*palm, opened),
        grasp_qpos=frames.qpos(*palm, joints),
        squeeze_qpos=frames.qpos(*palm, joints + torque / frames.stiffness),
    )
