"""Renders the video of a closed-loop grasp from joint states and the true pose of the object."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dexgrasp.sim.rendering.overlay import Overlay
from dexgrasp.sim.rendering.video import VideoRecorder
from dexgrasp_ros.simulation.sim_robot import SimRobot, SimRobotCfg

RATE_HZ = 25.0
"""Frames per second of simulated time."""


@dataclass(frozen=True)
class VideoFrameState:
    """State of robot and object in one video frame."""

    stamp_s: float
    joint_pos: Mapping[str, float]
    """Joint positions by name [rad]."""
    object_pos_w: NDArray[np.float64]
    """(3,) world frame [m]."""
    object_quat_w: NDArray[np.float64]
    """(4,) wxyz."""
    caption: str


def write_video(path: Path, frames: Sequence[VideoFrameState], cfg: SimRobotCfg) -> None:
    """Render frames of a simulated robot with its object as an MP4 in real time.

    Raises `dexgrasp.sim.rendering.offscreen.RenderUnavailable`.
    """
    robot = SimRobot(replace(cfg, camera_rate_hz=0.0))
    shape = robot.library[robot.object]
    start_s = frames[0].stamp_s
    with VideoRecorder(path, RATE_HZ, (shape.vertices, shape.faces)) as recorder:
        for frame in frames:
            model, data = robot.set_pose(frame.joint_pos, frame.object_pos_w, frame.object_quat_w)
            recorder.capture(model, data, Overlay(frame.caption, f"{frame.stamp_s - start_s:.1f} s"))
