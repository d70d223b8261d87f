"""Sources of snapshots for the viewer: frames of a camera, or a policy in the simulated task."""

from collections.abc import Callable
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from dexgrasp.perception.cameras.depth import CameraError, DepthSource, EndOfFramesError, FrameTimeoutError
from dexgrasp.perception.hand_features import nearest_vectors
from dexgrasp.perception.segmentation.pipeline import SegmentationCfg
from dexgrasp.policies.agents.registry import Agent
from dexgrasp.policies.evaluation.episodes import ATTEMPTS, RegraspRunner
from dexgrasp.policies.viewer.snapshot import HandPose, PipelineInspector, Snapshot, plan_hand
from dexgrasp.sim.rendering.geom_meshes import GeomMesh, geom_meshes
from dexgrasp.sim.robots.hand import HandSpec
from dexgrasp.sim.sensors.depth_camera import DepthCamera
from dexgrasp.sim.task.grasp_task import GraspTask

START_S = 5.0
"""Time limit of the first frame of a camera [s]."""
AGAIN_S = 1.0
"""Time for which the end of a recording or trial stays visible before the next one starts [s]."""
Mesh = tuple[NDArray[np.float32], NDArray[np.int32]]
"""Vertices (v, 3) [m] and triangles (f, 3)."""


class Player(Protocol):
    """Protocol of a source of snapshots."""

    robot: list[GeomMesh]
    """Geometry of the hand and, if present, the arm."""

    def look(self) -> Snapshot:
        """Return the present snapshot."""
        ...

    def object_mesh(self) -> Mesh | None:
        """Return the true mesh of the object in its own frame, or None; identical arrays until it changes."""
        ...

    def advance(self) -> float:
        """Advance to the next snapshot; return how long the present one is shown [s]."""
        ...

    def press(self, button: str) -> None:
        """Handle a button of this source."""
        ...

    def close(self) -> None:
        """Release the camera."""
        ...


class CameraPlayer:
    """Frames of a camera, a recording or a folder in a loop, with the hand at the planned pre-grasp."""

    buttons: tuple[str, ...] = ()
    """Names of the buttons beside play."""

    def __init__(
        self, open_frames: Callable[[], DepthSource], hand: HandSpec, segment: SegmentationCfg, name: str
    ) -> None:
        """`open_frames` opens the source; it is called again after the last frame."""
        self._open, self._hand, self._name = open_frames, hand, name
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

    def object_mesh(self) -> Mesh | None:
        """Return None: the true object is unknown."""
        return None

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
            self._source.close()
            self._source = self._open()
            self._frame, self._number, self._trouble = self._source.read(timeout_s=START_S), 0, ""
            return AGAIN_S
        return min(max(self._frame.stamp_s - before_s, 0.0), AGAIN_S)

    def press(self, button: str) -> None:
        """Do nothing: there are no buttons."""

    def close(self) -> None:
        """Release the camera or the file."""
        self._source.close()


class TaskPlayer:
    """Policy in the simulated task, trial after trial, with depth rendered at every control step."""

    buttons: tuple[str, ...] = ("next object", "restart")
    """Names of the buttons beside play."""

    def __init__(self, task: GraspTask, policy: Agent, segment: SegmentationCfg, trial: int) -> None:
        """`task`: one environment with a DepthCamera; `trial`: number of the first episode."""
        if not isinstance(task.object_camera.camera, DepthCamera) or task.num_envs != 1:
            raise ValueError("the viewer needs one environment and drawn depth: task.camera.model=rendered")
        self._task, self._policy, self._camera = task, policy, task.object_camera.camera
        self._eye = PipelineInspector(segment)
        self._actor = RegraspRunner(task, policy, ATTEMPTS)
        self._begin(trial)
        model = task.engine.get_model(0)
        bodies = [number for number in range(1, model.nbody) if model.body(number).name != "object"]
        self.robot = geom_meshes(model, bodies)

    def look(self) -> Snapshot:
        """Return the present frame, its pipeline results, and vectors to the points that the policy observes."""
        task = self._task
        step, data = int(task.steps_since_reset[0]), task.engine.get_data(0)
        position, bias = task.object_camera.camera_w[0], task.draws.camera_bias[0]
        frame, robot = self._camera.render(0, task.engine.get_model(0), data, position, bias_w=bias, step=step)
        seen = self._eye(frame, robot, self._camera.seed(0))
        state = task.engine.state
        pose = state.object_pos_w[0].numpy().copy(), state.object_quat_w[0].numpy().copy()
        known_w = task.object_camera.points_w[0].numpy().copy()
        phase = task.phases.name(0)
        words = f"trial {int(task.trial[0])}", task.objects[0], phase, f"{step * task.step_s:.2f} s"
        hand = self._hand_pose(data.xpos[1:], data.xquat[1:])
        return Snapshot(
            seen=seen, known_w=known_w, hand=hand, caption=" · ".join(words), verdict=self._verdict, object_pose=pose
        )

    def object_mesh(self) -> Mesh | None:
        """Return the mesh of this trial's object in its true size."""
        return self._mesh

    def advance(self) -> float:
        """Run one control step; start the next trial after the last."""
        if self._verdict:
            self._begin(int(self._task.trial[0]) + 1)
            return AGAIN_S
        step = self._actor.step(self._obs)
        self._obs = step.obs
        if step.info["outcomes"]:
            outcome = step.info["outcomes"][0]
            self._verdict = "success" if outcome.success else outcome.failure.replace("_", " ")
        return self._task.step_s

    def press(self, button: str) -> None:
        """Start the next trial, or restart the present one."""
        self._begin(int(self._task.trial[0]) + (button == "next object"))

    def close(self) -> None:
        """Do nothing: no resource is open."""

    def _begin(self, trial: int) -> None:
        self._obs = self._task.reset(trials=[trial])
        self._policy.reset([trial])
        self._verdict = ""
        model = self._task.library[self._task.objects[0]]
        self._mesh = model.vertices * np.float32(self._task.draws.size[0]), model.faces

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
