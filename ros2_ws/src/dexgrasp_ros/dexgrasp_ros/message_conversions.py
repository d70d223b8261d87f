"""Converts ROS messages to arrays and back.

Only this file and camera_messages.py know message layouts.
Arrays are in SI units with quaternions wxyz; messages have xyzw. An invalid message raises MessageError.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields
from typing import Any

import numpy as np
from builtin_interfaces.msg import Duration, Time
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from geometry_msgs.msg import PoseStamped, TwistStamped
from numpy.typing import ArrayLike, NDArray
from sensor_msgs.msg import JointState
from std_msgs.msg import Float64MultiArray, Header, MultiArrayDimension
from trajectory_msgs.msg import JointTrajectory, JointTrajectoryPoint

from dexgrasp.policies.deploy.policy import PregraspPlan

UNIT_TOLERANCE = 1e-2
"""Accepted deviation of the norm of a quaternion in a message from 1."""
OK, WARN, ERROR, STALE = DiagnosticStatus.OK, DiagnosticStatus.WARN, DiagnosticStatus.ERROR, DiagnosticStatus.STALE


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
    return pos, quat / norm


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
    """Return the values of one column (position, velocity, effort) by joint name. Raises MessageError."""
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
    return _named(list(message.joint_names), point.positions, "trajectory"), seconds(point.time_from_start)


def array_message(values: ArrayLike) -> Float64MultiArray:
    """Return an array message without names, as forward command controllers expect it."""
    return Float64MultiArray(data=np.asarray(values, float).ravel().tolist())


def array_from_message(message: Float64MultiArray, size: int) -> NDArray[np.float64]:
    """Return the values (size,). Raises MessageError."""
    values = np.array(message.data, float)
    if len(values) != size or not np.isfinite(values).all():
        raise MessageError(f"a command needs {size} finite values, got {values.tolist()}")
    return values


def plan_message(plan: PregraspPlan, stamp_s: float) -> Float64MultiArray:
    """Return the fields of a plan in one array; `layout.dim` names each and gives its size."""
    parts = {"stamp_s": np.array([stamp_s])}
    parts |= {item.name: np.asarray(getattr(plan, item.name), float).ravel() for item in fields(plan)}
    message = array_message(np.concatenate(list(parts.values())))
    message.layout.dim = [MultiArrayDimension(label=k, size=len(v), stride=len(v)) for k, v in parts.items()]
    return message


def plan_from_message(message: Float64MultiArray) -> tuple[PregraspPlan, float]:
    """Return the plan, and the stamp of the depth frame it was made from [s]. Raises MessageError."""
    sizes = {item.label: item.size for item in message.layout.dim}
    wanted = {"stamp_s", *(item.name for item in fields(PregraspPlan))}
    values = np.array(message.data, float)
    if set(sizes) != wanted or len(message.layout.dim) != len(wanted) or sum(sizes.values()) != len(values):
        raise MessageError(f"a plan needs the fields {sorted(wanted)}; got {sizes} for {len(values)} values")
    if not np.isfinite(values).all():
        bad = [k for k, part in _split(sizes, values).items() if not np.isfinite(part).all()]
        raise MessageError(f"the values of a plan must be finite; {bad} are not")
    parts = _split(sizes, values)
    for name, size in {"stamp_s": 1, "palm_pos_w": 3, "palm_quat_w": 4, "depth_m": 1, "floor_m": 1}.items():
        if sizes[name] != size:
            raise MessageError(f"field {name} of a plan needs {size} values, got {sizes[name]}")
    stamp_s, depth_m, floor_m = (float(parts.pop(name)[0]) for name in ("stamp_s", "depth_m", "floor_m"))
    return PregraspPlan(depth_m=depth_m, floor_m=floor_m, **parts), stamp_s


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
    if len(names) != len(values) or len(set(names)) != len(names):
        raise MessageError(
            f"{what}: {len(values)} values for the {len(names)} names {list(names)}; expected one per name"
        )
    found = {name: float(value) for name, value in zip(names, values, strict=True)}
    if bad := [name for name, value in found.items() if not math.isfinite(value)]:
        raise MessageError(f"{what}: the values of {bad} are not finite")
    return found


def _text(value: Any) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value)
