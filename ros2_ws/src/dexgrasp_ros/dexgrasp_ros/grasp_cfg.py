"""Parameters of the grasp node."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from dexgrasp_ros.grasp_types import GraspCfg
from policies.safety import SafetyCfg


@dataclass(frozen=True)
class GraspNodeCfg:
    """What the grasp node is told when it starts."""

    bundle: str
    """Folder of the exported policy."""
    hand: str = "sim_allegro"
    """Description of the hand's driver: a name in config/hands, or the path of a .yaml."""
    arm: str = "sim_ur5e"
    """Description of the arm's driver: a name in config/arms, or the path of a .yaml."""
    robot: Literal["sim", "real"] = "sim"
    """On a real robot no policy runs before the wave test of its hand."""
    dry_run: bool = False
    """Commands go to topics below /preview alone, and the node believes that they are followed."""
    shadow: bool = False
    """Somebody else moves the robot; the policy runs beside, commands go below /preview, differences to diagnostics."""
    autostart: bool = True
    """Configure and activate without a lifecycle manager."""
    settle_s: float = 1.0
    """Autostart waits so long before it activates, to hear an emergency stop that was pressed before."""
    clock_timeout_s: float = 0.25
    """Simulated time that stands still so long is a fault: no tick comes, whoever made it is gone."""
    palm_source: Literal["arm", "topic"] = "arm"
    """Where the palm is: from the arm's joint states and its kinematics, or from `palm_topic`."""
    palm_topic: str = "/palm_pose"
    """PoseStamped of the palm in `base_frame`, if it is not computed here."""
    base_frame: str = "world"
    """Frame of points and poses: z up, the table at z = 0."""
    points_topic: str = "/perception/points"
    """PointCloud2 of the object."""
    plan_topic: str = "/perception/plan"
    """Float64MultiArray with the fields of a plan."""
    estop_topic: str = "/estop"
    """Bool, latched or not; true stops."""
    arm_speed: float = 0.4
    """Joint speed of the arm, as a share of its limits."""
    require_wave_test: bool = True
    """On a real robot: refuse to start without a recorded wave test of this description of the hand."""
    wave_test: Path | None = None
    """Record of the wave test; nothing: where the wave test writes it."""
    grasp: GraspCfg = field(default_factory=GraspCfg)
    """Of the sequence."""
    safety: SafetyCfg = field(default_factory=SafetyCfg)
    """Limits of every command."""

    def __post_init__(self) -> None:
        if not 0 <= self.settle_s <= 60:
            raise ValueError(f"settle_s lies within 0 and 60, got {self.settle_s}")
        if not 0.1 <= self.clock_timeout_s <= 60:
            raise ValueError(f"clock_timeout_s lies within 0.1 and 60, got {self.clock_timeout_s}")
        if not 0 < self.arm_speed <= 1:
            raise ValueError(f"arm_speed is a share of the limits, within 0 and 1, got {self.arm_speed}")

    @property
    def preview(self) -> bool:
        """Nobody acts on the commands."""
        return self.dry_run or self.shadow
