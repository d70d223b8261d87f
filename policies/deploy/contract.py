"""Contract of a bundle: units, frames, limits and scales as typed dataclasses. Runs on a robot.

The annotation of a field states its range; a bundle with any other value is refused.
"""

import copy
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Annotated, Any, Literal

import numpy as np

from dexgrasp.perception.motors import Coupling, Motors
from dexgrasp.utils.bounds import Bounds, Share, bounded

SCHEMA = 4
"""Version of the contract; `upgrade_schema_3` converts version 3."""

Metres = Annotated[float, Bounds(-2.0, 2.0)]
Length = Annotated[float, Bounds(0.0, 2.0)]
Angle = Annotated[float, Bounds(-7.0, 7.0)]
Speed = Annotated[float, Bounds(0.0, 10.0)]
Steps = Annotated[int, Bounds(1, 100_000)]
Index = Annotated[int, Bounds(-1, 1000)]
Unit = Annotated[float, Bounds(-1.001, 1.001)]
Vector3 = tuple[Metres, Metres, Metres]
Axis = tuple[Unit, Unit, Unit]
Quaternion = tuple[Unit, Unit, Unit, Unit]
"""wxyz."""
MAX_TENSOR = 1_000_000
"""Largest number of elements of an input of the graph."""


@dataclass(frozen=True)
@bounded
class KinematicsContract:
    """Bodies of the hand as a tree, and points fixed to them."""

    body_names: tuple[str, ...]
    """Names of the bodies, parents before children."""
    parent: tuple[Index, ...]
    """(body,) index of the parent body; -1: the hand base."""
    pos: tuple[Vector3, ...]
    """(body,) position in the parent at joint position 0 [m]."""
    quat: tuple[Quaternion, ...]
    """(body,) orientation in the parent at joint position 0."""
    joint_of_body: tuple[Index, ...]
    """(body,) index of the joint that turns the body; -1: none."""
    axis: tuple[Axis, ...]
    """(body,) axis of that joint in the body frame."""
    keypoint_names: tuple[str, ...]
    """Points whose distances to the object the policy observes."""
    keypoint_body: tuple[Index, ...]
    """(keypoint,) index of the body that carries the keypoint."""
    keypoint_pos: tuple[Vector3, ...]
    """(keypoint,) position in that body [m]."""

    def __post_init__(self) -> None:
        _check_length(self, "body_names", ("parent", "pos", "quat", "joint_of_body", "axis"))
        _check_length(self, "keypoint_names", ("keypoint_body", "keypoint_pos"))
        if any(parent >= body for body, parent in enumerate(self.parent)):
            raise ValueError("kinematics.parent: a body must follow its parent, which has a smaller index or is -1")
        if any(not 0 <= body < len(self.body_names) for body in self.keypoint_body):
            raise ValueError(f"kinematics.keypoint_body must hold indices of the {len(self.body_names)} bodies")
        for i, quat in enumerate(self.quat):
            _check_norm(quat, f"kinematics.quat[{i}]")
        for i, (axis, joint) in enumerate(zip(self.axis, self.joint_of_body, strict=True)):
            if joint >= 0:
                _check_norm(axis, f"kinematics.axis[{i}]")


@dataclass(frozen=True)
@bounded
class HandContract:
    """Hand of the policy; values per joint, and per motor, are in the order of `joint_names`.

    Every joint that is not in `coupled` has a motor.
    """

    name: str
    """Folder of the hand in assets/hands."""
    side: Literal["right", "left"]
    """Side of the hand; left hands are mirrored right ones."""
    joint_names: tuple[str, ...]
    """Joints that move."""
    joint_lower_rad: tuple[Angle, ...]
    """(joint,) lower limits."""
    joint_upper_rad: tuple[Angle, ...]
    """(joint,) upper limits."""
    effort_limit_nm: tuple[Annotated[float, Bounds(1e-4, 1000.0)], ...]
    """(motor,) torque limits of the servos."""
    speed_limit_rad_s: tuple[Annotated[float, Bounds(1e-3, 100.0)], ...]
    """(motor,) speed limits of the servos."""
    kp_nm_rad: tuple[Annotated[float, Bounds(1e-4, 1e5)], ...]
    """(motor,) stiffness of the servos."""
    kd_nms_rad: tuple[Annotated[float, Bounds(0.0, 1e4)], ...]
    """(motor,) damping of the servos."""
    palm_pos_b: Vector3
    """Position of the palm frame in the hand base frame [m]."""
    palm_quat_b: Quaternion
    """Orientation of the palm frame in the hand base frame."""
    kinematics: KinematicsContract
    """Forward kinematics."""
    conventions: str
    """Units and frames of every section, in words."""
    coupled: Mapping[str, Coupling] = field(default_factory=dict)
    """Coupling of each joint without a motor, to the joint of a motor; not written where every joint has a motor."""

    def __post_init__(self) -> None:
        _check_length(self, "joint_names", ("joint_lower_rad", "joint_upper_rad"))
        if not self.joint_names or len(set(self.joint_names)) < len(self.joint_names):
            raise ValueError(f"hand.joint_names must be different names, at least one, got {list(self.joint_names)}")
        if not np.less(self.joint_lower_rad, self.joint_upper_rad).all():
            raise ValueError("hand.joint_lower_rad must be below hand.joint_upper_rad for every joint")
        if unknown := [name for name in self.coupled if name not in self.joint_names]:
            raise ValueError(f"hand.coupled: {unknown} are not in hand.joint_names")
        count = len(self.motors.names)
        per_motor = ("effort_limit_nm", "speed_limit_rad_s", "kp_nm_rad", "kd_nms_rad")
        if wrong := [key for key in per_motor if len(getattr(self, key)) != count]:
            raise ValueError(f"{wrong} must hold {count} values, one per motor")
        lower, upper = self.motors.limits(self.joint_lower_rad, self.joint_upper_rad)
        if not (lower < upper).all():
            raise ValueError(f"hand.coupled leaves no room to {list(np.array(self.motors.names)[lower >= upper])}")
        _check_norm(self.palm_quat_b, "hand.palm_quat_b")
        if max(self.kinematics.joint_of_body, default=-1) >= len(self.joint_names):
            raise ValueError(f"hand.kinematics.joint_of_body must hold indices of the {len(self.joint_names)} joints")

    @cached_property
    def motors(self) -> Motors:
        """Motors and the joints that they move."""
        return Motors(self.joint_names, self.coupled)


@dataclass(frozen=True)
@bounded
class WristContract:
    """The arm's last joint, which must stay clear of the table."""

    offset_m: Length
    """Distance from the palm to its centre, against the direction of the fingers."""
    clearance_m: Length
    """Least height of its centre above the table."""
    max_turn_rad: Annotated[float, Bounds(0.0, 7.0)]
    """Largest rotation of the palm away from its pre-grasp."""


@dataclass(frozen=True)
@bounded
class ScriptedGraspContract:
    """Timing and strength of the scripted grasp that actions correct."""

    approach_fraction: Share
    """Share of the grasp phase spent on the approach."""
    close_rad: Annotated[float, Bounds(0.0, 7.0)]
    """Lead of finger targets over measured positions, per unit of the closing direction."""
    sink_gain_hz: Annotated[float, Bounds(0.0, 1000.0)]
    """Palm speed per metre of the lowest keypoint above `keypoint_floor_m`."""
    sink_speed_m_s: Speed
    """Limit of that speed."""
    keypoint_floor_m: Metres
    """Height of the lowest keypoint above the table while the hand closes."""
    sink_m: Length
    """Largest advance of the palm while closing, beyond the end of the approach."""
    close_at_grip: Share
    """Grip confidence above which the hand closes before the approach is over; 1: never."""
    close_within_m: Length
    """Largest remaining distance of the approach at which the hand may close early."""
    follow_m_s: Speed
    """Speed at which the approach follows an object that moved; 0: it does not."""
    follow_from_m: Length
    """Object motion below which the approach stays as planned."""
    follow_fully_m: Length
    """Object motion above which the approach follows in full."""


@dataclass(frozen=True)
@bounded
class ControlContract:
    """Rates, phases, meaning of actions, and when a grasp counts as empty."""

    rate_hz: Annotated[float, Bounds(1.0, 1000.0)]
    """Control rate."""
    grasp_steps: Steps
    """Control steps of the grasp phase."""
    lift_steps: Steps
    """Control steps of the lift; the hold follows."""
    hold: str
    """End of the hold, in words."""
    min_rise_fraction: Share
    """Least rise of the object, as a share of `lift_m`; an object that rose by less was left behind."""
    min_visible_fraction: Share
    """Least share of the first view's pixels at which the object counts as seen."""
    grip_threshold_unseen: Share
    """Grip confidence above which an unseen object counts as held at the end of the lift."""
    grip_threshold_hold: Share
    """Grip confidence below which the object counts as lost during the hold."""
    lift_m: Annotated[float, Bounds(1e-3, 2.0)]
    """Height of the lift."""
    vector_frame: Literal["palm", "world"]
    """Axes of the vectors from keypoints to the object."""
    palm_action_m_s: Speed
    """Palm speed per unit of action."""
    palm_action_rad_s: Annotated[float, Bounds(0.0, 20.0)]
    """Palm angular speed per unit of action."""
    finger_action_rad: Annotated[float, Bounds(0.0, 7.0)]
    """Lead of finger targets per unit of action."""
    action_clip: Annotated[float, Bounds(1e-3, 1000.0)]
    """Largest magnitude of an action."""
    wrist: WristContract
    """Clearance of the wrist."""
    scripted_grasp: ScriptedGraspContract | None
    """Scripted grasp that actions correct; None: actions are the whole motion."""


@dataclass(frozen=True)
@bounded
class CameraContract:
    """Updates of the object's points, and the camera of the training."""

    mode: Literal["first_frame", "latest", "tracked", "tracked_updated"]
    """first_frame: points of the first frame. latest: points of the newest frame. tracked: points of the first frame,
    moved by the tracker. tracked_updated: as tracked, and points of the newest frame off the tracked object."""
    move_with_palm: bool
    """Whether the points move with the palm in lift and hold."""
    model: Literal["points", "rendered"]
    """Camera of the training: surface samples, or rendered depth through the perception pipeline."""
    frame_interval_steps: Steps
    """Control steps between frames in grasp and lift."""
    hold_frame_interval_steps: Steps
    """Control steps between frames in the hold."""
    latency_steps: Annotated[int, Bounds(0, 1000)]
    """Control steps from a frame to its arrival."""
    disparity_sd_px: Annotated[float, Bounds(0.0, 100.0)]
    """Standard deviation of the stereo matching error."""
    depth_unit_m: Annotated[float, Bounds(0.0, 0.1)]
    """Quantisation of depth; 0: none."""
    edge_dropout: Share
    """Share of the points at silhouette edges that are missing."""
    flying_pixel_rate: Share
    """Share of the points at silhouette edges that lie behind the object."""
    include_grazing_angles: bool
    """Whether surfaces seen at a grazing angle give points."""
    hand_margin_m: Annotated[float, Bounds(0.0, 0.5)]
    """Margin by which the hand hides more than its own shape."""
    min_points: Annotated[int, Bounds(1, MAX_TENSOR)]
    """Frames with fewer points change nothing."""
    points: Annotated[int, Bounds(1, MAX_TENSOR // 3)]
    """Number of object points in the policy's input."""

    @property
    def is_live(self) -> bool:
        """Whether frames after the first one change the points."""
        return self.mode != "first_frame"


@dataclass(frozen=True)
@bounded
class GraspStyleContract:
    """Pre-grasp of one grasp style."""

    open_pose: tuple[Angle, ...]
    """(joint,) finger positions at the pre-grasp [rad]."""
    closing: tuple[Annotated[float, Bounds(-100.0, 100.0)], ...]
    """(motor,) direction in which the fingers close [rad per unit]."""
    offset_y_m: Metres
    """Object centre in the palm frame at the pre-grasp, along +y."""
    offset_z_m: Metres
    """Object centre in the palm frame at the pre-grasp, along +z, the direction of the fingers."""
    gap_m: Metres
    """Distance from the palm centre to the object's top at the end of the approach; may be negative."""
    floor_m: Metres
    """Least height of the palm centre above the table while the fingers are open."""


@dataclass(frozen=True)
@bounded
class PregraspContract:
    """Numbers of the pre-grasp rule."""

    standoff_m: Length
    """Distance of the start from the object's centre."""
    clearance_m: Length
    """Least distance of the start from the top of the object."""
    rolls: Annotated[int, Bounds(1, 1000)]
    """Candidate rolls about the approach direction."""


@dataclass(frozen=True)
@bounded
class GraspContract:
    """Grasp styles of the hand and the pre-grasp rule."""

    power: GraspStyleContract
    """Style for objects of at least `power_m`."""
    pinch: GraspStyleContract
    """Style for objects of at most `pinch_m`."""
    pinch_m: Length
    """Height of objects up to which the grasp is a pinch."""
    power_m: Length
    """Height of objects from which on the grasp is a power grasp; blended in between."""
    pregrasp: PregraspContract
    """Pre-grasp rule."""
    finger_m: Length = 0.012
    """Half the thickness of a finger."""


@dataclass(frozen=True)
@bounded
class TensorContract:
    """An input of the graph without its batch dimension."""

    size: tuple[Annotated[int, Bounds(1, MAX_TENSOR)], ...]
    """Sizes of the dimensions."""
    dtype: Literal["float32", "float64", "int64", "bool"]
    """Type of the elements."""

    def __post_init__(self) -> None:
        if len(self.size) > 4 or math.prod(self.size) > MAX_TENSOR:
            raise ValueError(f"size must hold at most 4 numbers with a product up to {MAX_TENSOR}, got {self.size}")


REQUIRED = {
    "readings": ("joint_pos", "palm_pos_w", "palm_quat_w", "points_w"),
    "state": ("step", "joint_target", "target_pos_w", "target_quat_w", "last_action"),
    "outputs": ("grip", "base_m"),
}
"""Names that the runtime reads or fills in, by role."""
KNOWN = {
    "readings": (*REQUIRED["readings"], "visible_fraction", "view_fresh"),
    "plan": ("start_pos_w", "start_quat_w", "depth_m", "closing", "floor_m"),
}
"""All names that the runtime has values for, by role."""


@dataclass(frozen=True)
@bounded
class GraphContract:
    """Inputs and outputs of policy.onnx."""

    opset: Annotated[int, Bounds(1, 100)]
    """ONNX operator set."""
    inputs: Mapping[str, TensorContract]
    """Every input, in order: readings, plan, state."""
    outputs: tuple[str, ...]
    """Every output, in order: `next_NAME` of each state, then the others."""
    readings: tuple[str, ...]
    """Inputs that are measured in every step."""
    plan: tuple[str, ...]
    """Inputs that the pre-grasp decides once."""
    state: tuple[str, ...]
    """Inputs that are outputs of the step before."""
    initial: str
    """First values of the state, in words."""
    normaliser: str
    """Place of the observation normaliser, in words."""

    def __post_init__(self) -> None:
        stated = [*self.readings, *self.plan, *self.state]
        if len(set(stated)) < len(stated):
            raise ValueError("graph: an input must be in one of graph.readings, plan and state, and once")
        if set(stated) != set(self.inputs):
            raise ValueError(
                f"graph: {sorted(set(stated) ^ set(self.inputs))} must be in graph.inputs and in one of "
                "graph.readings, plan and state"
            )
        if list(self.outputs[: len(self.state)]) != [f"next_{name}" for name in self.state]:
            raise ValueError("graph.outputs must begin with next_NAME of each of graph.state, in order")
        for role, names in REQUIRED.items():
            if missing := [name for name in names if name not in getattr(self, role)]:
                raise ValueError(f"graph.{role} lacks {missing}")
        for role, known in KNOWN.items():
            if unknown := [name for name in getattr(self, role) if name not in known]:
                raise ValueError(f"graph.{role} holds {unknown}; a robot knows {list(known)}")


@dataclass(frozen=True)
@bounded
class TrainingContract:
    """Origin of the policy."""

    stage: Literal["teacher", "student"]
    """Stage of the training."""
    checkpoint: str
    """File name of the checkpoint."""
    config: Mapping[str, Any]
    """Configuration of the training, under the names of its version."""
    run: Mapping[str, Any]
    """Versions, git state, machine and times of the training."""
    sha256: str
    """Hash of the checkpoint."""

    def __post_init__(self) -> None:
        if missing := [key for key in ("hand", "side", "task") if key not in self.config]:
            raise ValueError(f"training.config lacks {missing}")


@dataclass(frozen=True)
@bounded
class ParityContract:
    """Agreement of the bundle with its checkpoint over recorded episodes."""

    steps: Annotated[int, Bounds(0, 10**12)]
    """Control steps that were compared."""
    ties: Annotated[int, Bounds(0, 10**9)]
    """Episodes that ended early because two points were equally near."""
    error: Mapping[str, Annotated[float, Bounds(0.0, 1.0)]]
    """Largest difference of each quantity."""


@dataclass(frozen=True)
@bounded
class Contract:
    """Contract of a bundle: all data that a robot needs beside the graph."""

    hand: HandContract
    """The hand."""
    control: ControlContract
    """Rates, phases, scales."""
    camera: CameraContract
    """Camera and points of the object."""
    grasp: GraspContract
    """Grasp styles and pre-grasp rule."""
    graph: GraphContract
    """Inputs and outputs of policy.onnx."""
    training: TrainingContract
    """Origin of the policy."""
    export: Mapping[str, Any] = field(default_factory=dict)
    """Versions, git state and machine of the export."""
    parity: ParityContract | None = None
    """Agreement with the checkpoint; None until it was measured."""
    files: Mapping[str, str] = field(default_factory=dict)
    """SHA-256 of policy.onnx and golden.npz."""
    sha256: str = ""
    """SHA-256 of the contract without this field."""
    schema: Annotated[int, Bounds(SCHEMA, SCHEMA)] = SCHEMA
    """Version of the contract."""

    def __post_init__(self) -> None:
        joints, motors = len(self.hand.joint_names), len(self.hand.motors.names)
        for style, values in (("power", self.grasp.power), ("pinch", self.grasp.pinch)):
            for key, count, what in (("open_pose", joints, "joint"), ("closing", motors, "motor")):
                if len(getattr(values, key)) != count:
                    raise ValueError(f"grasp.{style}: {key} must hold {count} values, one per {what}")
        if self.grasp.pinch_m > self.grasp.power_m:
            raise ValueError("grasp.pinch_m must not exceed grasp.power_m")
        sizes = _input_sizes(joints, motors, self.camera.points)
        for name, tensor in self.graph.inputs.items():
            if name in sizes and tensor.size != sizes[name]:
                raise ValueError(f"graph.inputs.{name}.size must be {list(sizes[name])}, got {list(tensor.size)}")


RENAMED_IN_SCHEMA_4 = {
    "view": "camera",
    "camera.carried": "camera.move_with_palm",
    "camera.camera": "camera.model",
    "camera.period_steps": "camera.frame_interval_steps",
    "camera.held_period_steps": "camera.hold_frame_interval_steps",
    "camera.edge_loss": "camera.edge_dropout",
    "camera.flying": "camera.flying_pixel_rate",
    "camera.steep": "camera.include_grazing_angles",
    "control.left_share": "control.min_rise_fraction",
    "control.unseen_share": "control.min_visible_fraction",
    "control.sure_grip": "control.grip_threshold_unseen",
    "control.lost_grip": "control.grip_threshold_hold",
    "control.vectors": "control.vector_frame",
    "control.prior": "control.scripted_grasp",
    "control.wrist.behind_m": "control.wrist.offset_m",
    "control.wrist.turn_rad": "control.wrist.max_turn_rad",
    "graph.carried": "graph.state",
}
"""Dotted key of schema 3 -> dotted key of schema 4; sections first."""
CAMERA_MODES = {"frozen": "first_frame", "refreshed": "latest", "tracked": "tracked", "corrected": "tracked_updated"}
CAMERA_MODELS = {"model": "points", "rendered": "rendered"}
"""Value of schema 3 -> value of schema 4."""


def upgrade_schema_3(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return a contract of schema 3 (plain values) under the names of schema 4.

    Fields that it lacks stay missing.
    """
    tree = copy.deepcopy(dict(values)) | {"schema": SCHEMA}
    for old, new in RENAMED_IN_SCHEMA_4.items():
        *parents, last = old.split(".")
        level: Any = tree
        for parent in parents:
            level = level.get(parent, {}) if isinstance(level, dict) else {}
        if isinstance(level, dict) and last in level:
            level[new.rpartition(".")[2]] = level.pop(last)
    camera = tree.get("camera")
    if isinstance(camera, dict):
        for key, names in (("mode", CAMERA_MODES), ("model", CAMERA_MODELS)):
            if key in camera:
                camera[key] = names.get(str(camera[key]), camera[key])
    return tree


def _input_sizes(joints: int, motors: int, points: int) -> dict[str, tuple[int, ...]]:
    """Return the sizes of the inputs that the runtime reads or fills in."""
    vectors = dict.fromkeys(("palm_pos_w", "start_pos_w", "target_pos_w"), (3,))
    quats = dict.fromkeys(("palm_quat_w", "start_quat_w", "target_quat_w"), (4,))
    fingers = {"joint_pos": (joints,), "joint_target": (motors,), "closing": (motors,)}
    scalars: dict[str, tuple[int, ...]] = dict.fromkeys(
        ("visible_fraction", "view_fresh", "depth_m", "floor_m", "step"), ()
    )
    return scalars | vectors | quats | fingers | {"points_w": (points, 3)}


def _check_norm(vector: Sequence[float], name: str) -> None:
    if abs(np.linalg.norm(vector) - 1.0) > 1e-3:
        raise ValueError(f"{name} must have the length 1, got {list(vector)}")


def _check_length(section: Any, names: str, per_name: Sequence[str]) -> None:
    count = len(getattr(section, names))
    if wrong := [key for key in per_name if len(getattr(section, key)) != count]:
        raise ValueError(f"{wrong} must hold {count} values, as {names} does")
