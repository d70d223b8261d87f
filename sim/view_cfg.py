"""How the policy goes on seeing the object after the first frame, and what the camera gets wrong."""

from dataclasses import dataclass
from typing import Literal

from perception.object_view import Mode


@dataclass(frozen=True)
class ViewCfg:
    """View modes and the errors of a depth camera; the defaults are an exact camera that looks once.

    Calibration and holes are of the domain: `randomize.camera_bias_m`, `points_noise_m`, `points_dropout`.
    """

    mode: Mode = "frozen"
    """frozen: the first view only. refreshed: what is visible in each new frame, behind the hand nothing. tracked: the
    first view, moved with the object as new frames show it. corrected: the same, and those points of the newest frame
    that it does not explain."""
    carried: bool = True
    """In lift and hold all that is known of the object goes along with the palm, frame or not; false: it stays."""
    camera: Literal["model", "rendered"] = "model"
    """model: surface samples, fast. rendered: depth drawn by MuJoCo, through the perception pipeline of the robot."""
    period_steps: int = 2
    """A frame every so many control steps of grasp and lift."""
    held_period_steps: int = 2
    """The same in hold, where palm and object rest."""
    latency_steps: int = 1
    """A frame arrives so many control steps after it was taken."""
    disparity_sd_px: float = 0.0
    """Error of stereo matching [pixel]; the depth noise is depth^2 / (focal length x baseline) times this."""
    depth_unit_m: float = 0.0
    """Depth comes in steps of this [m]; 0: continuous."""
    edge_loss: float = 0.0
    """Share of the points at edges of the silhouette that are missing."""
    flying: float = 0.0
    """Share of the points at edges that lie behind the object."""
    steep: bool = False
    """Whether surfaces seen at a steep angle are; a depth image has them, the samples of the plain model do not."""
    hand_margin_m: float = 0.0
    """The hand hides this much more than it is: the pipeline leaves out points near it, and pixels at its outline."""
    min_points: int = 8
    """With fewer points in a frame the view stays as it was."""

    def __post_init__(self) -> None:
        if min(self.period_steps, self.held_period_steps) < 1:
            raise ValueError("view.period_steps and held_period_steps must be at least 1")
        if not 0 <= self.latency_steps <= min(self.period_steps, self.held_period_steps):
            raise ValueError(
                f"view.latency_steps lie in 0..period_steps, and 0..held_period_steps, got {self.latency_steps}, "
                f"{self.period_steps} and {self.held_period_steps}"
            )
        if min(self.disparity_sd_px, self.depth_unit_m, self.edge_loss, self.flying, self.hand_margin_m) < 0:
            raise ValueError(
                "view.disparity_sd_px, depth_unit_m, edge_loss, flying and hand_margin_m must not be negative"
            )
        if self.edge_loss + self.flying > 1 or self.min_points < 1:
            raise ValueError("view.edge_loss + view.flying must not exceed 1, view.min_points be at least 1")

    @property
    def live(self) -> bool:
        """Whether there is more than the first view."""
        return self.mode != "frozen"

    @property
    def tracks(self) -> bool:
        """Whether the object is followed by registering its first view."""
        return self.mode in ("tracked", "corrected")

    @property
    def exact(self) -> bool:
        """Whether the camera makes no errors of its own."""
        return not (self.disparity_sd_px or self.depth_unit_m or self.edge_loss or self.flying)
