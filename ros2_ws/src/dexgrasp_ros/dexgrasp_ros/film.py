"""A video of a grasp, drawn from what the simulated robot said over ROS: joint states and the object's true pose."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dexgrasp_ros.sim_robot import SimRobot, SimRobotCfg
from sim.render import Recorder

RATE_HZ = 25.0
"""Pictures per second of simulated time."""


@dataclass(frozen=True)
class VideoFrameState:
    """What was known at one time."""

    stamp_s: float
    joint_pos: Mapping[str, float]
    """By name [rad]."""
    object_pos_w: NDArray[np.float64]
    """(3,) [m]."""
    object_quat_w: NDArray[np.float64]
    """(4,) wxyz."""
    caption: str


def film(path: Path, moments: Sequence[VideoFrameState], thing: str) -> None:
    """Draw the moments as an MP4 in real time. Raises sim.render.RenderUnavailable without OpenGL."""
    robot = SimRobot(SimRobotCfg(object=thing, camera_rate_hz=0.0))
    model = robot.library[robot.object]
    start_s = moments[0].stamp_s
    with Recorder(path, RATE_HZ, (model.vertices, model.faces)) as recorder:
        for moment in moments:
            scene = robot.show(moment.joint_pos, moment.object_pos_w, moment.object_quat_w)
            recorder.capture(*scene, f"{moment.caption}  ·  {moment.stamp_s - start_s:.1f} s")
