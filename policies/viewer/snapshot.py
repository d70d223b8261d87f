"""Snapshots for the viewer, as plain arrays: frame, pipeline results, pose of the hand."""

from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray

from dexgrasp.perception.cameras.depth import DepthFrame, deproject, to_frame
from dexgrasp.perception.hand_features import nearest_vectors
from dexgrasp.perception.robot_mask import Capsules
from dexgrasp.perception.segmentation.pipeline import NoObjectError, SegmentationCfg, Segmenter
from dexgrasp.perception.segmentation.table_plane import NoPlaneError, Plane
from dexgrasp.perception.transforms import compose, invert
from dexgrasp.sim.randomization.episode_draws import EpisodeDraws, ResetCfg
from dexgrasp.sim.rendering.studio import Mesh
from dexgrasp.sim.robots.hand import HandSpec
from dexgrasp.sim.task import reset as starts
from dexgrasp.utils.timers import LapTimer

SCENE_POINTS = 20_000
"""Approximate number of drawn scene points; browsers without a graphics card still turn them smoothly."""
UNPOSED = np.array([[0.0, 0, 1, -0.5], [-1, 0, 0, 0], [0, -1, 0, 0.5], [0, 0, 0, 1]])
"""T_world_cam of a camera with unknown pose: half a metre above the table, looking along +x."""
NO_POSE = (
    "the pose of the camera is not known, so no object is searched: run `dexgrasp calibrate camera` and give the file "
    "that it writes, camera_file=FILE"
)


@dataclass(frozen=True, eq=False)
class Seen:
    """One frame and the results of the pipeline."""

    frame: DepthFrame
    T_world_cam: NDArray[np.float64]
    """(4, 4) drawn camera pose: the calibrated one, or UNPOSED."""
    scene_w: NDArray[np.float32] = field(repr=False)
    """(n, 3) points within the range that are not the object's, thinned to SCENE_POINTS [m]."""
    object_w: NDArray[np.float32] = field(repr=False)
    """(m, 3) points of the object; none where none was found."""
    points_w: NDArray[np.float32] = field(repr=False)
    """(p, 3) sample of the object's points for the policy."""
    plane: Plane | None
    """Plane of the table; None where no object was found."""
    counts: dict[str, int]
    """Points left after each stage."""
    stages_ms: dict[str, float]
    """Time of each stage."""
    warning: str = ""
    """Reason why there is no object; empty with one."""


@dataclass(frozen=True, eq=False)
class HandPose:
    """Pose and plan of a hand, and its vectors to the object, in the world frame."""

    plan: tuple[NDArray[np.float64], NDArray[np.float64]]
    """(3,) [m] and (4,) wxyz: the palm at the start of the approach."""
    depth_m: float
    """Length of the approach along the palm's normal [m]."""
    palm: tuple[NDArray[np.float64], NDArray[np.float64]]
    """Present pose of the palm: (3,) [m] and (4,) wxyz."""
    keypoints_w: NDArray[np.float32]
    """(keypoint, 3) [m]."""
    vectors_w: NDArray[np.float32]
    """(keypoint, 3) from each to the nearest point that the policy knows [m]."""
    bodies_pos_w: NDArray[np.float64]
    """(body, 3) origins of the robot's bodies [m]."""
    bodies_quat_w: NDArray[np.float64]
    """(body, 4) wxyz."""


@dataclass(frozen=True, eq=False)
class Snapshot:
    """Frame, hand and object at one time."""

    seen: Seen
    known_w: NDArray[np.float32]
    """(p, 3) points in the policy's observation: of this frame, or of an earlier one [m]."""
    hand: HandPose | None
    """Hand; None where there is no object."""
    caption: str
    """Caption of the snapshot: trial, step or time."""
    verdict: str = ""
    """Outcome of the trial after its end."""
    object_pose: tuple[NDArray[np.float64], NDArray[np.float64]] | None = None
    """True position [m] and orientation of a simulated object."""
    object_mesh: Mesh | None = None
    """True mesh of a simulated object in its own frame; identical arrays until it changes."""

    def centre_w(self) -> NDArray[np.float64]:
        """Return the centre (3,) of the object, or of the table without one [m]."""
        return self.known_w.mean(axis=0, dtype=np.float64) if len(self.known_w) else np.array([0.0, 0.0, 0.05])


class PipelineInspector:
    """Runs the robot's pipeline with timing; a frame without an object becomes a warning."""

    def __init__(self, cfg: SegmentationCfg) -> None:
        self._cfg = cfg
        self._segmenter: Segmenter | None = None

    def __call__(self, frame: DepthFrame, capsules: Capsules | None = None, seed: int = 0) -> Seen:
        """Process one frame; the robot occupies the `capsules`."""
        if self._segmenter is None or self._segmenter.intrinsics != frame.intrinsics:
            self._segmenter = Segmenter(self._cfg, frame.intrinsics)
            self._rays = frame.intrinsics.rays(self._cfg.stride)
            chance = np.random.default_rng(0).random(self._rays.shape[1:])
            self._few = chance < SCENE_POINTS / chance.size  # fixed pixels: others in every frame would flicker
        if frame.T_world_cam is None:
            return self._unseen(frame, UNPOSED, NO_POSE, {})
        laps = LapTimer()
        laps.start()
        try:
            found = self._segmenter(frame, capsules, seed=seed, lap=laps)
        except (NoObjectError, NoPlaneError) as error:
            return self._unseen(frame, frame.T_world_cam, str(error), _times(laps))
        return Seen(
            frame=frame,
            T_world_cam=frame.T_world_cam,
            scene_w=self._scene(frame, frame.T_world_cam, but=found.mask),
            object_w=found.cloud_w,
            points_w=found.points_w,
            plane=found.plane,
            counts=found.counts,
            stages_ms=_times(laps),
        )

    def _unseen(
        self, frame: DepthFrame, T_world_cam: NDArray[np.float64], warning: str, times: dict[str, float]
    ) -> Seen:
        """Return the result of a frame without an object."""
        none = np.zeros((0, 3), np.float32)
        return Seen(
            frame=frame,
            T_world_cam=T_world_cam,
            scene_w=self._scene(frame, T_world_cam),
            object_w=none,
            points_w=none,
            plane=None,
            counts={},
            stages_ms=times,
            warning=warning,
        )

    def _scene(
        self, frame: DepthFrame, T_world_cam: NDArray[np.float64], but: NDArray[np.bool_] | None = None
    ) -> NDArray[np.float32]:
        """Return about SCENE_POINTS points (n, 3) within the range, without the pixels `but` (rows, columns)."""
        stride, (near, far) = self._cfg.stride, self._cfg.range_m
        depth_m = frame.depth_m[::stride, ::stride]
        kept = self._few & (depth_m > near) & (depth_m < far)
        if but is not None:
            kept &= ~but
        return to_frame(T_world_cam, deproject(depth_m[kept], self._rays[:, kept])).T


def _times(laps: LapTimer) -> dict[str, float]:
    return {stage: sum(spent) for stage, spent in laps.ms.items()}


def plan_hand(
    hand: HandSpec, points_w: NDArray[np.float32], camera_w: NDArray[np.float64], reset: ResetCfg | None = None
) -> HandPose:
    """Return the open hand at the planned pre-grasp for points (p, 3) and camera (3,), without noise."""
    points = torch.from_numpy(points_w)[None]
    still = EpisodeDraws.empty(1, len(hand.motors.names))
    plan = starts.PregraspPlanner(hand, "floating", reset or ResetCfg())(
        points, torch.from_numpy(camera_w)[None], still
    )
    to_base = invert(torch.tensor(hand.palm_pos_b), torch.tensor(hand.palm_quat_b))
    base = compose(plan.palm_pos_w, plan.palm_quat_w, *(part[None] for part in to_base))
    kinematics = hand.kinematics().to(torch.float64)
    fingers = plan.style.open_pose.double()
    bodies_pos_w, bodies_quat_w = kinematics.forward(*base, fingers)
    keypoints_w = kinematics.keypoints(*base, fingers).float()
    palm = plan.palm_pos_w[0].numpy(), plan.palm_quat_w[0].numpy()
    return HandPose(
        plan=palm,
        depth_m=float(plan.depth_m[0]),
        palm=palm,
        keypoints_w=keypoints_w[0].numpy(),
        vectors_w=nearest_vectors(keypoints_w, points)[0].numpy(),
        bodies_pos_w=bodies_pos_w[0].numpy(),
        bodies_quat_w=bodies_quat_w[0].numpy(),
    )
