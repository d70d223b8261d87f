"""Estimate of the object, exchanged by perception, grasping and message conversions."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dexgrasp.policies.deploy.policy import PregraspPlan


@dataclass(frozen=True, eq=False)
class ObjectEstimate:
    """Points of the object in the world frame, and how well the newest depth frame supports them."""

    points_w: NDArray[np.float32]
    """(point, 3) world frame [m]."""
    visible_fraction: float = 1.0
    """Object pixels in the newest depth frame, divided by those in the first view."""
    view_fresh: bool = True
    """Whether the newest depth frame was used to update the points."""
    stamp_s: float = 0.0
    """Stamp of the newest depth frame [s]."""
    plan: PregraspPlan | None = None
    """Pre-grasp planned from the first view; None during a grasp and where points come from a message."""
    plan_id: int | None = None
    """Number of the plan, unique over restarts of perception; None without a plan."""
