"""Converts ROS messages of cameras to arrays and back: depth images, intrinsics, object points."""

import array
import sys
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sensor_msgs.msg import CameraInfo, Image, PointCloud2, PointField

from dexgrasp.perception.cameras.depth import Intrinsics
from dexgrasp_ros.message_conversions import MessageError, header, seconds
from dexgrasp_ros.object_estimate import ObjectEstimate

MM = 0.001
CLOUD_FIELDS = ("x", "y", "z", "visible_fraction", "view_fresh")
_DEPTHS = {"16UC1": (np.uint16, MM), "mono16": (np.uint16, MM), "32FC1": (np.float32, 1.0)}
_NUMBERS = {
    PointField.INT8: "i1",
    PointField.UINT8: "u1",
    PointField.INT16: "i2",
    PointField.UINT16: "u2",
    PointField.INT32: "i4",
    PointField.UINT32: "u4",
    PointField.FLOAT32: "f4",
    PointField.FLOAT64: "f8",
}


def depth_from_image(message: Image) -> NDArray[np.float32]:
    """Return depth (row, column) [m] of an image, 16UC1 (mm) or 32FC1 (m); holes and NaN are 0."""
    if message.encoding not in _DEPTHS:
        raise MessageError(f"a depth image needs encoding 16UC1 (mm) or 32FC1 (m), got '{message.encoding}'")
    kind, unit_m = _DEPTHS[message.encoding]
    size = np.dtype(kind).itemsize
    rows, columns, step = message.height, message.width, message.step
    if min(rows, columns) < 1 or step < columns * size or step % size or len(message.data) != rows * step:
        raise MessageError(
            f"a {columns}x{rows} image of {message.encoding} needs {rows} rows of at least {columns * size} bytes; "
            f"got step {step} and {len(message.data)} bytes"
        )
    stored = np.dtype(kind).newbyteorder(">" if message.is_bigendian else "<")
    values = np.frombuffer(message.data, stored).reshape(rows, step // size)[:, :columns]
    depth_m = values.astype(np.float32) * np.float32(unit_m)
    if kind is np.float32:
        depth_m[~np.isfinite(depth_m) | (depth_m < 0)] = 0.0
    return depth_m


def image_from_depth(depth_m: NDArray[Any], stamp_s: float, frame_id: str, encoding: str = "16UC1") -> Image:
    """Return an image of depth (row, column) [m], 0 = hole: 16UC1 in mm, or 32FC1 in m with NaN."""
    if encoding == "16UC1":
        values = np.clip(np.rint(depth_m / MM), 0, np.iinfo(np.uint16).max).astype(np.uint16)
    else:
        values = np.where(depth_m > 0, depth_m, np.nan).astype(np.float32)
    return Image(
        header=header(stamp_s, frame_id),
        height=depth_m.shape[0],
        width=depth_m.shape[1],
        encoding=encoding,
        is_bigendian=int(sys.byteorder == "big"),
        step=depth_m.shape[1] * values.itemsize,
        data=array.array("B", values.tobytes()),
    )


def intrinsics_from_info(message: CameraInfo) -> Intrinsics:
    """Return the intrinsics of a depth camera.

    Raises MessageError for cropped, binned or uncalibrated images.
    """
    k, d = ([float(value) for value in values] for values in (message.k, message.d))
    if message.binning_x > 1 or message.binning_y > 1 or message.roi.width or message.roi.height:
        raise MessageError("camera_info describes a binned or cropped image; publish the full image")
    if not np.isfinite([*k, *d]).all() or not (k[0] > 0 and k[4] > 0):
        raise MessageError(f"camera_info has no usable intrinsics: k = {k}, d = {d}; calibrate the camera")
    if any(d) and (message.distortion_model != "plumb_bob" or len(d) != 5):
        raise MessageError(
            f"camera_info: distortion must be plumb_bob with 5 coefficients, got '{message.distortion_model}' "
            f"with {len(d)}; use a rectified image"
        )
    lens = {"distortion": "brown_conrady", "coeffs": tuple(d)} if any(d) else {}
    try:
        return Intrinsics(message.width, message.height, k[0], k[4], k[2], k[5], **lens)
    except ValueError as error:
        raise MessageError(f"camera_info: {error}") from error


def info_from_intrinsics(camera: Intrinsics, stamp_s: float, frame_id: str) -> CameraInfo:
    """Return the camera_info message of a camera.

    Raises MessageError for distortion models that it cannot express.
    """
    if camera.distortion not in ("none", "brown_conrady"):
        raise MessageError(
            f"camera_info cannot express distortion '{camera.distortion}'; none and brown_conrady are supported"
        )
    k = [camera.fx, 0.0, camera.cx, 0.0, camera.fy, camera.cy, 0.0, 0.0, 1.0]
    return CameraInfo(
        header=header(stamp_s, frame_id),
        height=camera.height,
        width=camera.width,
        distortion_model="plumb_bob",
        d=[float(value) for value in camera.coeffs],
        k=[float(value) for value in k],
        r=[float(value) for value in np.eye(3).ravel()],
        p=[float(value) for value in np.insert(np.reshape(k, (3, 3)), 3, 0.0, axis=1).ravel()],
    )


def estimate_message(estimate: ObjectEstimate, frame_id: str) -> PointCloud2:
    """Return the points as a cloud, with visible_fraction and view_fresh as constant columns."""
    rows = np.empty((len(estimate.points_w), len(CLOUD_FIELDS)), "<f4")
    rows[:, :3], rows[:, 3], rows[:, 4] = estimate.points_w, estimate.visible_fraction, estimate.view_fresh
    columns = enumerate(CLOUD_FIELDS)
    return PointCloud2(
        header=header(estimate.stamp_s, frame_id),
        height=1,
        width=len(rows),
        fields=[PointField(name=n, offset=4 * i, datatype=PointField.FLOAT32, count=1) for i, n in columns],
        is_bigendian=False,
        point_step=rows.strides[0],
        row_step=rows.nbytes,
        data=array.array("B", rows.tobytes()),
        is_dense=True,
    )


def estimate_from_message(message: PointCloud2) -> ObjectEstimate:
    """Return the object estimate of any cloud with x, y, z.

    Without the other columns the object is fully visible and the view fresh. The frame of the points is
    `message.header.frame_id`. Raises MessageError.
    """
    order = ">" if message.is_bigendian else "<"
    known = {item.name: item for item in message.fields if item.count == 1 and item.datatype in _NUMBERS}
    if missing := [name for name in CLOUD_FIELDS[:3] if name not in known]:
        raise MessageError(
            f"a cloud needs fields x, y, z; got {[item.name for item in message.fields]}, missing {missing}"
        )
    count, step = message.width * message.height, message.point_step
    ends = [item.offset + np.dtype(_NUMBERS[item.datatype]).itemsize for item in known.values()]
    if step < max(ends) or message.row_step != message.width * step or len(message.data) != count * step:
        raise MessageError(
            f"a cloud of {count} points of {step} bytes needs {count * step} bytes, got {len(message.data)}"
        )
    kind = np.dtype(
        {
            "names": list(known),
            "formats": [order + _NUMBERS[item.datatype] for item in known.values()],
            "offsets": [item.offset for item in known.values()],
            "itemsize": step,
        }
    )
    rows = np.frombuffer(message.data, kind)
    points_w = np.stack([rows[name] for name in CLOUD_FIELDS[:3]], axis=1).astype(np.float32)
    extra = {name: float(rows[name][0]) for name in CLOUD_FIELDS[3:] if name in known and count}
    if not np.isfinite(points_w).all() or not np.isfinite(list(extra.values())).all():
        raise MessageError("the points of a cloud must be finite")
    return ObjectEstimate(
        points_w=points_w,
        visible_fraction=extra.get("visible_fraction", 1.0),
        view_fresh=bool(extra.get("view_fresh", True)),
        stamp_s=seconds(message.header.stamp),
    )
