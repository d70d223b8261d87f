"""Options of the simulated camera: point updates, frame timing, and measurement errors."""

from dataclasses import dataclass
from typing import Annotated, Literal

from dexgrasp.perception.tracking.object_points import Mode
from dexgrasp.utils.bounds import Bounds, Share, bounded


@dataclass(frozen=True)
@bounded
class CameraCfg:
    """Configure the camera; the defaults are an exact camera that takes one frame.

    Calibration error, point noise and dropout belong to the domain: `randomization.camera_bias_m`, `points_noise_m` and
    `points_dropout`.
    """

    mode: Mode = "first_frame"
    """first_frame: the first view only. latest: the visible points of each new frame, none behind the hand. tracked:
    the first view, moved with the object as new frames show it. tracked_updated: the tracked first view, and the points
    of the newest frame that it does not explain."""
    move_with_palm: bool = True
    """Move the object points with the palm in lift and hold, between frames too."""
    model: Literal["points", "rendered"] = "points"
    """points: surface samples, fast. rendered: depth rendered by MuJoCo, through the robot's perception pipeline."""
    frozen: bool = False
    """true: of a live camera only the first view of each attempt comes, as in the published method."""
    frame_interval_steps: Annotated[int, Bounds(1, 10_000)] = 2
    """Control steps between frames in grasp and lift."""
    hold_frame_interval_steps: Annotated[int, Bounds(1, 10_000)] = 2
    """Control steps between frames in hold, where palm and object stay."""
    latency_steps: Annotated[int, Bounds(0, 10_000)] = 1
    """Control steps between taking a frame and its arrival."""
    disparity_sd_px: Annotated[float, Bounds(0, 10)] = 0.0
    """Error of stereo matching [pixel]; the depth noise is depth^2 / (focal length x baseline) times this."""
    depth_unit_m: Annotated[float, Bounds(0, 0.1)] = 0.0
    """Resolution of the depth values [m]; 0: continuous."""
    edge_dropout: Share = 0.0
    """Fraction of the points at silhouette edges that are missing."""
    flying_pixel_rate: Share = 0.0
    """Fraction of the points at silhouette edges that lie behind the object."""
    include_grazing_angles: bool = False
    """Keep points on surfaces seen at grazing angles, as a depth image does; false drops them."""
    hand_margin_m: Annotated[float, Bounds(0, 0.2)] = 0.0
    """Margin by which the hand hides more than its shape [m]: segmentation drops points and pixels near it."""
    min_points: Annotated[int, Bounds(1, 10_000)] = 8
    """Least number of points of a frame that changes the object points."""

    def __post_init__(self) -> None:
        if self.latency_steps > min(self.frame_interval_steps, self.hold_frame_interval_steps):
            raise ValueError(
                "camera.latency_steps must lie in 0..frame_interval_steps and 0..hold_frame_interval_steps, got "
                f"{self.latency_steps}, {self.frame_interval_steps} and {self.hold_frame_interval_steps}"
            )
        if self.edge_dropout + self.flying_pixel_rate > 1:
            raise ValueError(
                "camera.edge_dropout + camera.flying_pixel_rate must not exceed 1, got "
                f"{self.edge_dropout} + {self.flying_pixel_rate}"
            )

    @property
    def live(self) -> bool:
        """Return whether frames are taken after the first view."""
        return self.mode != "first_frame"

    @property
    def tracks(self) -> bool:
        """Return whether the first view is registered to new frames."""
        return self.mode in ("tracked", "tracked_updated")

    @property
    def exact(self) -> bool:
        """Return whether the camera has no errors of its own."""
        return not (self.disparity_sd_px or self.depth_unit_m or self.edge_dropout or self.flying_pixel_rate)
