"""Where a replay finds what in a bag, and what counts as the same."""

from dataclasses import dataclass


@dataclass(frozen=True)
class ReplayTopicsCfg:
    """Names of topics in the bag."""

    depth: str = "/camera/camera/depth/image_rect_raw"
    """Depth images."""
    camera_info: str = "/camera/camera/depth/camera_info"
    """Their intrinsics."""
    points: str = "/perception/points"
    """What perception published."""
    plan: str = "/perception/plan"
    """Its plans."""
    state: str = "/grasp/state"
    """States of the grasp node."""
    palm: str = "/grasp/palm"
    """Where the palm was at each of its ticks."""
    estop: str = "/estop"
    """The emergency stop."""


@dataclass(frozen=True)
class ReplayToleranceCfg:
    """What counts as the same. Readings may have come to a node and to the recorder in another order."""

    points_m: float = 0.01
    """Largest distance of a point from the nearest of the other cloud."""
    fraction: float = 0.05
    """Of visible_fraction."""
    plan_m: float = 0.002
    """Of the palm in a plan, and of its lengths."""
    plan_rad: float = 0.02
    """Of its orientation and joints."""
    joints_rad: float = 0.03
    """Of joint commands to hand and arm."""
