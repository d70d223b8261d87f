"""Between ROS messages of cameras and arrays: depth images, intrinsics, points of the object."""

import array
import sys
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sensor_msgs.msg import CameraInfo, Image, PointCloud2, PointField

from dexgrasp_ros.messages import MessageError, header, seconds
from perception.depth import Intrinsics

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


@dataclass(frozen=True)
class Cloud:
    """What perception knows of the object's points."""

    points_w: NDArray[np.float32]
    """(point, 3) [m] in the frame `frame_id`."""
    visible_fraction: float = 1.0
    """Points in the newest frame, as a share of the first one's."""
    view_fresh: bool = True
    """Whether that frame was of use."""
    stamp_s: float = 0.0
    """When the newest depth frame was taken [s]."""
    frame_id: str = "world"


def depth_from_image(message: Image) -> NDArray[np.float32]:
    """Depth (rows, columns) [m] of an image in millimetres (16UC1) or metres (32FC1); 0 = hole, also for NaN."""
    if message.encoding not in _DEPTHS:
        raise MessageError(f"a depth image has encoding 16UC1 (mm) or 32FC1 (m), got '{message.encoding}'")
    kind, unit_m = _DEPTHS[message.encoding]
    size = np.dtype(kind).itemsize
    rows, columns, step = message.height, message.width, message.step
    if min(rows, columns) < 1 or step < columns * size or step % size or len(message.data) != rows * step:
        raise MessageError(
            f"a {columns}x{rows} image of {message.encoding} has {rows} rows of at least {columns * size} bytes; "
            f"got step {step} and {len(message.data)} bytes"
        )
    stored = np.dtype(kind).newbyteorder(">" if message.is_bigendian else "<")
    values = np.frombuffer(message.data, stored).reshape(rows, step // size)[:, :columns]
    depth_m = values.astype(np.float32) * np.float32(unit_m)
    if kind is np.float32:
        depth_m[~np.isfinite(depth_m) | (depth_m < 0)] = 0.0
    return depth_m


def image_from_depth(depth_m: NDArray[Any], stamp_s: float, frame_id: str, encoding: str = "16UC1") -> Image:
    """An image of depth (rows, columns) [m], 0 = hole: millimetres as cameras send it, or metres with NaN."""
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
    """The camera of a depth image."""
    k, d = list(message.k), [float(value) for value in message.d]
    if message.binning_x > 1 or message.binning_y > 1 or message.roi.width or message.roi.height:
        raise MessageError("camera_info describes a binned or cropped image; give that of the whole image")
    if not np.isfinite([*k, *d]).all() or not (k[0] > 0 and k[4] > 0):
        raise MessageError(f"camera_info has no usable intrinsics: k = {k}, d = {d}; is the camera calibrated?")
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
    """The message that goes with every image of this camera."""
    if camera.distortion not in ("none", "brown_conrady"):
        raise MessageError(f"camera_info knows no distortion '{camera.distortion}', only none and brown_conrady")
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


def cloud_message(cloud: Cloud) -> PointCloud2:
    """Points with visible_fraction and view_fresh, constant over the cloud, as further columns."""
    rows = np.empty((len(cloud.points_w), len(CLOUD_FIELDS)), "<f4")
    rows[:, :3], rows[:, 3], rows[:, 4] = cloud.points_w, cloud.visible_fraction, cloud.view_fresh
    columns = enumerate(CLOUD_FIELDS)
    return PointCloud2(
        header=header(cloud.stamp_s, cloud.frame_id),
        height=1,
        width=len(rows),
        fields=[PointField(name=n, offset=4 * i, datatype=PointField.FLOAT32, count=1) for i, n in columns],
        is_bigendian=False,
        point_step=rows.strides[0],
        row_step=rows.nbytes,
        data=array.array("B", rows.tobytes()),
        is_dense=True,
    )


def cloud_from_message(message: PointCloud2) -> Cloud:
    """Points of any cloud with x, y, z; without the further columns everything is visible and fresh."""
    order = ">" if message.is_bigendian else "<"
    known = {item.name: item for item in message.fields if item.count == 1 and item.datatype in _NUMBERS}
    if missing := [name for name in CLOUD_FIELDS[:3] if name not in known]:
        raise MessageError(
            f"a cloud has fields x, y, z; got {[item.name for item in message.fields]}, lacking {missing}"
        )
    count, step = message.width * message.height, message.point_step
    ends = [item.offset + np.dtype(_NUMBERS[item.datatype]).itemsize for item in known.values()]
    if step < max(ends) or message.row_step != message.width * step or len(message.data) != count * step:
        raise MessageError(
            f"a cloud of {count} points of {step} bytes has {count * step} bytes, got {len(message.data)}"
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
        raise MessageError("a cloud of the object's points must be finite")
    return Cloud(
        points_w,
        extra.get("visible_fraction", 1.0),
        bool(extra.get("view_fresh", True)),
        seconds(message.header.stamp),
        message.header.frame_id,
    )
