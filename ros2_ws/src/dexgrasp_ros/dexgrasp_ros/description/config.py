"""Parameters of the description node."""

from dataclasses import dataclass
from typing import Annotated

from dexgrasp.utils.bounds import Bounds, bounded

CAMERA_FRAME = "camera_depth_optical_frame"
"""Optical frame of the depth images of the simulated robot, and of a RealSense camera with the name `camera`."""


@dataclass(frozen=True)
@bounded
class DescriptionCfg:
    """Parameters of the description node."""

    hand: str = "sim_allegro"
    """Driver of the hand: a name in config/hands or the path of a .yaml; its joint states are read."""
    arm: str = "sim_ur5e"
    """Driver of the arm; one without known kinematics: the palm pose is read from palm_topic."""
    hand_model: str = ""
    """Hand: a name in assets/hands or a folder with hand.yaml; empty: the one that the driver names."""
    side: str = "right"
    """Side of the hand."""
    urdf_file: str = ""
    """URDF to publish instead of the generated one, with the same names of links and joints."""
    tf_prefix: str = ""
    """Begins the name of every frame and joint; with two robots in one graph each needs its own."""
    base_frame: str = "world"
    """Frame of points and poses: z up, the table at z = 0."""
    camera_file: str = ""
    """Camera pose file from `dexgrasp calibrate camera`; empty: no frame of the camera."""
    camera_frame: str = CAMERA_FRAME
    """Optical frame of the depth images, without prefix."""
    rate_hz: Annotated[float, Bounds(0.1, 200)] = 30.0
    """Largest rate of the frames that move [Hz]."""
    marker_rate_hz: Annotated[float, Bounds(0.1, 60)] = 5.0
    """Rate of the markers while somebody reads them [Hz]."""
    plan_topic: str = "perception/plan"
    """Topic of the pre-grasp plan, Float64MultiArray."""
    points_topic: str = "perception/points"
    """Topic of the object points, PointCloud2."""
    palm_topic: str = "grasp/palm"
    """Topic of the palm pose in the base frame, PoseStamped; read where the arm's kinematics are not known."""
    box_lower_m: Annotated[tuple[float, float, float], Bounds(-10, 10)] = (-0.5, -0.5, 0.06)
    """Least x, y, z of the workspace that is drawn; as safety.box_lower_m of the grasp node."""
    box_upper_m: Annotated[tuple[float, float, float], Bounds(-10, 10)] = (0.5, 0.5, 0.8)
    """Greatest x, y, z of the workspace that is drawn."""
