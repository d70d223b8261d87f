"""Hand-centric features: the object as the hand feels it, seventeen short vectors and heights."""

import torch
from torch import Tensor


def nearest_vectors(keypoints: Tensor, points: Tensor) -> Tensor:
    """Vector from each keypoint (env, keypoint, 3) to the nearest point (env, point, 3), in their common frame [m].

    RobustDexGrasp, hand-centric representation. Ties go to the first point. Shape (env, keypoint, 3).
    """
    square = points.square().sum(-1)[:, None]
    score = torch.baddbmm(square, keypoints, points.transpose(1, 2), alpha=-2.0)  # |p|^2 - 2 k.p: distance^2 - |k|^2
    index = score.argmin(dim=2)
    nearest = points.gather(1, index[..., None].expand(-1, -1, 3))
    return nearest - keypoints
