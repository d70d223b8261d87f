"""Hand-centric vectors against a k-d tree, and the laws they obey."""

import numpy as np
import pytest
import torch
from scipy.spatial import cKDTree
from scipy.spatial.transform import Rotation

from perception.features import nearest_vectors

SQUARE_M2 = 5e-7
"""Squared distances differ by at most this: they are differences of float32 squares of coordinates below one metre."""


@pytest.fixture
def clouds():
    rng = np.random.default_rng(0)
    keypoints = rng.uniform(-0.2, 0.2, (3, 17, 3)).astype(np.float32)
    points = rng.uniform(-0.1, 0.1, (3, 256, 3)).astype(np.float32)
    return torch.from_numpy(keypoints), torch.from_numpy(points)


def test_the_nearest_point_is_that_of_a_kd_tree(clouds):
    keypoints, points = clouds
    found = nearest_vectors(keypoints, points)
    for env in range(3):
        distance, _ = cKDTree(points[env].numpy()).query(keypoints[env].numpy())
        np.testing.assert_allclose(found[env].square().sum(-1).numpy(), distance**2, atol=SQUARE_M2)


def test_every_vector_ends_on_a_point_of_its_own_environment(clouds):
    keypoints, points = clouds
    ends = keypoints + nearest_vectors(keypoints, points)
    gap = (ends[:, :, None] - points[:, None]).norm(dim=-1).amin(dim=2)
    assert gap.max() < 1e-7  # the rounding of one float32 addition


def test_a_single_point_is_the_nearest_of_all_keypoints(clouds):
    keypoints, points = clouds
    torch.testing.assert_close(nearest_vectors(keypoints, points[:, :1]), points[:, :1] - keypoints, rtol=0, atol=0)


def test_a_keypoint_on_a_point_has_a_zero_vector():
    points = torch.tensor([[[0.1, 0.2, 0.3], [0.4, 0.5, 0.6]]])
    assert nearest_vectors(points, points).abs().max() == 0


def test_duplicated_and_permuted_points_change_nothing(clouds):
    keypoints, points = clouds
    plain = nearest_vectors(keypoints, points)
    assert torch.equal(nearest_vectors(keypoints, torch.cat([points, points], dim=1)), plain)
    shuffled = points[:, torch.from_numpy(np.random.default_rng(1).permutation(256))]
    assert torch.equal(nearest_vectors(keypoints, shuffled), plain)


def test_a_rigid_motion_of_hand_and_object_turns_the_vectors(clouds):
    keypoints, points = clouds
    matrix = torch.from_numpy(Rotation.from_rotvec([0.3, -1.1, 0.7]).as_matrix()).float()
    shift = torch.tensor([0.1, -0.05, 0.2])
    moved = nearest_vectors(keypoints @ matrix.T + shift, points @ matrix.T + shift)
    still = nearest_vectors(keypoints, points)
    torch.testing.assert_close(moved.square().sum(-1), still.square().sum(-1), rtol=0, atol=SQUARE_M2)
    same = (moved - still @ matrix.T).norm(dim=-1) < 1e-6
    assert same.float().mean() > 0.95  # near ties may go to the other point
