"""Hand-centric features: vectors from keypoints to the nearest object points, and keypoint heights.

`nearest_vectors` is what simulation calls, which knows the keypoints; `HandFeatures` starts from joint readings and is
one graph that can be exported to ONNX, for the robot.
"""

from typing import Literal

import torch
from torch import Tensor, nn

from dexgrasp.perception.kinematics import Kinematics
from dexgrasp.perception.transforms import compose, invert, quat_rotate_inverse


def nearest_vectors(keypoints: Tensor, points: Tensor) -> Tensor:
    """Return the vector from each keypoint (env, keypoint, 3) to the nearest point (env, point, 3) [m].

    All vectors are in the common frame of keypoints and points.

    RobustDexGrasp, hand-centric representation. Ties go to the first point. Shape (env, keypoint, 3).
    """
    square = points.square().sum(-1)[:, None]
    score = torch.baddbmm(square, keypoints, points.transpose(1, 2), alpha=-2.0)  # |p|^2 - 2 k.p: distance^2 - |k|^2
    index = score.argmin(dim=2)
    nearest = points.gather(1, index[..., None].expand(-1, -1, 3))
    return nearest - keypoints


class HandFeatures(nn.Module):
    """Forward kinematics, nearest vectors and heights of a hand in one module without parameters.

    `frame`: the vectors are given in the palm frame, or in world axes as the published method has them.
    """

    def __init__(
        self, kinematics: Kinematics, palm_pos_b: Tensor, palm_quat_b: Tensor, frame: Literal["palm", "world"] = "palm"
    ) -> None:
        """`palm_pos_b` (3,) [m], `palm_quat_b` (4,): the palm frame in the hand base frame, the kinematics' root."""
        super().__init__()
        if frame not in ("palm", "world"):
            raise ValueError(f"frame must be 'palm' or 'world', got '{frame}'")
        self.frame, self.kinematics = frame, kinematics
        base_pos, base_quat = invert(palm_pos_b.to(kinematics.pos), palm_quat_b.to(kinematics.pos))
        self.register_buffer("_base_pos_p", base_pos)
        self.register_buffer("_base_quat_p", base_quat)

    def forward(
        self, palm_pos_w: Tensor, palm_quat_w: Tensor, joint_pos: Tensor, points_w: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Vectors (env, keypoint, 3) to the nearest points and heights (env, keypoint) over the table [m].

        `palm_pos_w` (env, 3) [m], `palm_quat_w` (env, 4), `joint_pos` (env, joint) [rad], `points_w` (env, point, 3)
        [m], all of the kinematics' float type; the table is z = 0.
        """
        keypoints_w = self.keypoints(palm_pos_w, palm_quat_w, joint_pos)
        vectors = nearest_vectors(keypoints_w, points_w)
        if self.frame == "palm":
            vectors = quat_rotate_inverse(palm_quat_w[:, None], vectors)
        return vectors, keypoints_w[..., 2]

    def keypoints(self, palm_pos_w: Tensor, palm_quat_w: Tensor, joint_pos: Tensor) -> Tensor:
        """Keypoints (env, keypoint, 3) in the world [m]."""
        base = compose(palm_pos_w, palm_quat_w, self.get_buffer("_base_pos_p"), self.get_buffer("_base_quat_p"))
        return self.kinematics.keypoints(*base, joint_pos)
