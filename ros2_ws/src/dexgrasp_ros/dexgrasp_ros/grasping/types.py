"""Settings, inputs and outputs of the grasp state machine."""

from dataclasses import dataclass, field, replace
from typing import Annotated, Any, Protocol, Self

import numpy as np

from dexgrasp.perception.motors import Motors
from dexgrasp.policies.deploy.contract import Contract
from dexgrasp.policies.deploy.policy import Command, Observation, PregraspPlan
from dexgrasp.policies.deploy.safety_gate import SafeCommand
from dexgrasp.utils.bounds import Bounds, bounded
from dexgrasp_ros.approach.planned_path import NOT_PLANNED, PlannedPath
from dexgrasp_ros.grasping.scripted_motions import MotionCfg
from dexgrasp_ros.object_estimate import ObjectEstimate

STATES = ("idle", "pregrasp", "grasp", "lift", "hold", "retreat", "release", "home", "fault")
"""States of the grasp state machine."""
POLICY_STATES = ("grasp", "lift", "hold")
"""States in which the policy runs."""
WAITING_STATES = ("idle", "hold")
"""States in which the robot stands still: it may do so without new commands."""
REQUESTS = ("grasp", "release", "home", "stop", "reset_fault")
"""Requests of the operator, each a service of the grasp node."""


@dataclass(frozen=True)
@bounded
class GraspCfg:
    """Settings of the grasp sequence, without those of policy and safety gate."""

    motion: MotionCfg = field(default_factory=MotionCfg)
    """Speeds and tolerances of scripted motions."""
    timeout_s: Annotated[float, Bounds(0.01, 3600)] = 30.0
    """Time limit of a scripted motion; exceeding it is a fault [s]."""
    retreat_m: Annotated[float, Bounds(0.001, 1)] = 0.12
    """Distance that the palm retreats along its normal after a release [m]."""
    attempts: Annotated[int, Bounds(1, 100)] = 3
    """Maximum number of grasps; a further one starts where the hand is found empty. 1: no regrasp."""
    look_timeout_s: Annotated[float, Bounds(0.01, 3600)] = 5.0
    """Time limit for a new plan after an empty grasp, from the arrival at home; then the grasp is given up [s]."""
    plan_timeout_s: Annotated[float, Bounds(0.01, 3600)] = 1.0
    """Maximum age of a plan at the start of a grasp [s]."""
    blend_s: Annotated[float, Bounds(0, 5)] = 0.0
    """Time over which the first commands of the policy are blended in from the last command before them [s]."""
    late_periods: Annotated[float, Bounds(1.5, 1000)] = 3.0
    """Maximum time between two ticks, in control periods; exceeding it is a fault."""
    follow_m: Annotated[float, Bounds(0.001, 10)] = 0.12
    """Maximum distance of the palm from its target; exceeding it is a fault (a blocked or stopped arm) [m]."""
    follow_rad: Annotated[float, Bounds(0.001, 10)] = 0.6
    """Maximum angle between the palm and its target; exceeding it is a fault [rad]."""
    outside_rad: Annotated[float, Bounds(0.001, 6.3)] = 0.15
    """Maximum excess of a measured joint over its range at the start: beyond it, zero or sign are wrong [rad]."""
    shadow_m: Annotated[float, Bounds(0.0001, 1)] = 0.03
    """Shadow mode: distance to the pre-grasp at which the policy starts [m]."""
    shadow_rad: Annotated[float, Bounds(0.0001, 3.15)] = 0.25
    """Shadow mode: angle to the pre-grasp at which the policy starts [rad]."""


@dataclass(frozen=True)
class Inputs:
    """Newest readings at a tick; None where none has arrived."""

    now_s: float
    """Time of the tick, on the clock of all stamps [s]."""
    joint_pos: Any = None
    """(joint,) in the order of the contract [rad]."""
    joints_stamp_s: float = -np.inf
    """Stamp of the joint positions [s]."""
    palm_pos_w: Any = None
    """(3,) world frame [m]."""
    palm_quat_w: Any = None
    """(4,) wxyz."""
    palm_stamp_s: float = -np.inf
    """Stamp of the palm pose [s]."""
    estimate: ObjectEstimate | None = None
    """Newest estimate of the object."""
    plan: PregraspPlan | None = None
    """Newest pre-grasp plan."""
    plan_stamp_s: float = -np.inf
    """Stamp of the depth frame that the plan was made from [s]."""
    plan_refused: str = ""
    """Why no grasp may begin on the plan: perception has not confirmed it; empty where it may."""
    path: PlannedPath | None = None
    """Planned path to the pre-grasp of the plan."""
    path_refused: str = NOT_PLANNED
    """Why there is no path; not used with scripted approaches."""
    estop: bool = False
    """Whether the emergency stop was pressed, since the last reset."""
    input_errors: str = ""
    """Why received messages were refused; appended to the text of a fault that follows."""

    def with_robot_at(self, command: SafeCommand, motors: Motors) -> Self:
        """Return the inputs of a robot that has reached a command of its `motors`."""
        joints = motors.joint_positions(command.joint_target)
        return replace(self, joint_pos=joints, palm_pos_w=command.palm_pos_w, palm_quat_w=command.palm_quat_w)


@dataclass(frozen=True)
class Output:
    """Result of a tick."""

    state: str
    """State after the tick, one of STATES."""
    fault: str
    """Reason of the state `fault`; empty in other states."""
    safe: SafeCommand | None
    """Command that may be sent; None while the machine is not active."""
    proposal: Command | None = None
    """Command of the policy before the safety gate; None where it did not run."""
    policy_s: float = np.nan
    """Run time of the policy [s]."""
    camera_age_s: float = np.nan
    """Age of the points given to the policy [s]."""
    warning: str = ""
    """Why the last command is repeated, without a fault."""
    hand_is_empty: bool = False
    """Whether the hand was found empty in `hold`, with no attempts left."""


class DeployedPolicy(Protocol):
    """Interface of dexgrasp.policies.deploy.policy.Policy that the grasp state machine uses."""

    contract: Contract
    """Contract of the bundle."""

    @property
    def rate_hz(self) -> float:
        """Number of calls of `act` per second."""
        ...

    @property
    def phase(self) -> str:
        """Phase of the next call of `act`, one of POLICY_STATES."""
        ...

    def reset(self, plan: PregraspPlan) -> None:
        """Start an episode. Raises ValueError where the plan does not match the contract."""
        ...

    def act(self, observation: Observation) -> Command:
        """Return the targets of the next control period. Raises ValueError for an invalid observation."""
        ...
