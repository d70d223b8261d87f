"""`dexgrasp viewer`: show a policy in simulation, or perception results of depth images, in a browser.

preset=policy       solid hands and objects, contact forces, rewards and grip over time, several environments
preset=perception   depth image, segmented points, vectors and planned approach: of rendered depth in simulation, or of
                    a camera, a recording or a folder of frames, with the hand at the planned pre-grasp
"""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Annotated, Literal

import torch

from dexgrasp.perception.cameras.depth import DepthSource
from dexgrasp.perception.cameras.extrinsics import CameraPose
from dexgrasp.perception.cameras.open import open_camera
from dexgrasp.perception.cameras.realsense import RealSenseCfg
from dexgrasp.perception.segmentation.pipeline import SegmentationCfg
from dexgrasp.policies.agents.registry import check_policy, make_policy
from dexgrasp.policies.evaluation.config import EvaluateCfg, apply_policy_config, make_task
from dexgrasp.policies.viewer.page import Page
from dexgrasp.policies.viewer.players import CameraPlayer
from dexgrasp.policies.viewer.rollout import MAX_ENVS, Choice, Results, Rollout
from dexgrasp.policies.viewer.sessions import FAILURES, CameraSession, Session, TaskSession
from dexgrasp.sim.objects import ObjectLibrary, open_library
from dexgrasp.sim.robots.hand import HandSpec
from dexgrasp.sim.scene import PhysicsCfg
from dexgrasp.sim.task.grasp_task import TaskCfg
from dexgrasp.utils.bounds import Bounds, Seed, TrialNumber, bounded

IDLE_S = 0.05
"""Interval at which the buttons of the page are polled while nothing moves [s]."""
DRAW_S, DRAW_SHARE = 1 / 30, 0.33
"""Least time between drawings [s], and their largest share of the time while playback is behind the asked speed."""
LAG_S = 0.1
"""Longest delay that playback catches up with; a slower simulation plays below the asked speed [s]."""
MEASURE_S = 1.0
"""Time over which the reached speed is measured [s]."""


@dataclass(frozen=True)
@bounded
class ViewerCfg:
    """Show a policy in simulation, or perception results of depth images, in a browser."""

    preset: Literal["auto", "policy", "perception"] = "auto"
    """policy: solid scene, forces, plots. perception: depth image, pipeline. auto: policy in sim, else perception."""
    source: str = "sim"
    """sim, realsense, realsense:SERIAL, a recording (.db3, .bag), or a folder of depth images with camera.json."""
    camera_file: str = ""
    """Pose of the camera, the YAML that `dexgrasp calibrate camera` writes; empty = the folder's own, or none."""
    policy: str = "synergy"
    """Policy in sim: synergy, zero, random, or a shipped name, run directory, checkpoint or bundle directory."""
    hand: str = "allegro"
    """Hand by name (a folder of assets/hands) or path."""
    side: Literal["right", "left"] = "right"
    """Side of the hand; left hands are mirrored right ones."""
    mount: str = "floating"
    """Mount of the hand: floating, or an arm: ur5e, a folder with arm.yaml, an arm.yaml, an MJCF or a URDF."""
    objects: str = "shipped"
    """Object library in sim, as in `evaluate`."""
    disturbance: Literal["none", "shift3", "shift5", "force", "heavy", "slippery"] = "none"
    """Disturbance in sim."""
    seed: Seed = 0
    """Seed of all random numbers in sim."""
    trial: TrialNumber = 0
    """First trial in sim; seed, trial and options decide the episode, as in `evaluate`."""
    object: str = ""
    """Object of every trial in sim, by name; empty = each trial's own."""
    num_envs: Annotated[int, Bounds(1, MAX_ENVS)] = 1
    """Number of trials side by side in sim, 1 to 16, with preset=policy."""
    speed: Annotated[float, Bounds(0.1, 4)] = 1.0
    """Playback speed in multiples of real time, 0.1 to 4."""
    host: str = "127.0.0.1"
    """Address of the server: 127.0.0.1 = this machine only, 0.0.0.0 = the network, with a token in the address."""
    port: Annotated[int, Bounds(0, 65_535)] = 8080
    """Port of the server; 0 = any free one."""
    frames: Annotated[int, Bounds(0, 1_000_000_000)] = 0
    """Number of frames before the viewer stops; 0 = until Ctrl-C."""
    segment: SegmentationCfg = field(default_factory=SegmentationCfg)
    """Segmentation of the shown frames."""
    realsense: RealSenseCfg = field(default_factory=RealSenseCfg)
    """Settings of a RealSense camera."""
    task: TaskCfg = field(default_factory=TaskCfg)
    """Task in sim."""
    physics: PhysicsCfg = field(default_factory=PhysicsCfg)
    """Physics settings in sim."""
    plugins: tuple[str, ...] = ()
    """Modules or .py files imported first, comma-separated: they may register rewards and tasks."""

    def __post_init__(self) -> None:
        if self.task.scene.is_clutter:
            raise ValueError(
                "the viewer shows single objects: leave task.scene out; `dexgrasp video RUN` shows clutter"
            )


def run_viewer(cfg: ViewerCfg) -> None:
    """Serve the page until Ctrl-C, or for `frames` frames."""
    torch.set_num_threads(1)
    with Page(cfg.host, cfg.port, cfg.speed) as page:
        session = _open_session(cfg, page)
        try:
            if page.warning:
                print(f"viewer: warning: {page.warning}", file=sys.stderr, flush=True)
            play(session, page, cfg.frames)
        except KeyboardInterrupt:  # the usual way to stop the viewer
            print("viewer: closed")
        finally:
            session.close()


def play(session: Session, page: Page, frames: int = 0) -> None:
    """Play a session on the page; print the address after the first frame, stop after `frames` drawn ones."""
    clock, drawn, stale = _Clock(), 0, True
    while True:
        if stale and clock.due_to_draw(page.playing):
            with clock.drawing():
                session.draw(clock.speed)
            stale, drawn = False, drawn + 1
            if drawn == 1:
                print(f"viewer: {page.url}", flush=True)
            if drawn == frames:
                return
        names = _handle_requests(session, page)
        stale |= bool(names)
        if page.playing or "step" in names:
            clock.wait(session.advance(), page.speed, lambda: page.interrupted)
            stale = True
        elif not names:
            clock.rest()


def _handle_requests(session: Session, page: Page) -> list[str]:
    """Carry out the requests of the page; one that fails shows its reason in the panel. Return their names."""
    requests = page.requests()
    for request in requests:
        try:
            session.handle(request)
            if request.name != "redraw":
                page.message("")
        except FAILURES as error:
            page.message(str(error))
    return [request.name for request in requests]


class _Clock:
    """Keeps playback at the asked speed and measures the speed that was reached."""

    def __init__(self) -> None:
        self.speed = 1.0
        """Reached speed in multiples of real time, averaged over about a second."""
        self._due_s = self._measured_s = time.monotonic()
        self._played_s = self._drawn_s = self._pause_s = 0.0
        self._behind = False

    def due_to_draw(self, playing: bool) -> bool:
        """Return whether the last drawing is old enough, or the page stands still."""
        return not playing or time.monotonic() >= self._drawn_s + (self._pause_s if self._behind else DRAW_S)

    @contextmanager
    def drawing(self) -> Iterator[None]:
        """Measure a drawing, which decides when the next one is due."""
        self._drawn_s = time.monotonic()
        yield
        self._pause_s = max(DRAW_S, (time.monotonic() - self._drawn_s) / DRAW_SHARE)

    def wait(self, played_s: float, speed: float, interrupted: Callable[[], bool]) -> None:
        """Wait until `played_s` seconds of the session have passed at `speed` since the last call.

        Returns within IDLE_S once `interrupted` returns true; the rest of the time is left out.
        """
        now_s = time.monotonic()
        self._due_s = max(self._due_s + played_s / speed, now_s - LAG_S)
        self._behind = self._due_s < now_s
        while (left_s := self._due_s - time.monotonic()) > 0:
            if interrupted():
                self._begin()
                return
            time.sleep(min(left_s, IDLE_S))
        self._played_s += played_s
        passed_s = time.monotonic() - self._measured_s
        if passed_s >= MEASURE_S:
            self.speed, self._played_s = self._played_s / passed_s, 0.0
            self._measured_s += passed_s

    def rest(self) -> None:
        """Wait a moment while the page is paused."""
        time.sleep(IDLE_S)
        self._begin()

    def _begin(self) -> None:
        """Play and measure from now on."""
        self._due_s = self._measured_s = time.monotonic()
        self._played_s = 0.0


def _open_session(cfg: ViewerCfg, page: Page) -> Session:
    """Open the source of snapshots. Raises ValueError or OSError, in one line, if it does not exist."""
    if cfg.source == "sim":
        choice = Choice(
            preset="policy" if cfg.preset == "auto" else cfg.preset,
            policy=cfg.policy,
            disturbance=cfg.disturbance,
            num_envs=cfg.num_envs,
            trial=cfg.trial,
            object=cfg.object,
        )
        library = open_library(cfg.objects)
        return TaskSession(page, partial(_build_rollout, cfg, library), choice, cfg.segment)
    if cfg.preset == "policy":
        raise ValueError("preset=policy needs the simulation: leave source out, or take preset=perception")
    path, is_live = Path(cfg.source), cfg.source.split(":")[0] == "realsense"
    if not is_live and not path.exists():
        raise FileNotFoundError(
            f"source={cfg.source}: no such file or folder; known besides: sim, realsense, realsense:SERIAL"
        )
    hand = HandSpec.load(cfg.hand, side=cfg.side)
    pose = CameraPose.load(cfg.camera_file) if cfg.camera_file else None

    def open_frames() -> DepthSource:
        return open_camera(cfg.source, pose, cfg.realsense)

    return CameraSession(page, CameraPlayer(open_frames, hand, cfg.segment, path.name, is_live), cfg.segment)


def _build_rollout(cfg: ViewerCfg, library: ObjectLibrary, choice: Choice, results: Results) -> Rollout:
    """Return the trials of a choice, in the task of an evaluation; preset perception renders depth."""
    check_policy(choice.policy)
    task_cfg = cfg.task
    if choice.preset == "perception":
        task_cfg = replace(task_cfg, camera=replace(task_cfg.camera, model="rendered"))
    evaluation = EvaluateCfg(
        policy=choice.policy,
        objects=cfg.objects,
        hand=cfg.hand,
        side=cfg.side,
        mount=cfg.mount,
        seed=cfg.seed,
        num_threads=1 if choice.num_envs == 1 else 0,
        task=task_cfg,
        physics=cfg.physics,
    )
    evaluation = apply_policy_config(evaluation)
    hand = HandSpec.load(evaluation.hand, side=evaluation.side)
    task = make_task(evaluation, hand, library, choice.disturbance, rows=choice.num_envs)
    return Rollout(task, make_policy(choice.policy, task), choice.policy, results, choice)
