"""`dexgrasp view`: what the camera sees, what the pipeline makes of it, and the hand, in a browser.

A camera, a recording or a folder of frames shows where the hand would be sent; `sim` plays a policy on depth that
MuJoCo draws.
"""

import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import torch

from perception.depth import DepthSource
from perception.extrinsics import CameraPose
from perception.realsense import RealSenseCfg
from perception.segment import SegmentCfg
from perception.sources import open_source
from policies.evaluate_cfg import EvaluateCfg, apply_policy_config, make_task
from policies.synergy import make_policy
from policies.viewer_page import Page
from policies.viewer_worlds import FrameWorld, TaskWorld, World
from sim.hands import HandSpec
from sim.objects import open_library
from sim.scene import PhysicsCfg
from sim.task_cfg import TaskCfg

IDLE_S = 0.05
"""How often a page that stands still asks whether something was pressed."""


@dataclass(frozen=True)
class ViewPageCfg:
    """What to look at, and where the page is served."""

    perception: str = "sim"
    """sim, realsense, realsense:SERIAL, a recording (.db3, .bag), or a folder of depth images with camera.json."""
    camera: str = ""
    """Pose of the camera, the YAML that `dexgrasp calibrate camera` writes; empty = the folder's own, or none."""
    policy: str = "synergy"
    """What acts in sim, as in `evaluate`."""
    hand: str = "allegro"
    """Hand by name (a folder of assets/hands) or path."""
    side: Literal["right", "left"] = "right"
    """Which hand; left ones are mirrored."""
    mount: str = "floating"
    """What carries the hand in sim: floating or ur5e."""
    objects: str = "shipped"
    """Object library in sim, as in `evaluate`."""
    disturbance: Literal["none", "shift3", "shift5", "force", "heavy", "slippery"] = "none"
    """What goes wrong on purpose in sim."""
    seed: int = 0
    """Seed of all chance in sim."""
    trial: int = 0
    """The trial that sim begins with; with the same seed and options it is that of `evaluate perception=rendered`."""
    host: str = "127.0.0.1"
    """Address to serve on: 127.0.0.1 = for this machine, 0.0.0.0 = for the network, without a password."""
    port: int = 8080
    """Port to serve on; 0 = any free one."""
    frames: int = 0
    """Stop after so many frames; 0 = on Ctrl-C."""
    rate_hz: float = 0.0
    """Frames per second at most; 0 = real time, as the camera delivered them or the simulated hand moves."""
    segment: SegmentCfg = field(default_factory=SegmentCfg)
    """The pipeline of what is shown."""
    realsense: RealSenseCfg = field(default_factory=RealSenseCfg)
    """How a RealSense camera is run."""
    task: TaskCfg = field(default_factory=TaskCfg)
    """The task in sim."""
    physics: PhysicsCfg = field(default_factory=PhysicsCfg)
    """Physics in sim."""

    def __post_init__(self) -> None:
        if not 0 <= self.port < 65536:
            raise ValueError(f"port must lie in 0..65535, got {self.port}")
        if min(self.frames, self.rate_hz, self.trial, self.seed) < 0:
            raise ValueError("frames, rate_hz, trial and seed must not be negative")


def view(cfg: ViewPageCfg) -> None:
    """Serve the page until Ctrl-C, or for so many frames."""
    torch.set_num_threads(1)
    buttons = TaskWorld.buttons if cfg.perception == "sim" else FrameWorld.buttons
    with Page(cfg.host, cfg.port, cfg.segment, buttons) as page:
        world = _open_world(cfg)
        try:
            page.add_robot(world.robot)
            show(world, page, cfg.frames, cfg.rate_hz)
        except KeyboardInterrupt:  # the usual way to leave
            print("viewer: closed")
        finally:
            world.close()


def show(world: World, page: Page, frames: int = 0, rate_hz: float = 0.0) -> None:
    """Play the world on the page; the address is printed when there is something to see."""
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


def _pressed(world: World, page: Page) -> bool:
    """Wait while the page stands still; whether something was pressed that changed the present moment."""
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


def _open_world(cfg: ViewPageCfg) -> World:
    """Raises ValueError or OSError, in one line, where there is nothing to look at."""
    hand = HandSpec.load(cfg.hand, side=cfg.side)
    if cfg.perception == "sim":
        return _open_task(cfg, hand)
    path = Path(cfg.perception)
    if cfg.perception.split(":")[0] != "realsense" and not path.exists():
        raise FileNotFoundError(
            f"perception={cfg.perception}: no such file or folder; known besides: sim, realsense, realsense:SERIAL"
        )
    pose = CameraPose.load(cfg.camera) if cfg.camera else None

    def open_frames() -> DepthSource:
        return open_source(cfg.perception, pose, cfg.realsense)

    return FrameWorld(open_frames, hand, cfg.segment, path.name)


def _open_task(cfg: ViewPageCfg, hand: HandSpec) -> TaskWorld:
    """One environment of an evaluation on drawn depth."""
    evaluation = EvaluateCfg(
        policy=cfg.policy,
        objects=cfg.objects,
        hand=cfg.hand,
        side=cfg.side,
        mount=cfg.mount,
        perception="rendered",
        seed=cfg.seed,
        num_threads=1,
        task=cfg.task,
        physics=cfg.physics,
    )
    evaluation = apply_policy_config(evaluation)
    hand = HandSpec.load(evaluation.hand, side=evaluation.side)
    task = make_task(evaluation, hand, open_library(cfg.objects), cfg.disturbance, rows=1)
    return TaskWorld(task, make_policy(cfg.policy, task), cfg.segment, cfg.trial)
