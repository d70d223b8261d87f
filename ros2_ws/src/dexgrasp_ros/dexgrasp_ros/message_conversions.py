"""Converts ROS messages to arrays and back: commands, states, plans, images, object points.

Only this file knows message layouts. Arrays are in SI units with quaternions wxyz; messages have xyzw. An invalid
message raises MessageError.
"""

import array
import sys
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields
from typing import Any, Literal

import numpy as np
from builtin_interfaces.msg import Duration, Time
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from geometry_msgs.msg import PoseStamped, TwistStamped
from numpy.typing import ArrayLike, NDArray
from sensor_msgs.msg import CameraInfo, Image, JointState, PointCloud2, PointField
from std_msgs.msg import Float64MultiArray, Header, MultiArrayDimension
from trajectory_msgs.msg import JointTrajectory, JointTrajectoryPoint

from dexgrasp.perception.cameras.depth import Intrinsics
from dexgrasp.perception.cameras.numbers import DEPTH_UNIT, POSITION, Quantity, check_depth
from dexgrasp.policies.deploy.policy import PregraspPlan
from dexgrasp_ros.object_estimate import ObjectEstimate

ROTATION_TOLERANCE = 1e-3
"""Accepted deviation of r of camera_info from a rotation matrix."""
UNIT_TOLERANCE = 1e-2
"""Accepted deviation of the norm of a quaternion in a message from 1."""

OK, WARN, ERROR, STALE = DiagnosticStatus.OK, DiagnosticStatus.WARN, DiagnosticStatus.ERROR, DiagnosticStatus.STALE
PLAN_ID = "plan_id"
"""Label of the id in the message of a plan."""
MM = 0.001
LEAST_CLOUD_M = 1e-4
"""Extent below which a cloud of an object is in another unit or byte order."""
CLOUD_FIELDS = ("x", "y", "z", "visible_fraction", "view_fresh")
_DEPTHS = {"16UC1": (np.uint16, MM), "mono16": (np.uint16, MM), "32FC1": (np.float32, 1.0)}
_BROWNS = {"plumb_bob": 5, "rational_polynomial": 14}
_FISHEYES = ("equidistant", "fisheye")
ImageKind = Literal["auto", "raw", "rectified"]
DEPTH_UNITS = {np.uint16: DEPTH_UNIT, np.float32: Quantity("m per unit of the image", 1e-5, 1.0)}
"""Ranges of depth units by the type of the pixels."""
SWAPPED_STEP, SWAPPED_RATIO = 128, 8
"""Median step of neighbouring pixels [unit] from which the byte order is doubted; how many times smoother the other
one must be."""
MAX_FOCAL_RATIO, MAX_CENTRE_SHIFT = 3.0, 0.2
"""Largest ratio of the focal lengths of K and P, and largest distance of their centres [image side], of one camera."""
AGREEING_PX = 0.1
"""Largest distance between raw and rectified pixels at which it does not matter which one an image holds."""
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


class MessageError(ValueError):
    """Raised for an inconsistent or unusable message; the text says what was expected."""


def seconds(stamp: Time | Duration) -> float:
    """Return a stamp in seconds; float64 resolves 0.3 µs at Unix time."""
    return stamp.sec + stamp.nanosec / 1e9


def to_stamp(stamp_s: float) -> Time:
    """Return seconds as a stamp."""
    sec, nanosec = divmod(round(stamp_s * 1e9), 10**9)
    return Time(sec=sec, nanosec=nanosec)


def to_duration(time_s: float) -> Duration:
    """Return seconds as a duration."""
    sec, nanosec = divmod(round(time_s * 1e9), 10**9)
    return Duration(sec=sec, nanosec=nanosec)


def header(stamp_s: float, frame_id: str = "") -> Header:
    """Return a header."""
    return Header(stamp=to_stamp(stamp_s), frame_id=frame_id)


def pose_message(pos: ArrayLike, quat: ArrayLike, stamp_s: float, frame_id: str) -> PoseStamped:
    """Return a pose message of pos (3,) [m] and quat (4,) wxyz."""
    message = PoseStamped(header=header(stamp_s, frame_id))
    at, turn = message.pose.position, message.pose.orientation
    at.x, at.y, at.z = (float(value) for value in np.asarray(pos))
    turn.w, turn.x, turn.y, turn.z = (float(value) for value in np.asarray(quat))
    return message


def pose_from_message(message: PoseStamped) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return position (3,) [m] and unit quaternion (4,) wxyz. Raises MessageError."""
    at, turn = message.pose.position, message.pose.orientation
    pos, quat = np.array([at.x, at.y, at.z]), np.array([turn.w, turn.x, turn.y, turn.z])
    norm = float(np.linalg.norm(quat))
    if not np.isfinite(pos).all() or not abs(norm - 1) <= UNIT_TOLERANCE:
        raise MessageError(f"a pose needs a finite position and a unit quaternion, got {pos} and {quat} (wxyz)")
    _demand_position(pos, "pose.position")
    return pos, quat / norm


def _demand_position(pos_m: NDArray[Any], name: str) -> None:
    """Raise MessageError for coordinates (3,) out of reach of any robot, which are in another unit."""
    try:
        POSITION.read_all(pos_m, name, 3)
    except ValueError as error:
        raise MessageError(str(error)) from error


def twist_message(linear: ArrayLike, angular: ArrayLike, stamp_s: float, frame_id: str) -> TwistStamped:
    """Return a twist message of velocity (3,) [m/s] and angular velocity (3,) [rad/s] in a frame."""
    message = TwistStamped(header=header(stamp_s, frame_id))
    for part, values in ((message.twist.linear, linear), (message.twist.angular, angular)):
        part.x, part.y, part.z = (float(value) for value in np.asarray(values))
    return message


def joint_message(
    names: Sequence[str], position: ArrayLike, stamp_s: float, velocity: ArrayLike = (), effort: ArrayLike = ()
) -> JointState:
    """Return a joint state message of positions [rad], velocities [rad/s] and efforts [N m]."""
    values = (np.asarray(column, float).tolist() for column in (position, velocity, effort))
    columns = dict(zip(("position", "velocity", "effort"), values, strict=True))
    return JointState(header=header(stamp_s), name=list(names), **columns)


def joints_from_message(message: JointState, column: str = "position") -> dict[str, float]:
    """Return the values of one column (position, velocity, effort) by joint name. Raises MessageError.

    Values may be NaN, and a name that occurs twice is left out: the reader of a joint judges its value.
    """
    return _named(list(message.name), getattr(message, column), f"joint state: {column}")


def trajectory_message(
    names: Sequence[str], position: ArrayLike, reach_s: float, stamp_s: float = 0.0
) -> JointTrajectory:
    """Return a trajectory of one point, to be reached `reach_s` after arrival (stamp 0) or stamp."""
    point = JointTrajectoryPoint(positions=np.asarray(position, float).tolist(), time_from_start=to_duration(reach_s))
    return JointTrajectory(header=header(stamp_s), joint_names=list(names), points=[point])


def trajectory_point(message: JointTrajectory) -> tuple[dict[str, float], float]:
    """Return positions by joint name of a trajectory of one point, and the time to reach them [s]."""
    points = list(message.points)
    if len(points) != 1:
        raise MessageError(f"a streamed trajectory needs exactly one point, got {len(points)}")
    point = points[0]
    found = _named(list(message.joint_names), point.positions, "trajectory")
    if bad := [name for name in message.joint_names if not np.isfinite(found.get(name, np.nan))]:
        raise MessageError(f"trajectory: the values of {bad} are not finite, or the names occur twice")
    return found, seconds(point.time_from_start)


def array_message(values: ArrayLike) -> Float64MultiArray:
    """Return an array message without names, as forward command controllers expect it."""
    return Float64MultiArray(data=np.asarray(values, float).ravel().tolist())


def array_from_message(message: Float64MultiArray, size: int) -> NDArray[np.float64]:
    """Return the values (size,). Raises MessageError."""
    values = np.array(message.data, float)
    if len(values) != size or not np.isfinite(values).all():
        raise MessageError(f"a command needs {size} finite values, got {values.tolist()}")
    return values


def plan_message(plan: PregraspPlan, stamp_s: float, plan_id: int | None = None) -> Float64MultiArray:
    """Return the fields of a plan, and its id, in one array; `layout.dim` names each and gives its size."""
    parts = {"stamp_s": np.array([stamp_s])} | ({} if plan_id is None else {PLAN_ID: np.array([plan_id], float)})
    parts |= {item.name: np.asarray(getattr(plan, item.name), float).ravel() for item in fields(plan)}
    message = array_message(np.concatenate(list(parts.values())))
    message.layout.dim = [MultiArrayDimension(label=k, size=len(v), stride=len(v)) for k, v in parts.items()]
    return message


def plan_from_message(message: Float64MultiArray) -> tuple[PregraspPlan, float]:
    """Return the plan, and the stamp of the depth frame it was made from [s]. Raises MessageError."""
    sizes = {item.label: item.size for item in message.layout.dim}
    wanted = {"stamp_s", *(item.name for item in fields(PregraspPlan))}
    values, complete = np.array(message.data, float), set(sizes) - {PLAN_ID} == wanted  # older recordings have no id
    if not complete or len(message.layout.dim) != len(sizes) or sum(sizes.values()) != len(values):
        raise MessageError(f"a plan needs the fields {sorted(wanted)}; got {sizes} for {len(values)} values")
    if not np.isfinite(values).all():
        bad = [k for k, part in _split(sizes, values).items() if not np.isfinite(part).all()]
        raise MessageError(f"the values of a plan must be finite; {bad} are not")
    parts = _split(sizes, values)
    parts.pop(PLAN_ID, None)
    for name, size in {"stamp_s": 1, "palm_pos_w": 3, "palm_quat_w": 4, "depth_m": 1, "floor_m": 1}.items():
        if sizes[name] != size:
            raise MessageError(f"field {name} of a plan needs {size} values, got {sizes[name]}")
    stamp_s, depth_m, floor_m = (float(parts.pop(name)[0]) for name in ("stamp_s", "depth_m", "floor_m"))
    return PregraspPlan(depth_m=depth_m, floor_m=floor_m, **parts), stamp_s


def plan_id_of(message: Float64MultiArray) -> int | None:
    """Return the id of the plan in a message that `plan_from_message` accepts; None where it has none."""
    start = 0
    for item in message.layout.dim:
        if item.label == PLAN_ID:
            return int(message.data[start]) if item.size == 1 else None
        start += item.size
    return None


def diagnostic(name: str, level: bytes, message: str, values: Mapping[str, Any] | None = None) -> DiagnosticStatus:
    """Return one status of /diagnostics; `level` is OK, WARN, ERROR or STALE."""
    rows = [KeyValue(key=key, value=_text(value)) for key, value in (values or {}).items()]
    return DiagnosticStatus(name=name, level=level, message=message, values=rows)


def diagnostics_message(statuses: Iterable[DiagnosticStatus], stamp_s: float) -> DiagnosticArray:
    """Return the message of /diagnostics."""
    return DiagnosticArray(header=header(stamp_s), status=list(statuses))


def _split(sizes: Mapping[str, int], values: NDArray[np.float64]) -> dict[str, NDArray[np.float64]]:
    ends = np.cumsum(list(sizes.values()))[:-1]
    return dict(zip(sizes, np.split(values, ends), strict=True))


def _named(names: Sequence[str], values: Sequence[float], what: str) -> dict[str, float]:
    """Return values by name; a name that occurs more than once has no value."""
    if len(names) != len(values):
        raise MessageError(
            f"{what}: {len(values)} values for the {len(names)} names {list(names)}; expected one per name"
        )
    count = Counter(names)
    return {name: float(value) for name, value in zip(names, values, strict=True) if count[name] == 1}


def _text(value: Any) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def depth_from_image(message: Image, unit_m: float = 0.0) -> NDArray[np.float32]:
    """Return depth (row, column) [m] of an image, 16UC1 (mm) or 32FC1 (m); holes and NaN are 0.

    `unit_m`: unit of the values where it is another one than that of the encoding [m]. Raises MessageError for images
    whose fields contradict each other, and where the depths tell of another unit or byte order.
    """
    if message.encoding not in _DEPTHS:
        raise MessageError(f"a depth image needs encoding 16UC1 (mm) or 32FC1 (m), got '{message.encoding}'")
    kind, own_unit_m = _DEPTHS[message.encoding]
    if message.is_bigendian not in (0, 1):
        raise MessageError(f"is_bigendian of an image must be 0 or 1, got {message.is_bigendian}")
    stored = np.dtype(kind).newbyteorder(">" if message.is_bigendian else "<")
    rows, columns, step = message.height, message.width, message.step
    size = columns * stored.itemsize
    if min(rows, columns) < 1 or step < size or len(message.data) != rows * step:
        raise MessageError(
            f"a {columns}x{rows} image of {message.encoding} needs {rows} rows of at least {size} bytes; "
            f"got step {step} and {len(message.data)} bytes"
        )
    lines = np.frombuffer(message.data, np.uint8).reshape(rows, step)[:, :size]
    values = np.ascontiguousarray(lines).view(stored)
    try:
        unit_m = own_unit_m if unit_m == 0 else DEPTH_UNITS[kind].read(unit_m, "depth_unit_m")
        _refuse_swapped_bytes(values, message.is_bigendian)
        with np.errstate(over="ignore", invalid="ignore"):
            depth_m = values.astype(np.float32) * np.float32(unit_m)
        if kind is np.float32:
            depth_m[~np.isfinite(depth_m) | (depth_m < 0)] = 0.0
        check_depth(depth_m, f"image of {message.encoding}")
    except ValueError as error:
        raise MessageError(str(error)) from error
    return depth_m


def _refuse_swapped_bytes(values: NDArray[Any], is_bigendian: int) -> None:
    """Raise MessageError where 16 bit depth is much smoother along its rows in the other byte order."""
    if values.dtype.itemsize != 2:
        return
    part = values[::8]
    steps = []
    for rows in (part, part.byteswap()):
        left, right = rows[:, :-1].astype(np.int64), rows[:, 1:].astype(np.int64)
        both = (left > 0) & (right > 0)
        steps.append(np.median(np.abs(right - left)[both]) if both.any() else 0.0)
    if steps[0] >= SWAPPED_STEP and steps[1] * SWAPPED_RATIO <= steps[0]:
        raise MessageError(
            f"is_bigendian is {is_bigendian}, and neighbouring pixels differ by {steps[0]:.0f} units; in the other "
            f"byte order by {steps[1]:.0f}: the camera driver sets a wrong is_bigendian"
        )


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


def intrinsics_from_info(message: CameraInfo, kind: ImageKind = "auto") -> Intrinsics:
    """Return the intrinsics of a camera's raw (K and D) or rectified (P) images.

    auto: accepted where both agree.

    Raises MessageError for cropped, binned or uncalibrated images, and where nothing says which images these are.
    """
    _refuse_crop(message)
    if kind == "raw":
        return _raw_camera(message)
    if kind == "rectified":
        return _checked_rectified(message)
    raw, fisheye = _raw_camera(message), message.distortion_model in _FISHEYES
    if not any(message.p) and not fisheye:
        return raw
    off_px = np.inf if fisheye and not any(message.p) else _difference_px(message, raw, _rectified_camera(message))
    if off_px <= AGREEING_PX:
        return raw
    by = f"differ by up to {off_px:.3g} px" if np.isfinite(off_px) else "differ"
    raise MessageError(
        f"camera_info describes raw images (K and D) and rectified images (P), which {by}, and nothing says which one "
        "this is: set depth_image to raw or rectified"
    )


def _refuse_crop(message: CameraInfo) -> None:
    roi, size = message.roi, (message.width, message.height)
    if message.binning_x > 1 or message.binning_y > 1:
        raise MessageError(
            f"camera_info describes an image binned by {message.binning_x} x {message.binning_y}, whose pixel centres "
            "ROS does not define; publish the full image, or a camera_info of the binned image with binning 0"
        )
    if (roi.x_offset, roi.y_offset) != (0, 0) or (roi.width, roi.height) not in ((0, 0), size):
        raise MessageError(
            f"camera_info describes an image cropped to {roi.width}x{roi.height} at ({roi.x_offset}, {roi.y_offset}) "
            f"of {size[0]}x{size[1]}; publish the full image, or a camera_info of the cropped image with an empty roi"
        )


def _raw_camera(message: CameraInfo) -> Intrinsics:
    """Return the camera of K and D."""
    k, d = ([float(value) for value in values] for values in (message.k, message.d))
    if not np.isfinite([*k, *d]).all() or not (k[0] > 0 and k[4] > 0):
        raise MessageError(f"camera_info has no usable intrinsics: k = {k}, d = {d}; calibrate the camera")
    if (k[1], k[3], k[6], k[7], k[8]) != (0, 0, 0, 0, 1):
        raise MessageError(
            f"camera_info: k must be [fx 0 cx 0 fy cy 0 0 1], got {k}; calibrate the camera without skew"
        )
    name = message.distortion_model
    lens: dict[str, Any] = {}
    if name in _FISHEYES:
        lens = {"distortion": "equidistant", "coeffs": tuple(d) or (0.0,) * 4}
    elif any(d):
        if name not in _BROWNS or any(d[_BROWNS[name] :]):
            known = ", ".join(f"{key} (up to {count})" for key, count in _BROWNS.items())
            raise MessageError(
                f"camera_info: {len(d)} coefficients of distortion_model '{name}' are no known lens; known: {known}, "
                f"{', '.join(_FISHEYES)} (4); rectified images need none: set depth_image to rectified"
            )
        lens = {"distortion": "brown_conrady", "coeffs": tuple(d)}
    try:
        return Intrinsics(width=message.width, height=message.height, fx=k[0], fy=k[4], cx=k[2], cy=k[5], **lens)
    except ValueError as error:
        raise MessageError(f"camera_info: {error} (depth_image: rectified where they are)") from error


def _rectified_camera(message: CameraInfo) -> Intrinsics:
    """Return the camera of P."""
    p = [float(value) for value in message.p]
    if not np.isfinite(p).all() or not (p[0] > 0 and p[5] > 0):
        raise MessageError(f"camera_info has no usable projection of rectified images: p = {p}; calibrate the camera")
    if any(p[at] for at in (1, 4, 8, 9)) or p[10] != 1:
        raise MessageError(f"camera_info: p must be [fx 0 cx Tx 0 fy cy Ty 0 0 1 0], got {p}; calibrate the camera")
    if p[3] or p[7] or p[11]:
        raise MessageError(
            f"camera_info: p moves the camera by ({p[3] / p[0]:.4g}, {p[7] / p[5]:.4g}) m, as for the second camera of "
            "a stereo pair; use depth in the frame of the first one, or publish p without this shift"
        )
    try:
        return Intrinsics(width=message.width, height=message.height, fx=p[0], fy=p[5], cx=p[2], cy=p[6])
    except ValueError as error:
        raise MessageError(f"camera_info: {error}") from error


def _checked_rectified(message: CameraInfo) -> Intrinsics:
    """Return the camera of P. Raises MessageError where R turns its frame, or where K is of another image."""
    camera = _rectified_camera(message)
    turn_px = _angle_rad(_rotation(message)) * camera.fx
    if turn_px > AGREEING_PX:
        raise MessageError(
            f"camera_info: r turns the rectified images by {turn_px:.3g} px against the camera, and nothing says which "
            "of the two frames the camera pose is of: publish a camera_info with r = identity in the frame of the "
            "rectified images, and calibrate with these"
        )
    fx, fy, cx, cy = (float(message.k[at]) for at in (0, 4, 2, 5))
    if fx > 0 and fy > 0:
        ratio = max(camera.fx / fx, fx / camera.fx, camera.fy / fy, fy / camera.fy)
        shift = max(abs(camera.cx - cx) / camera.width, abs(camera.cy - cy) / camera.height)
        if not (ratio <= MAX_FOCAL_RATIO and shift <= MAX_CENTRE_SHIFT):
            raise MessageError(
                f"camera_info: p (fx, cx {camera.fx:.4g}, {camera.cx:.4g} px) and k ({fx:.4g}, {cx:.4g} px) are not of "
                f"one {camera.width}x{camera.height} image: publish both for the resolution of the images"
            )
    return camera


def _rotation(message: CameraInfo) -> NDArray[np.float64]:
    """Return r (3, 3); identity where it is not set. Raises MessageError where it is no rotation."""
    R = np.reshape([float(value) for value in message.r], (3, 3))
    if not R.any():
        return np.eye(3)
    if not (np.abs(R @ R.T - np.eye(3)).max() <= ROTATION_TOLERANCE and np.linalg.det(R) > 0):
        raise MessageError(f"camera_info: r must be a rotation matrix, got {R.tolist()}; calibrate the camera")
    return R


def _angle_rad(R: NDArray[np.float64]) -> float:
    """Return the angle of a rotation; exact also for small ones."""
    return float(np.arctan2(np.linalg.norm(R - R.T) / np.sqrt(8), (np.trace(R) - 1) / 2))


def _difference_px(message: CameraInfo, raw: Intrinsics, rectified: Intrinsics) -> float:
    """Return the largest distance between pixels of the raw image and of the rectified one on the same rays."""
    v, u = np.mgrid[0 : raw.height - 1 : 9j, 0 : raw.width - 1 : 9j]
    pixels = np.stack([u, v], -1).reshape(-1, 2)
    rays = np.concatenate([raw.rays_at(pixels), np.ones((len(pixels), 1))], 1)
    rays = rays @ _rotation(message).T
    if not (rays[:, 2] > 0).all():
        return float("inf")
    return float(np.abs(rectified.project(rays) - pixels).max())


def info_from_intrinsics(camera: Intrinsics, stamp_s: float, frame_id: str) -> CameraInfo:
    """Return the camera_info message of the raw images of a camera.

    Raises MessageError for distortion models that it cannot express.
    """
    coeffs = [float(value) for value in camera.coeffs]
    if camera.distortion in ("none", "brown_conrady"):
        name = "plumb_bob" if len(coeffs) <= 5 else "rational_polynomial"
    elif camera.distortion == "equidistant":
        name, coeffs = "equidistant", coeffs[:4]
    else:
        raise MessageError(
            f"camera_info cannot express distortion '{camera.distortion}'; none, brown_conrady and equidistant are "
            "supported"
        )
    k = [camera.fx, 0.0, camera.cx, 0.0, camera.fy, camera.cy, 0.0, 0.0, 1.0]
    return CameraInfo(
        header=header(stamp_s, frame_id),
        height=camera.height,
        width=camera.width,
        distortion_model=name,
        d=coeffs,
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
    row, rows = message.row_step, message.height
    if step < max(ends) or row < message.width * step or len(message.data) != rows * row:
        raise MessageError(
            f"a cloud of {count} points of {step} bytes needs {count * step} bytes, got {len(message.data)}: "
            f"point_step {step} must be at least {max(ends)} for its fields, row_step {row} at least "
            f"{message.width * step}, and data hold {rows} rows"
        )
    lines = np.frombuffer(message.data, np.uint8).reshape(rows, row)[:, : message.width * step]
    kind = np.dtype(
        {
            "names": list(known),
            "formats": [order + _NUMBERS[item.datatype] for item in known.values()],
            "offsets": [item.offset for item in known.values()],
            "itemsize": step,
        }
    )
    rows = np.frombuffer(np.ascontiguousarray(lines), kind)
    with np.errstate(over="ignore", invalid="ignore"):
        points_w = np.stack([rows[name] for name in CLOUD_FIELDS[:3]], axis=1).astype(np.float32)
    extra = {name: float(rows[name][0]) for name in CLOUD_FIELDS[3:] if name in known and count}
    if not np.isfinite(points_w).all() or not np.isfinite(list(extra.values())).all():
        raise MessageError("the points of a cloud must be finite")
    if count:
        _demand_position(points_w[np.abs(points_w).max(1).argmax()], "the furthest point of a cloud (x, y, z)")
        if count > 1 and np.ptp(points_w, axis=0).max() < LEAST_CLOUD_M:
            raise MessageError(
                f"all points of a cloud lie within {LEAST_CLOUD_M:g} m: are x, y, z metres, and is is_bigendian right?"
            )
    if not 0 <= extra.get("visible_fraction", 1.0) <= 1:
        raise MessageError(f"visible_fraction of a cloud must lie in 0..1, got {extra['visible_fraction']:g}")
    return ObjectEstimate(
        points_w=points_w,
        visible_fraction=extra.get("visible_fraction", 1.0),
        view_fresh=bool(extra.get("view_fresh", True)),
        stamp_s=seconds(message.header.stamp),
    )
