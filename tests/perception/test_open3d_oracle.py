"""Our plane fit and clustering beside those of open3d, over 120 scenes of points each."""

import numpy as np
import pytest

from dexgrasp.perception.segmentation.clustering import largest_cluster
from dexgrasp.perception.segmentation.table_plane import TABLE, fit_plane

o3d = pytest.importorskip("open3d", reason="needs the extra `scan`")

SCENES = 120


def cloud_of(points):
    """Return the open3d cloud of points (n, 3)."""
    return o3d.geometry.PointCloud(o3d.utility.Vector3dVector(np.ascontiguousarray(points, float)))


def tilted_table(rng):
    """Return points (3, n) of a noisy table with a box on it, its normal and offset."""
    lean = rng.normal(0, 0.08, 2)
    normal = np.array([*lean, 1.0]) / np.linalg.norm([*lean, 1.0])
    x, y = rng.uniform(-0.3, 0.3, (2, 3000))
    offset = rng.uniform(-0.05, 0.05)
    table = np.stack([x, y, (offset - normal[0] * x - normal[1] * y) / normal[2]]) + rng.normal(0, 0.001, (3, 3000))
    box = rng.uniform((-0.05, -0.05, offset + 0.03), (0.05, 0.05, offset + 0.1), (700, 3)).T
    return np.concatenate([table, box], 1).astype(np.float32), normal, offset


def test_the_plane_is_that_of_open3d():
    o3d.utility.random.seed(0)
    errors = np.zeros((SCENES, 3))
    for seed in range(SCENES):
        points, normal, offset = tilted_table(np.random.default_rng(seed))
        ours = fit_plane(points)
        *theirs, d = o3d_plane = cloud_of(points.T).segment_plane(0.006, 3, 300)[0]
        sign = np.sign(o3d_plane[2])
        middle = points.mean(1).astype(float)
        height = [n @ middle - c for n, c in ((ours.normal_w, ours.offset_m), (sign * np.array(theirs), -sign * d))]
        truth = normal @ middle - offset
        errors[seed] = abs(height[0] - truth), abs(height[1] - truth), abs(height[0] - height[1])
    ours_mm, theirs_mm, difference_mm = 1000 * np.median(errors, 0)
    print(f"height of the plane: ours {ours_mm:.3f} mm, open3d {theirs_mm:.3f} mm off, difference {difference_mm:.3f}")
    assert ours_mm < 0.1 and difference_mm < 0.05 and 1000 * errors[:, 2].max() < 1


def test_the_largest_cluster_is_that_of_dbscan():
    """Two things 4 to 10 cm apart: ours leaves out single far points, which DBSCAN keeps."""
    differing = np.zeros(SCENES)
    for seed in range(SCENES):
        rng = np.random.default_rng(seed)
        sizes, gap = (rng.integers(300, 500), rng.integers(100, 250)), rng.uniform(0.04, 0.1)
        large = rng.uniform((-0.03, -0.03, 0.01), (0.03, 0.03, 0.06), (sizes[0], 3))
        small = rng.uniform((0.03 + gap, -0.02, 0.01), (0.07 + gap, 0.02, 0.05), (sizes[1], 3))
        points = np.concatenate([large, small]).astype(np.float32)
        ours = largest_cluster(points.T, np.ones(len(points), bool), TABLE, 0.008)
        labels = np.array(cloud_of(points).cluster_dbscan(eps=0.02, min_points=3))
        differing[seed] = (ours != (labels == np.bincount(labels[labels >= 0]).argmax())).mean()
        assert ours[: sizes[0]].mean() > 0.98 and not ours[sizes[0] :].any()
    print(f"points in which the clusters differ: {100 * differing.mean():.2f} %, at most {100 * differing.max():.2f} %")
    assert differing.mean() < 0.002 and differing.max() < 0.02
