"""`dexgrasp viewer`: depth images, perception results and the hand in a browser.

With a camera, a recording or a folder of frames the hand is shown at the planned pre-grasp; `sim` runs a policy on
rendered depth.
"""

import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

import torch

from dexgrasp.perception.cameras.depth import DepthSource
from dexgrasp.perception.cameras.extrinsics import CameraPose
from dexgrasp.perception.cameras.open import open_camera
from dexgrasp.perception.cameras.realsense import RealSenseCfg
from dexgrasp.perception.segmentation.pipeline import SegmentationCfg
from dexgrasp.policies.agents.registry import make_policy
from dexgrasp.policies.evaluation.config import EvaluateCfg, apply_policy_config, make_task
from dexgrasp.policies.viewer.page import Page
from dexgrasp.policies.viewer.players import CameraPlayer, Player, TaskPlayer
from dexgrasp.sim.objects import open_library
from dexgrasp.sim.robots.hand import HandSpec
from dexgrasp.sim.scene import PhysicsCfg
from dexgrasp.sim.task.grasp_task import TaskCfg

IDLE_S = 0.05
"""Interval at which a paused page polls its buttons [s]."""


@dataclass(frozen=True)
class ViewerCfg:
    """Show depth images, perception results, the hand and a policy in a browser."""

    perception: str = "sim"
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
    """Mount of the hand in sim: floating or ur5e."""
    objects: str = "shipped"
    """Object library in sim, as in `evaluate`."""
    disturbance: Literal["none", "shift3", "shift5", "force", "heavy", "slippery"] = "none"
    """Disturbance in sim."""
    seed: int = 0
    """Seed of all random numbers in sim."""
    trial: int = 0
    """First trial in sim; seed, trial and options give the episode of `evaluate task.camera.model=rendered`."""
    host: str = "127.0.0.1"
    """Address of the server: 127.0.0.1 = this machine only, 0.0.0.0 = the network, without a password."""
    port: int = 8080
    """Port of the server; 0 = any free one."""
    frames: int = 0
    """Number of frames before the viewer stops; 0 = until Ctrl-C."""
    rate_hz: float = 0.0
    """Highest frame rate [Hz]; 0 = real time of the camera or the simulation."""
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
        if not 0 <= self.port < 65536:
            raise ValueError(f"port must lie in 0..65535, got {self.port}")
        if min(self.frames, self.rate_hz, self.trial, self.seed) < 0:
            raise ValueError("frames, rate_hz, trial and seed must not be negative")


def run_viewer(cfg: ViewerCfg) -> None:
    """Serve the page until Ctrl-C, or for `frames` frames."""
    torch.set_num_threads(1)
    buttons = TaskPlayer.buttons if cfg.perception == "sim" else CameraPlayer.buttons
    with Page(cfg.host, cfg.port, cfg.segment, buttons) as page:
        world = _open_world(cfg)
        try:
            page.add_robot(world.robot)
            show(world, page, cfg.frames, cfg.rate_hz)
        except KeyboardInterrupt:  # the usual way to stop the viewer
            print("viewer: closed")
        finally:
            world.close()


def show(world: Player, page: Page, frames: int = 0, rate_hz: float = 0.0) -> None:
    """Play `world` on the page; print the address after the first frame."""
    shown, speed, began_s = 0, 1.0, time.monotonic()
    while True:
        snapshot = world.look()
        page.show(snapshot, speed, world.object_mesh())
        if not shown:
            page.stand_beside(snapshot.seen.T_world_cam, snapshot.centre_w())
            print(f"viewer: {page.url}", flush=True)
        shown += 1
        if shown == frames:
            return
        if _pressed(world, page):
            continue
        seen_s = world.advance()
        wait_s = 1 / rate_hz if rate_hz else seen_s
        time.sleep(max(0.0, began_s + wait_s - time.monotonic()))
        now_s = time.monotonic()
        speed, began_s = seen_s / max(now_s - began_s, 1e-6), now_s


def _pressed(world: Player, page: Page) -> bool:
    """Wait while the page is paused; return whether a button changed the present snapshot."""
    while True:
        changed = False
        pressed = page.pressed()
        for button in pressed:
            if button != "step":
                world.press(button)
                changed = True
        if changed or page.playing or "step" in pressed:
            return changed
        time.sleep(IDLE_S)


def _open_world(cfg: ViewerCfg) -> Player:
    """Open the source of snapshots. Raises ValueError or OSError, in one line, if it does not exist."""
    hand = HandSpec.load(cfg.hand, side=cfg.side)
    if cfg.perception == "sim":
        return _open_task(cfg, hand)
    path = Path(cfg.perception)
    if cfg.perception.split(":")[0] != "realsense" and not path.exists():
        raise FileNotFoundError(
            f"perception={cfg.perception}: no such file or folder; known besides: sim, realsense, realsense:SERIAL"
        )
    pose = CameraPose.load(cfg.camera_file) if cfg.camera_file else None

    def open_frames() -> DepthSource:
        return open_camera(cfg.perception, pose, cfg.realsense)

    return CameraPlayer(open_frames, hand, cfg.segment, path.name)


def _open_task(cfg: ViewerCfg, hand: HandSpec) -> TaskPlayer:
    """Return one environment of an evaluation on rendered depth."""
    evaluation = EvaluateCfg(
        policy=cfg.policy,
        objects=cfg.objects,
        hand=cfg.hand,
        side=cfg.side,
        mount=cfg.mount,
        seed=cfg.seed,
        num_threads=1,
        task=replace(cfg.task, camera=replace(cfg.task.camera, model="rendered")),
        physics=cfg.physics,
    )
    evaluation = apply_policy_config(evaluation)
    hand = HandSpec.load(evaluation.hand, side=evaluation.side)
    task = make_task(evaluation, hand, open_library(cfg.objects), cfg.disturbance, rows=1)
    return TaskPlayer(task, make_policy(cfg.policy, task), cfg.segment, cfg.trial)
