"""Options of the grasping task."""

from dataclasses import dataclass, field, replace
from typing import Literal

from dexgrasp.sim.randomization.episode_draws import RandomizationCfg, ResetCfg
from dexgrasp.sim.scene import PhysicsCfg
from dexgrasp.sim.sensors.config import CameraCfg
from dexgrasp.sim.task.actions import ActionScales, WristCfg
from dexgrasp.sim.task.rewards import RewardCfg
from dexgrasp.sim.task.scripted_grasp import ScriptedGraspCfg


@dataclass(frozen=True)
class TaskCfg:
    """Configure rates, phases and scales of the task."""

    class_name: str = "GraspTask"
    """Class of the task: GraspTask, or a subclass by the name under which a plugin registered it."""
    rate_hz: float = 20.0
    """Control rate, 10 to 50 Hz."""
    grasp_s: float = 1.8
    """Length of the grasp phase [s]."""
    lift_s: float = 0.8
    """Length of the lift [s]."""
    hold_s: float = 3.0
    """Length of the hold [s]."""
    lift_m: float = 0.15
    """Height by which the palm rises in the lift [m]."""
    vector_frame: Literal["palm", "world"] = "palm"
    """Frame of the vectors from keypoints to the object: palm, or world as in the published method."""
    use_scripted_grasp: bool = True
    """true: actions correct the scripted grasp. false: actions alone move hand and palm, as in the published method."""
    palm_action_m_s: float = 0.1
    """Palm speed per unit of action."""
    palm_action_rad_s: float = 0.6
    """Palm angular speed per unit of action."""
    finger_action_rad: float = 0.3
    """Finger target ahead of the measured position per unit of action."""
    action_clip: float = 3.0
    """Actions are clipped to this magnitude."""
    scripted_grasp: ScriptedGraspCfg = field(default_factory=ScriptedGraspCfg)
    wrist: WristCfg = field(default_factory=WristCfg)
    reset: ResetCfg = field(default_factory=ResetCfg)
    randomization: RandomizationCfg = field(default_factory=RandomizationCfg)
    reward: RewardCfg = field(default_factory=RewardCfg)
    camera: CameraCfg = field(default_factory=CameraCfg)

    def __post_init__(self) -> None:
        if not 10 <= self.rate_hz <= 50:
            raise ValueError(f"task.rate_hz must lie in 10..50 Hz, got {self.rate_hz}")
        if min(map(self.steps, (self.grasp_s, self.lift_s, self.hold_s))) < 1:
            raise ValueError("task.grasp_s, lift_s and hold_s must each last at least one control step")
        if self.lift_m <= 0.1:
            raise ValueError(f"task.lift_m must exceed the 0.1 m that success asks for, got {self.lift_m}")

    @property
    def scales(self) -> ActionScales:
        """Scales of a unit of action."""
        return ActionScales(
            palm_m_s=self.palm_action_m_s,
            palm_rad_s=self.palm_action_rad_s,
            finger_rad=self.finger_action_rad,
            lift_m=self.lift_m,
        )

    @property
    def corrected(self) -> ScriptedGraspCfg | None:
        """Scripted grasp that actions correct, which follows the object only where it is tracked; None: prior=off."""
        if not self.use_scripted_grasp:
            return None
        return self.scripted_grasp if self.camera.tracks else replace(self.scripted_grasp, follow_m_s=0.0)

    def steps(self, seconds: float) -> int:
        """Return the number of control steps in a time."""
        return round(seconds * self.rate_hz)

    @property
    def phase_steps(self) -> tuple[int, int, int]:
        """Control steps of the grasp, of the lift, and of the whole episode."""
        grasp, lift, hold = map(self.steps, (self.grasp_s, self.lift_s, self.hold_s))
        return grasp, lift, grasp + lift + hold


def check_rates(cfg: TaskCfg, physics: PhysicsCfg) -> None:
    """Raise ValueError if the control period is not a whole number of physics steps."""
    substeps = 1.0 / cfg.rate_hz / physics.timestep_s
    if abs(substeps - round(substeps)) > 1e-3:
        raise ValueError(
            f"physics.timestep_s={physics.timestep_s} does not divide the control period {1 / cfg.rate_hz:.4f} s "
            f"(task.rate_hz={cfg.rate_hz}): take a timestep of period / n"
        )
