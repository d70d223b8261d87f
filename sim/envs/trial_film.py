"""Film of one trial while it runs: scene, depth image, phase, contacts and outcome."""

import math
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np

from dexgrasp.perception.transforms import quat_rotate
from dexgrasp.sim.envs.depth_inset import DepthInset
from dexgrasp.sim.rendering.overlay import Overlay, Phase
from dexgrasp.sim.rendering.renderer import ARM_BODY
from dexgrasp.sim.rendering.video import VideoRecorder
from dexgrasp.sim.robots.hand import HandSpec
from dexgrasp.sim.task.grasp_task import GraspTask
from dexgrasp.sim.task.outcomes import Outcome

WIDTH = 720
"""Width of a film [pixel]."""
HEIGHT = 480
"""Height of a film of that width [pixel]."""
ANIMATION_HZ = 12.5
"""Largest number of frames per second of a GIF or WebP."""
SIDE_DEG = 55.0
"""Angle of the camera from the direction that the palm faces, about the vertical."""


class TrialFilm:
    """Films the environment `row` of a task in which a known trial is repeated."""

    def __init__(
        self,
        path: Path,
        outcome: Outcome,
        row: int,
        task: GraspTask,
        *,
        width: int = WIDTH,
        speed: float = 1.0,
    ) -> None:
        """`outcome`: of the trial, written over the frames.

        `speed`: relative to real time. GIF and WebP leave control steps out, down to ANIMATION_HZ.
        """
        self._outcome, self._row, self._task = outcome, row, task
        self._every = 1 if path.suffix == ".mp4" else math.ceil(task.cfg.rate_hz * speed / ANIMATION_HZ)
        self._inset = DepthInset(task, row)
        self._fingers = fingers(task.hand)
        model = task.engine.get_model(row)
        self._bodies = [model.body(name).id for name in task.hand.contact_bodies]
        self._recorder = VideoRecorder(
            path,
            task.cfg.rate_hz / self._every,
            mesh=task.object_mesh(row),
            width=width,
            height=round(width * HEIGHT / WIDTH),
            azimuth_deg=side_view_deg(task, row),
            speed=speed,
            scale=1 if width >= WIDTH else 2,
        )

    def capture(self) -> None:
        """Append the present state as a frame, if one is due; nothing after the end of the trial."""
        task, row = self._task, self._row
        step = int(task.steps_since_pregrasp[row])
        if step >= task.episode_steps or int(task.steps_since_reset[row]) % self._every:
            return
        contact = task.engine.state.object_contact[row].tolist()
        touching = [
            body for body, touches in zip(self._bodies[1:], contact[1:], strict=True) if touches
        ]  # all but the palm
        phase_steps = {"approach, grasp": task.grasp_steps, "lift": task.lift_steps}
        phase_steps["hold"] = task.episode_steps - task.grasp_steps - task.lift_steps
        attempts = f"  ·  attempt {int(task.outcome_tracker.attempts[row])}" if self._outcome.attempts > 1 else ""
        self._recorder.capture(
            task.engine.get_model(row),
            task.engine.get_data(row),
            Overlay(
                title=self._outcome.object,
                note=f"trial {self._outcome.trial}{attempts}  ·  {int(task.steps_since_reset[row]) * task.step_s:.1f} s"
                + ("" if self._outcome.disturbance == "none" else f"  ·  {self._outcome.disturbance}"),
                verdict=self._outcome.verdict,
                success=self._outcome.success,
                phase=Phase(
                    lengths_s={name: steps * task.step_s for name, steps in phase_steps.items()},
                    time_s=step * task.step_s,
                    name=task.phases.name(row),
                ),
                contacts={name: any(contact[i] for i in parts) for name, parts in self._fingers.items()},
                inset=self._inset.draw(),
                inset_title="depth, object points",
            ),
            touching,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._recorder.__exit__(kind, error, trace)


def fingers(hand: HandSpec) -> dict[str, list[int]]:
    """Return the contact bodies of each finger, thumb first, palm last.

    {name: indices in hand.contact_bodies}. A finger has the name of its last keypoint, less "_tip"; the palm is
    contact body 0.
    """
    model = hand.to_mjspec().compile()
    found: dict[str, list[int]] = {}
    for site in hand.keypoint_names:
        if not site.endswith("_tip"):
            continue
        chain, body = set(), int(model.site(site).bodyid[0])
        while model.body(body).name not in ("palm", "world"):
            chain.add(model.body(body).name)
            body = int(model.body_parentid[body])
        found[site.removesuffix("_tip")] = [i for i, name in enumerate(hand.contact_bodies) if name in chain]
    thumb = set(np.flatnonzero(hand.thumb_mask))
    return dict(sorted(found.items(), key=lambda item: not thumb & set(item[1]))) | {"palm": [0]}


def side_view_deg(task: GraspTask, row: int) -> float | None:
    """Return the azimuth [degree] of a camera that sees fingers and thumb from the side; None: unknown.

    The hand is at its first pre-grasp. Of the two sides the one is taken that faces away from an arm, or the usual
    camera.
    """
    quat_w = task.engine.state.palm_quat_w[row].cpu().double()
    lateral_w = quat_rotate(quat_w, quat_w.new_tensor([0.0, 1.0, 0.0])).numpy()[:2]
    faces_w = quat_rotate(quat_w, quat_w.new_tensor([1.0, 0.0, 0.0])).numpy()[:2]
    if np.linalg.norm(lateral_w) < 0.1:
        return None
    model, data = task.engine.get_model(row), task.engine.get_data(row)
    names = [model.body(i).name for i in range(model.nbody)]
    preferred_w = np.array([0.7, -0.7])  # where the camera of azimuth 135 degrees stands
    if ARM_BODY in names:
        preferred_w = data.body("palm").xpos[:2] - data.body(ARM_BODY).xpos[:2]
    side_w = lateral_w * np.sign(lateral_w @ preferred_w or 1.0)
    camera_w = np.sin(np.radians(SIDE_DEG)) * side_w + np.cos(np.radians(SIDE_DEG)) * faces_w
    return float(np.degrees(np.arctan2(-camera_w[1], -camera_w[0])))  # from the camera to the hand
