"""Poses in frames of tf, against transforms multiplied by hand."""

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="needs the extra `ros`")

from dexgrasp.utils.rotations import Pose
from dexgrasp_ros.frame_tree import FrameTree

TURN = np.array([0.5**0.5, 0.0, 0.0, 0.5**0.5])  # a quarter turn about z
UPRIGHT = np.array([1.0, 0.0, 0.0, 0.0])


def tree():
    found = FrameTree()
    found.add("shelf", "map", Pose.of([1.0, 0.0, 0.0], TURN))
    found.add("box", "shelf", Pose.of([0.0, 2.0, 0.5], UPRIGHT), stamp_s=10.0)
    found.add("world", "map", Pose.of([0.0, 0.0, 0.3], UPRIGHT))
    return found


def test_a_frame_is_found_over_the_common_root():
    pose = tree().pose_in("world", "box", 10.2)
    np.testing.assert_allclose(pose.pos_m, [-1.0, 0.0, 0.2], atol=1e-12)  # y of the shelf is -x of the map
    np.testing.assert_allclose(pose.quat, TURN, atol=1e-12)
    back = tree().pose_in("box", "world", 10.2) @ pose
    np.testing.assert_allclose(back.pos_m, 0.0, atol=1e-12)


@pytest.mark.parametrize(
    ("base", "frame", "now_s", "reason"),
    [
        ("world", "nowhere", 10.0, "does not join the frames 'world' and 'nowhere'"),
        ("world", "box", 11.0, "the newest transform of frame 'box' is 1.0 s old"),
        ("a", "b", 0.0, "form a circle"),
    ],
)
def test_what_tf_does_not_tell_is_said(base, frame, now_s, reason):
    frames = tree()
    frames.add("a", "b", Pose.of([0, 0, 0], UPRIGHT))
    frames.add("b", "a", Pose.of([0, 0, 0], UPRIGHT))
    with pytest.raises(ValueError, match=reason):
        frames.pose_in(base, frame, now_s)
