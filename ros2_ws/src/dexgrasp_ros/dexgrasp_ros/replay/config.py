"""Configuration of `dexgrasp replay`: bag, nodes, topics, tolerances."""

from dataclasses import dataclass, field
from typing import Annotated

from dexgrasp.perception.segmentation.pipeline import SegmentationCfg
from dexgrasp.policies.deploy.safety_gate import SafetyCfg
from dexgrasp.utils.bounds import Bounds, Share, bounded
from dexgrasp_ros.grasping.types import GraspCfg


@dataclass(frozen=True)
@bounded
class ReplayTopicsCfg:
    """Names of the topics in the bag."""

    depth: str = "/camera/camera/depth/image_rect_raw"
    """Topic of depth images."""
    camera_info: str = "/camera/camera/depth/camera_info"
    """Topic of the intrinsics of the depth images."""
    points: str = "/perception/points"
    """Topic of the object points."""
    plan: str = "/perception/plan"
    """Topic of the pre-grasp plans."""
    state: str = "/grasp/state"
    """Topic of the state of the grasp node."""
    marks: str = "/perception/marks"
    """Topic of the marks of the perception node, which tell what frames it used; without it they are guessed."""
    palm: str = "/grasp/palm"
    """Topic of the palm pose, published at each tick of the grasp node."""
    grasp_log: str = "/grasp/decisions"
    """Topic of the log of the grasp node."""
    perception_log: str = "/perception/decisions"
    """Topic of the log of perception."""
    estop: str = "/estop"
    """Topic of the emergency stop."""


@dataclass(frozen=True)
@bounded
class ReplayToleranceCfg:
    """Largest accepted differences; node and recorder may have received readings in different orders."""

    points_m: Annotated[float, Bounds(0, 10)] = 0.01
    """Largest distance of a point from the nearest point of the other cloud [m]."""
    fraction: Share = 0.05
    """Largest difference of visible_fraction."""
    plan_m: Annotated[float, Bounds(0, 10)] = 0.002
    """Largest difference of palm position and lengths of a plan [m]."""
    plan_rad: Annotated[float, Bounds(0, 6.3)] = 0.02
    """Largest difference of palm orientation and joints of a plan [rad]."""
    joints_rad: Annotated[float, Bounds(0, 6.3)] = 0.03
    """Largest difference of joint commands to hand and arm [rad]."""


@dataclass(frozen=True)
@bounded
class ReplayCfg:
    """Bag to replay, and the parameters of the recorded nodes."""

    bag: str
    """Folder of the bag."""
    policy: str
    """Exported policy: a shipped name (allegro/student) or a bundle directory."""
    hand: str = "sim_allegro"
    """Driver of the hand: a name in config/hands or the path of a .yaml."""
    arm: str = "sim_ur5e"
    """Driver of the arm; empty: perception had none, and commands of the arm are not compared."""
    hand_body: str = ""
    """File capsules.json of the hand; empty: the one in assets/hands."""
    camera_file: str = ""
    """Camera pose file; empty: the pose of the simulated camera."""
    palm_pose_source: str = "arm"
    """Source of the palm pose in the grasp node: arm or topic."""
    check_reachability: bool = True
    """Whether perception preferred pre-grasps that the arm can reach."""
    preview: bool = False
    """Whether the bag is of a dry run or of shadow mode."""
    shadow: bool = False
    """Whether the bag is of shadow mode."""
    exact: bool = True
    """Whether the logs of decisions in the bag are repeated bit for bit, with the settings in them."""
    perception: bool = True
    """Whether points and plans are compared."""
    compare_policy: bool = True
    """Whether states and commands are compared."""
    segment: SegmentationCfg = field(default_factory=SegmentationCfg)
    """Segmentation settings of the perception node."""
    grasp: GraspCfg = field(default_factory=GraspCfg)
    """Sequence settings of the grasp node."""
    safety: SafetyCfg = field(default_factory=SafetyCfg)
    """Safety limits of the grasp node."""
    topics: ReplayTopicsCfg = field(default_factory=ReplayTopicsCfg)
    """Names of the topics in the bag."""
    tolerance: ReplayToleranceCfg = field(default_factory=ReplayToleranceCfg)
    """Largest accepted differences."""
