"""What the grasp machine is told and what it answers, and its settings."""

from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from dexgrasp_ros.scripted import MotionCfg
from policies.contract import Contract
from policies.runtime import Command, Plan, Readings
from policies.safety import Safe

STATES = ("idle", "pregrasp", "grasp", "lift", "hold", "retreat", "release", "home", "fault")
"""Of the machine."""
POLICY_STATES = ("grasp", "lift", "hold")
"""In which the policy runs."""
REQUESTS = ("grasp", "release", "home", "stop", "reset_fault")
"""What an operator may ask for."""


@dataclass(frozen=True)
class GraspCfg:
    """Everything about the sequence that is neither the policy's nor a safety limit."""

    motion: MotionCfg = field(default_factory=MotionCfg)
    """Speeds and tolerances of scripted motions."""
    timeout_s: float = 30.0
    """A scripted motion that takes longer is a fault."""
    retreat_m: float = 0.12
    """How far the palm backs off after a release."""
    attempts: int = 3
    """Grasps at most, each after the policy felt its hand empty; 1: no second one."""
    look_timeout_s: float = 5.0
    """The hand is out of the way after an empty grasp and no plan has come for so long: the grasp is over."""
    plan_timeout_s: float = 1.0
    """A plan older than this starts no grasp."""
    late_periods: float = 3.0
    """A tick that comes so many control periods after the last one is a fault."""
    follow_m: float = 0.12
    """The palm further from its target is a fault: something holds the arm."""
    follow_rad: float = 0.6
    """The same for its orientation."""
    outside_rad: float = 0.15
    """A joint measured this far outside its range: the driver's zero or sign is not what the configuration says."""
    shadow_m: float = 0.03
    """In shadow mode: near enough to the pre-grasp."""
    shadow_rad: float = 0.25
    """The same for its orientation."""

    def __post_init__(self) -> None:
        values = {name: value for name, value in vars(self).items() if isinstance(value, float)}
        if wrong := [name for name, value in values.items() if not (np.isfinite(value) and value > 0)]:
            raise ValueError(f"{wrong} must be positive")
        if self.attempts < 1:
            raise ValueError(f"attempts must be at least 1, got {self.attempts}")
        if self.late_periods < 1.5:
            raise ValueError(f"late_periods must be at least 1.5, got {self.late_periods}")


@dataclass(frozen=True)
class View:
    """The object as perception saw it last."""

    points_w: Any
    """(point, 3) [m]."""
    visible_fraction: float
    """Of the points of the first frame."""
    view_fresh: bool
    """Whether the newest frame was of use."""
    stamp_s: float
    """When that frame was taken."""


@dataclass(frozen=True)
class Inputs:
    """What is known at a tick; None where nothing has come yet."""

    now_s: float
    """Of the clock of all stamps."""
    joint_pos: Any = None
    """(joint,) [rad] in the contract's order."""
    joints_stamp_s: float = -np.inf
    """When the joints were read, the oldest of them."""
    palm_pos_w: Any = None
    """(3,) [m]."""
    palm_quat_w: Any = None
    """(4,) wxyz."""
    palm_stamp_s: float = -np.inf
    """When the palm was where it is said to be."""
    view: View | None = None
    """The object."""
    plan: Plan | None = None
    """The newest plan."""
    plan_stamp_s: float = -np.inf
    """When the frame was taken that it was made from."""
    estop: bool = False
    """The emergency stop is pressed."""
    trouble: str = ""
    """Why an input that came was of no use; told with the fault that follows."""


@dataclass(frozen=True)
class Output:
    """What a tick led to."""

    state: str
    """One of STATES."""
    fault: str
    """Why, in the state `fault`."""
    safe: Safe | None
    """What may be sent; None before `begin`."""
    proposal: Command | None = None
    """What the policy wanted at this tick, before the gate."""
    policy_s: float = np.nan
    """How long it took [s]."""
    camera_age_s: float = np.nan
    """Age of the points it was given [s]."""


class GraspPolicy(Protocol):
    """What the machine asks of a policy: policies.runtime.Policy."""

    contract: Contract
    """Of its bundle."""

    @property
    def rate_hz(self) -> float:
        """Calls of `act` per second."""
        ...

    @property
    def phase(self) -> str:
        """One of POLICY_STATES: what the next call belongs to."""
        ...

    def begin(self, plan: Plan) -> None:
        """A new episode. Raises ValueError where the plan does not fit."""
        ...

    def act(self, readings: Readings) -> Command:
        """Targets of the next control period. Raises ValueError where the readings do not fit."""
        ...
