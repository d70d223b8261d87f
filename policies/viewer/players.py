"""Sources of snapshots for the perception preset: a camera, or a policy in the simulated task."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from dexgrasp.perception.cameras.depth import CameraError, DepthSource, EndOfFramesError, FrameTimeoutError
from dexgrasp.perception.hand_features import nearest_vectors
from dexgrasp.perception.segmentation.pipeline import SegmentationCfg
from dexgrasp.policies.viewer.env_status import env_status
from dexgrasp.policies.viewer.rollout import AGAIN_S, Rollout
from dexgrasp.policies.viewer.snapshot import HandPose, PipelineInspector, Snapshot, plan_hand
from dexgrasp.sim.rendering.geom_meshes import geom_meshes
from dexgrasp.sim.rendering.studio import Mesh
from dexgrasp.sim.robots.hand import HandSpec
from dexgrasp.sim.sensors.depth_camera import DepthCamera

START_S = 5.0
"""Time limit of the first frame of a camera [s]."""


class CameraPlayer:
    """Frames of a camera, a recording or a folder in a loop, with the hand at the planned pre-grasp."""

    def __init__(
        self,
        open_frames: Callable[[], DepthSource],
        hand: HandSpec,
        segment: SegmentationCfg,
        name: str,
        is_live: bool = False,
    ) -> None:
        """`open_frames` opens the source; it is called again after the last frame.

        `is_live`: a camera, which cannot be opened twice and has no first frame to start again from.
        """
        self._open, self._hand, self._name, self._is_live = open_frames, hand, name, is_live
        model = hand.to_mjspec().compile()
        self.robot = geom_meshes(model, range(1, model.nbody))
        self._eye = PipelineInspector(segment)
        self._source = open_frames()
        try:
            self._frame, self._number = self._source.read(timeout_s=START_S), 0
        except EndOfFramesError as error:
            self.close()
            raise CameraError(f"{name} holds no frame") from error
        except CameraError:
            self.close()
            raise
        self._trouble = ""

    def look(self) -> Snapshot:
        """Return the snapshot of the last frame."""
        seen = self._eye(self._frame)
        hand = None if not len(seen.points_w) else plan_hand(self._hand, seen.points_w, seen.T_world_cam[:3, 3])
        caption = f"{self._name} · frame {self._number}" + (f" · {self._trouble}" if self._trouble else "")
        return Snapshot(seen=seen, known_w=seen.points_w, hand=hand, caption=caption)

    def advance(self) -> float:
        """Read the next frame; return the difference of the time stamps [s].

        If the camera is late, the last frame stays.
        """
        before_s = self._frame.stamp_s
        try:
            self._frame, self._number, self._trouble = self._source.read(), self._number + 1, ""
        except FrameTimeoutError as error:
            self._trouble = str(error)
            return 0.0
        except EndOfFramesError:
            self.restart()
            return AGAIN_S
        return min(max(self._frame.stamp_s - before_s, 0.0), AGAIN_S)

    def restart(self) -> None:
        """Open a recording or folder again and read its first frame; a camera goes on.

        Where this fails, the present source stays open.
        """
        if self._is_live:
            return
        source = self._open()
        try:
            frame = source.read(timeout_s=START_S)
        except CameraError:
            source.close()
            raise
        self._source.close()
        self._source, self._frame, self._number, self._trouble = source, frame, 0, ""

    def close(self) -> None:
        """Release the camera or the file."""
        self._source.close()


class TaskPlayer:
    """Snapshots of a policy in the simulated task, with depth rendered at every control step."""

    def __init__(self, rollout: Rollout, segment: SegmentationCfg) -> None:
        """`rollout`: one environment with a DepthCamera."""
        task = rollout.task
        if not isinstance(task.object_camera.camera, DepthCamera) or task.num_envs != 1:
            raise ValueError("preset=perception needs one environment and rendered depth: task.camera.model=rendered")
        self._rollout, self._task, self._camera = rollout, task, task.object_camera.camera
        self._eye = PipelineInspector(segment)
        self._mesh_of, self._mesh = (-1, 0.0), rollout.task.object_mesh(0)

    def look(self) -> Snapshot:
        """Return the present frame, its pipeline results, and vectors to the points that the policy observes."""
        task, status = self._task, env_status(self._rollout, 0)
        step, data = self._rollout.step, task.engine.get_data(0)
        position, bias = task.object_camera.camera_w[0], task.draws.camera_bias[0]
        frame, robot = self._camera.render(0, task.engine.get_model(0), data, position, bias_w=bias, step=step)
        state = task.engine.state
        words = f"trial {status.trial}", status.object, status.phase, f"{step * task.step_s:.2f} s"
        return Snapshot(
            seen=self._eye(frame, robot, self._camera.seed(0)),
            known_w=task.object_camera.points_w[0].numpy().copy(),
            hand=self._hand_pose(data.xpos[1:], data.xquat[1:]),
            caption=" · ".join(words),
            verdict=status.verdict,
            object_pose=(state.object_pos_w[0].numpy().copy(), state.object_quat_w[0].numpy().copy()),
            object_mesh=self._object_mesh(status.trial),
        )

    def _object_mesh(self, trial: int) -> Mesh:
        """Return the mesh of this trial's object in its true size."""
        key = trial, float(self._task.draws.size[0])
        if key != self._mesh_of:
            self._mesh_of, self._mesh = key, self._rollout.task.object_mesh(0)
        return self._mesh

    def _hand_pose(self, bodies_pos_w: NDArray[np.float64], bodies_quat_w: NDArray[np.float64]) -> HandPose:
        """Return the measured pose of the hand."""
        sensed, trajectory = self._task.sensed, self._task.control.palm_trajectory
        known_w = self._task.object_camera.points_w
        keypoints_w = sensed.keypoints_w.float()
        return HandPose(
            plan=(trajectory.start_pos_w[0].numpy().copy(), trajectory.start_quat_w[0].numpy().copy()),
            depth_m=float(trajectory.depth_m[0]),
            palm=(sensed.palm_pos_w[0].numpy().copy(), sensed.palm_quat_w[0].numpy().copy()),
            keypoints_w=keypoints_w[0].numpy().copy(),
            vectors_w=nearest_vectors(keypoints_w, known_w)[0].numpy(),
            bodies_pos_w=bodies_pos_w.copy(),
            bodies_quat_w=bodies_quat_w.copy(),
        )
