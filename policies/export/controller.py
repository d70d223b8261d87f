"""Deployable controller as one module: sensor readings and state to targets and next state.

    readings -> forward kinematics -> hand-centric features, proprioception, history -> actor -> action -> targets

It calls the functions of the task, for any number of rows, and is exported to ONNX for a bundle. Positions and targets
are float64, so that a palm target integrated over an episode does not drift from the simulator's.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from dexgrasp.perception.hand_features import HandFeatures, nearest_vectors
from dexgrasp.perception.observations import HISTORY_FRAMES, HISTORY_TERMS, Layout, student_layout
from dexgrasp.perception.tracking.icp import centroid_xy
from dexgrasp.perception.transforms import quat_rotate_inverse
from dexgrasp.policies.networks.student import StudentActor
from dexgrasp.sim.robots.hand import HandSpec
from dexgrasp.sim.sensors.proprioception import ProprioceptiveState
from dexgrasp.sim.task.actions import ControlLaw, PalmTrajectory, Phases
from dexgrasp.sim.task.grasp_task import TaskCfg
from dexgrasp.sim.task.observations import hand_terms, progress_terms
from dexgrasp.sim.task.regrasp import grip_confidence, lowest_height_m

READINGS = ("joint_pos", "palm_pos_w", "palm_quat_w", "points_w")
"""Inputs of every controller."""
CAMERA_READINGS = ("visible_fraction", "view_fresh")
"""Further inputs of a controller with object points in every frame."""
PLAN = ("start_pos_w", "start_quat_w", "depth_m", "closing", "floor_m")
"""State that is set by the pre-grasp and constant afterwards."""
STATE = (
    "step",
    "joint_target",
    "target_pos_w",
    "target_quat_w",
    "travelled_m",
    "object_xy_w",
    "followed_m",
    "last_action",
    "history",
)
"""State that every step changes; outputs of the graph with `next_` before the name."""
EMPTY_HAND_OUTPUTS = ("grip", "base_m")
"""Outputs beside the state, for the empty-hand decision: `Command.grip` and `Command.object_bottom_m`."""


@dataclass(frozen=True)
class TensorSpec:
    """Input or output of the controller without its batch dimension."""

    size: tuple[int, ...]
    dtype: torch.dtype = torch.float64


class DeployableController(nn.Module):
    """Controller from sensor readings to targets for the grasp, the lift and the hold."""

    def __init__(self, actor: StudentActor, hand: HandSpec, cfg: TaskCfg, points: int) -> None:
        """`points`: number of object points in every frame."""
        super().__init__()
        joints, keypoints = len(hand.joint_names), len(hand.keypoint_names)
        self.actor, self.hand, self.cfg, self.points = actor, hand, cfg, points
        self.step_s = 1.0 / cfg.rate_hz
        self.layout = student_layout(joints, keypoints, hand.num_actions, cfg.camera.live)
        self._history_layout = Layout(tuple(term for term in self.layout.terms if term.name in HISTORY_TERMS))
        palm = torch.tensor(hand.palm_pos_b), torch.tensor(hand.palm_quat_b)
        self._hand_features = HandFeatures(hand.kinematics().to(torch.float64), *palm)
        self._law = ControlLaw(
            scales=cfg.scales,
            scripted_grasp=cfg.active_scripted_grasp(hand),
            wrist=cfg.wrist,
            step_s=self.step_s,
            motor_lower=torch.tensor(hand.motor_lower),
            motor_upper=torch.tensor(hand.motor_upper),
        )

    @property
    def inputs(self) -> dict[str, TensorSpec]:
        """Names of the inputs in the order of `forward`: readings, plan, state of the last step."""
        joints, motors = len(self.hand.joint_names), len(self.hand.motors.names)
        known = {
            "joint_pos": TensorSpec((joints,)),
            "palm_pos_w": TensorSpec((3,)),
            "palm_quat_w": TensorSpec((4,)),
            "points_w": TensorSpec((self.points, 3), torch.float32),
            "visible_fraction": TensorSpec((), torch.float32),
            "view_fresh": TensorSpec((), torch.bool),
            "start_pos_w": TensorSpec((3,)),
            "start_quat_w": TensorSpec((4,)),
            "depth_m": TensorSpec(()),
            "closing": TensorSpec((motors,)),
            "floor_m": TensorSpec(()),
            "step": TensorSpec((), torch.int64),
            "joint_target": TensorSpec((motors,)),
            "target_pos_w": TensorSpec((3,)),
            "target_quat_w": TensorSpec((4,)),
            "travelled_m": TensorSpec(()),
            "object_xy_w": TensorSpec((2,)),
            "followed_m": TensorSpec((2,)),
            "last_action": TensorSpec((6 + motors,), torch.float32),
            "history": TensorSpec((HISTORY_FRAMES, self._history_layout.size), torch.float32),
        }
        camera = CAMERA_READINGS if self.cfg.camera.live else ()
        return {name: known[name] for name in (*READINGS, *camera, *PLAN, *STATE)}

    @property
    def outputs(self) -> list[str]:
        """Names of the outputs of `forward`, in order."""
        return [*(f"next_{name}" for name in STATE), *EMPTY_HAND_OUTPUTS]

    def forward(self, *values: Tensor) -> tuple[Tensor, ...]:
        """Return the next state, with targets and action, and the other outputs, for `values`.

        `values` are in the order of `inputs`, the result is in the order of `outputs`.
        """
        given = dict(zip(self.inputs, values, strict=True))
        grasp_steps, lift_steps, episode_steps = self.cfg.phase_steps
        phases = Phases(step=given["step"], grasp_steps=grasp_steps, lift_steps=lift_steps, episode_steps=episode_steps)
        trajectory = PalmTrajectory(
            start_pos_w=given["start_pos_w"],
            start_quat_w=given["start_quat_w"],
            palm_pos_w=given["target_pos_w"],
            palm_quat_w=given["target_quat_w"],
            depth_m=given["depth_m"],
            travelled_m=given["travelled_m"],
            object_xy_w=given["object_xy_w"],
            followed_m=given["followed_m"],
        )
        palm_pos_w, palm_quat_w, joint_pos = given["palm_pos_w"], given["palm_quat_w"], given["joint_pos"]
        sensed = ProprioceptiveState(
            joint_pos=joint_pos,
            palm_pos_w=palm_pos_w,
            palm_quat_w=palm_quat_w,
            keypoints_w=self.keypoints(palm_pos_w, palm_quat_w, joint_pos),
        )
        history, obs = self._observe(given, sensed, trajectory, phases)
        action, reconstructed = self.actor.act_and_reconstruct(obs)
        action = action.clamp(-self.cfg.action_clip, self.cfg.action_clip)
        grip = grip_confidence(self.actor.contact_probabilities(reconstructed), self.hand)
        target, trajectory = self._law(
            action,
            trajectory,
            closing=given["closing"],
            floor_m=given["floor_m"],
            motor_pos=self.hand.motors.positions(sensed.joint_pos),
            keypoint_height_m=sensed.keypoints_w[..., 2],
            object_xy_w=centroid_xy(given["points_w"]),
            phases=phases,
            grip=grip,
        )
        state = {
            "step": phases.step + 1,
            "joint_target": target,
            "target_pos_w": trajectory.palm_pos_w,
            "target_quat_w": trajectory.palm_quat_w,
            "travelled_m": trajectory.travelled_m,
            "object_xy_w": trajectory.object_xy_w,
            "followed_m": trajectory.followed_m,
            "last_action": action,
            "history": history,
        }
        return *(state[name] for name in STATE), grip, lowest_height_m(given["points_w"])

    def keypoints(self, palm_pos_w: Tensor, palm_quat_w: Tensor, joint_pos: Tensor) -> Tensor:
        """Return the keypoints (env, keypoint, 3) in the world frame [m]."""
        return self._hand_features.keypoints(palm_pos_w, palm_quat_w, joint_pos)

    def _observe(
        self, given: dict[str, Tensor], sensed: ProprioceptiveState, trajectory: PalmTrajectory, phases: Phases
    ) -> tuple[Tensor, Tensor]:
        """Return the history with this step, and the student's observation (env, size)."""
        proprioception = hand_terms(sensed, given["joint_target"], trajectory, self.hand.motors)
        frame = self._history_layout.assemble(proprioception)[:, None]
        moved = torch.cat([given["history"][:, 1:], frame], dim=1)
        history = torch.where(phases.step[:, None, None] == 0, frame.expand(-1, HISTORY_FRAMES, -1), moved)
        to_visible_w = nearest_vectors(sensed.keypoints_w.float(), given["points_w"])
        values = proprioception | progress_terms(phases, trajectory.remaining_m, given["last_action"])
        values |= {name: given[name] for name in CAMERA_READINGS if name in given}
        to_visible_p = quat_rotate_inverse(sensed.palm_quat_w[:, None].float(), to_visible_w)
        values["visible_vectors"] = to_visible_w if self.cfg.vector_frame == "world" else to_visible_p
        return history, self.layout.assemble(values | {"history": history})
