"""Parameters of the grasp node."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

from dexgrasp.policies.deploy.safety_gate import SafetyCfg
from dexgrasp.utils.bounds import Bounds, bounded
from dexgrasp_ros.approach.moveit_planner import PlannerCfg
from dexgrasp_ros.grasping.types import GraspCfg


@dataclass(frozen=True)
@bounded
class GraspNodeCfg:
    """Parameters of the grasp node."""

    bundle: str
    """Folder of the exported policy."""
    public_key: str = ""
    """Public Ed25519 key (PEM file) whose owner must have signed the bundle; empty: signatures are not checked."""
    hand_file: str = ""
    """hand.yaml whose limits the bundle must keep to; a real robot needs it for a hand that is not in assets/hands."""
    hand: str = "sim_allegro"
    """Driver of the hand: a name in config/hands or the path of a .yaml."""
    arm: str = "sim_ur5e"
    """Driver of the arm: a name in config/arms or the path of a .yaml."""
    robot: Literal["sim", "real"] = "sim"
    """Kind of robot; on a real one the policy needs a recorded joint test of the hand."""
    dry_run: bool = False
    """Publish commands below /preview only and assume that the robot follows them."""
    shadow: bool = False
    """Run the policy beside another controller: commands go below /preview, differences to /diagnostics."""
    autostart: bool = True
    """Configure and activate without a lifecycle manager."""
    settle_s: Annotated[float, Bounds(0, 60)] = 1.0
    """Delay of the autostart, in which an emergency stop pressed earlier is received [s]."""
    clock_timeout_s: Annotated[float, Bounds(0.1, 60)] = 0.25
    """Simulated time that does not advance for this long is a fault: its publisher is gone [s]."""
    palm_pose_source: Literal["arm", "topic"] = "arm"
    """Source of the palm pose: joint states and kinematics of the arm, or `palm_topic`."""
    palm_topic: str = "palm_pose"
    """Topic of the palm pose in `base_frame`, PoseStamped; read with palm_pose_source=topic."""
    base_frame: str = "world"
    """Frame of points and poses: z up, the table at z = 0."""
    points_topic: str = "perception/points"
    """Topic of the object points, PointCloud2."""
    plan_topic: str = "perception/plan"
    """Topic of the pre-grasp plan, Float64MultiArray."""
    begin_service: str = "perception/begin"
    """Service of perception that confirms a plan before a grasp begins on it."""
    estop_topic: str = "/estop"
    """Topic of the emergency stop, Bool; one true stops until reset_fault, from any publisher, latched or not."""
    require_estop: bool = True
    """On a real robot: refuse to activate without a publisher of the emergency stop; one that leaves is a fault."""
    estop_timeout_s: Annotated[float, Bounds(0, 60)] = 0.0
    """A publisher of the emergency stop that is silent for longer is a fault; 0 = no heartbeat is demanded [s]."""
    arm_speed: Annotated[float, Bounds(0.001, 1)] = 0.4
    """Joint speed of the arm, as a fraction of its limits."""
    speed_scale: Annotated[float, Bounds(0.05, 1)] = 1.0
    """Fraction of the speeds of scripted motions and of the safety gate; may be lowered while the node is active."""
    require_wave_test: bool = True
    """On a real robot: refuse to start without a recorded joint test of the hand with this driver."""
    wave_test: Path | None = None
    """Record of the joint test; empty: the default place of joint_test_node."""
    approach: Literal["scripted", "moveit"] = "scripted"
    """Way to the pre-grasp: straight lines over `grasp.motion.transit_height_m`, or the path of a motion planner."""
    planner: PlannerCfg = field(default_factory=PlannerCfg)
    """Settings of the motion planner."""
    grasp: GraspCfg = field(default_factory=GraspCfg)
    """Settings of the grasp sequence."""
    safety: SafetyCfg = field(default_factory=SafetyCfg)
    """Limits of the safety gate, applied to every command."""

    @property
    def preview(self) -> bool:
        """Whether commands are published below /preview only."""
        return self.dry_run or self.shadow

    @property
    def moves_real_robot(self) -> bool:
        """Whether commands go to the drivers of a real robot."""
        return self.robot == "real" and not self.preview
