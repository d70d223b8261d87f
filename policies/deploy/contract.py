"""Contract of a bundle: units, frames, limits and scales as typed dataclasses. Runs on a robot."""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

SCHEMA = 4
"""Version of the contract; `upgrade_schema_3` converts version 3."""

Vector3 = tuple[float, float, float]
Quaternion = tuple[float, float, float, float]
"""wxyz."""


@dataclass(frozen=True)
class KinematicsContract:
    """Bodies of the hand as a tree, and points fixed to them."""

    body_names: tuple[str, ...]
    """Names of the bodies, parents before children."""
    parent: tuple[int, ...]
    """(body,) index of the parent body; -1: the hand base."""
    pos: tuple[Vector3, ...]
    """(body,) position in the parent at joint position 0 [m]."""
    quat: tuple[Quaternion, ...]
    """(body,) orientation in the parent at joint position 0."""
    joint_of_body: tuple[int, ...]
    """(body,) index of the joint that turns the body; -1: none."""
    axis: tuple[Vector3, ...]
    """(body,) axis of that joint in the body frame."""
    keypoint_names: tuple[str, ...]
    """Points whose distances to the object the policy observes."""
    keypoint_body: tuple[int, ...]
    """(keypoint,) index of the body that carries the keypoint."""
    keypoint_pos: tuple[Vector3, ...]
    """(keypoint,) position in that body [m]."""

    def __post_init__(self) -> None:
        _check_length(self, "body_names", ("parent", "pos", "quat", "joint_of_body", "axis"))
        _check_length(self, "keypoint_names", ("keypoint_body", "keypoint_pos"))


@dataclass(frozen=True)
class HandContract:
    """Hand of the policy; values per joint are in the order of `joint_names`."""

    name: str
    """Folder of the hand in assets/hands."""
    side: Literal["right", "left"]
    """Side of the hand; left hands are mirrored right ones."""
    joint_names: tuple[str, ...]
    """Actuated joints."""
    joint_lower_rad: tuple[float, ...]
    """(joint,) lower limits."""
    joint_upper_rad: tuple[float, ...]
    """(joint,) upper limits."""
    effort_limit_nm: tuple[float, ...]
    """(joint,) torque limits of the servos."""
    speed_limit_rad_s: tuple[float, ...]
    """(joint,) speed limits of the servos."""
    kp_nm_rad: tuple[float, ...]
    """(joint,) stiffness of the servos."""
    kd_nms_rad: tuple[float, ...]
    """(joint,) damping of the servos."""
    palm_pos_b: Vector3
    """Position of the palm frame in the hand base frame [m]."""
    palm_quat_b: Quaternion
    """Orientation of the palm frame in the hand base frame."""
    kinematics: KinematicsContract
    """Forward kinematics."""
    conventions: str
    """Units and frames of every section, in words."""

    def __post_init__(self) -> None:
        positive = ("effort_limit_nm", "speed_limit_rad_s", "kp_nm_rad")
        _check_length(self, "joint_names", ("joint_lower_rad", "joint_upper_rad", *positive, "kd_nms_rad"))
        if not self.joint_names or len(set(self.joint_names)) < len(self.joint_names):
            raise ValueError(f"hand.joint_names must be different names, at least one, got {list(self.joint_names)}")
        if not np.less(self.joint_lower_rad, self.joint_upper_rad).all():
            raise ValueError("hand.joint_lower_rad must be below hand.joint_upper_rad for every joint")
        for name in positive:
            if min(getattr(self, name)) <= 0:
                raise ValueError(f"hand.{name} must be positive, got {min(getattr(self, name))}")
        if abs(np.linalg.norm(self.palm_quat_b) - 1.0) > 1e-3:
            raise ValueError(f"hand.palm_quat_b must be a unit quaternion, got {self.palm_quat_b}")


@dataclass(frozen=True)
class WristContract:
    """The arm's last joint, which must stay clear of the table."""

    offset_m: float
    """Distance from the palm to its centre, against the direction of the fingers."""
    clearance_m: float
    """Least height of its centre above the table."""
    max_turn_rad: float
    """Largest rotation of the palm away from its pre-grasp."""


@dataclass(frozen=True)
class ScriptedGraspContract:
    """Timing and strength of the scripted grasp that actions correct."""

    approach_fraction: float
    """Share of the grasp phase spent on the approach."""
    close_rad: float
    """Lead of finger targets over measured positions, per unit of the closing direction."""
    sink_gain_hz: float
    """Palm speed per metre of the lowest keypoint above `keypoint_floor_m`."""
    sink_speed_m_s: float
    """Limit of that speed."""
    keypoint_floor_m: float
    """Height of the lowest keypoint above the table while the hand closes."""
    sink_m: float
    """Largest advance of the palm while closing, beyond the end of the approach."""
    close_at_grip: float
    """Grip confidence above which the hand closes before the approach is over; 1: never."""
    close_within_m: float
    """Largest remaining distance of the approach at which the hand may close early."""
    follow_m_s: float
    """Speed at which the approach follows an object that moved; 0: it does not."""
    follow_from_m: float
    """Object motion below which the approach stays as planned."""
    follow_fully_m: float
    """Object motion above which the approach follows in full."""


@dataclass(frozen=True)
class ControlContract:
    """Rates, phases, meaning of actions, and when a grasp counts as empty."""

    rate_hz: float
    """Control rate."""
    grasp_steps: int
    """Control steps of the grasp phase."""
    lift_steps: int
    """Control steps of the lift; the hold follows."""
    hold: str
    """End of the hold, in words."""
    min_rise_fraction: float
    """Least rise of the object, as a share of `lift_m`; an object that rose by less was left behind."""
    min_visible_fraction: float
    """Least share of the first view's pixels at which the object counts as seen."""
    grip_threshold_unseen: float
    """Grip confidence above which an unseen object counts as held at the end of the lift."""
    grip_threshold_hold: float
    """Grip confidence below which the object counts as lost during the hold."""
    lift_m: float
    """Height of the lift."""
    vector_frame: Literal["palm", "world"]
    """Axes of the vectors from keypoints to the object."""
    palm_action_m_s: float
    """Palm speed per unit of action."""
    palm_action_rad_s: float
    """Palm angular speed per unit of action."""
    finger_action_rad: float
    """Lead of finger targets per unit of action."""
    action_clip: float
    """Largest magnitude of an action."""
    wrist: WristContract
    """Clearance of the wrist."""
    scripted_grasp: ScriptedGraspContract | None
    """Scripted grasp that actions correct; None: actions are the whole motion."""

    def __post_init__(self) -> None:
        if not 1.0 <= self.rate_hz <= 1000.0:
            raise ValueError(f"control.rate_hz must lie in 1..1000 Hz, got {self.rate_hz}")
        if min(self.grasp_steps, self.lift_steps) < 1:
            raise ValueError("control.grasp_steps and lift_steps must be at least 1")
        if not (self.lift_m > 0 and self.action_clip > 0):
            raise ValueError("control.lift_m and action_clip must be positive")
        shares = ("min_rise_fraction", "min_visible_fraction", "grip_threshold_unseen", "grip_threshold_hold")
        for name in shares:
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"control.{name} must lie in 0..1, got {getattr(self, name)}")


@dataclass(frozen=True)
class CameraContract:
    """Updates of the object's points, and the camera of the training."""

    mode: Literal["first_frame", "latest", "tracked", "tracked_updated"]
    """first_frame: points of the first frame. latest: points of the newest frame. tracked: points of the first frame,
    moved by the tracker. tracked_updated: as tracked, and points of the newest frame off the tracked object."""
    move_with_palm: bool
    """Whether the points move with the palm in lift and hold."""
    model: Literal["points", "rendered"]
    """Camera of the training: surface samples, or rendered depth through the perception pipeline."""
    frame_interval_steps: int
    """Control steps between frames in grasp and lift."""
    hold_frame_interval_steps: int
    """Control steps between frames in the hold."""
    latency_steps: int
    """Control steps from a frame to its arrival."""
    disparity_sd_px: float
    """Standard deviation of the stereo matching error."""
    depth_unit_m: float
    """Quantisation of depth; 0: none."""
    edge_dropout: float
    """Share of the points at silhouette edges that are missing."""
    flying_pixel_rate: float
    """Share of the points at silhouette edges that lie behind the object."""
    include_grazing_angles: bool
    """Whether surfaces seen at a grazing angle give points."""
    hand_margin_m: float
    """Margin by which the hand hides more than its own shape."""
    min_points: int
    """Frames with fewer points change nothing."""
    points: int
    """Number of object points in the policy's input."""

    def __post_init__(self) -> None:
        if min(self.frame_interval_steps, self.hold_frame_interval_steps, self.min_points, self.points) < 1:
            raise ValueError("camera: frame intervals, min_points and points must be at least 1")

    @property
    def is_live(self) -> bool:
        """Whether frames after the first one change the points."""
        return self.mode != "first_frame"


@dataclass(frozen=True)
class GraspStyleContract:
    """Pre-grasp of one grasp style."""

    open_pose: tuple[float, ...]
    """(joint,) finger positions at the pre-grasp [rad]."""
    closing: tuple[float, ...]
    """(joint,) direction in which the fingers close [rad per unit]."""
    offset_y_m: float
    """Object centre in the palm frame at the pre-grasp, along +y."""
    offset_z_m: float
    """Object centre in the palm frame at the pre-grasp, along +z, the direction of the fingers."""
    gap_m: float
    """Distance from the palm centre to the object's top at the end of the approach."""
    floor_m: float
    """Least height of the palm centre above the table while the fingers are open."""


@dataclass(frozen=True)
class PregraspContract:
    """Numbers of the pre-grasp rule."""

    standoff_m: float
    """Distance of the start from the object's centre."""
    clearance_m: float
    """Least distance of the start from the top of the object."""
    rolls: int
    """Candidate rolls about the approach direction."""


@dataclass(frozen=True)
class GraspContract:
    """Grasp styles of the hand and the pre-grasp rule."""

    power: GraspStyleContract
    """Style for objects of at least `power_m`."""
    pinch: GraspStyleContract
    """Style for objects of at most `pinch_m`."""
    pinch_m: float
    """Object width up to which the grasp is a pinch."""
    power_m: float
    """Object width from which on the grasp is a power grasp; blended in between."""
    pregrasp: PregraspContract
    """Pre-grasp rule."""


@dataclass(frozen=True)
class TensorContract:
    """An input of the graph without its batch dimension."""

    size: tuple[int, ...]
    """Sizes of the dimensions."""
    dtype: Literal["float32", "float64", "int64", "bool"]
    """Type of the elements."""

    def __post_init__(self) -> None:
        if any(size < 1 for size in self.size):
            raise ValueError(f"size must hold positive numbers, got {list(self.size)}")


@dataclass(frozen=True)
class GraphContract:
    """Inputs and outputs of policy.onnx."""

    opset: int
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
        stated = {*self.readings, *self.plan, *self.state}
        if stated != set(self.inputs):
            raise ValueError(
                f"graph: {sorted(stated ^ set(self.inputs))} must be in graph.inputs and in one of graph.readings, "
                "plan and state"
            )
        if list(self.outputs[: len(self.state)]) != [f"next_{name}" for name in self.state]:
            raise ValueError("graph.outputs must begin with next_NAME of each of graph.state, in order")


@dataclass(frozen=True)
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


@dataclass(frozen=True)
class ParityContract:
    """Agreement of the bundle with its checkpoint over recorded episodes."""

    steps: int
    """Control steps that were compared."""
    ties: int
    """Episodes that ended early because two points were equally near."""
    error: Mapping[str, float]
    """Largest difference of each quantity."""


@dataclass(frozen=True)
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
    schema: int = SCHEMA
    """Version of the contract."""

    def __post_init__(self) -> None:
        joints = len(self.hand.joint_names)
        for style, values in (("power", self.grasp.power), ("pinch", self.grasp.pinch)):
            if {len(values.open_pose), len(values.closing)} != {joints}:
                raise ValueError(f"grasp.{style}: open_pose and closing must hold {joints} values, one per joint")


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
                camera[key] = names.get(camera[key], camera[key])
    return tree


def _check_length(section: Any, names: str, per_name: Sequence[str]) -> None:
    count = len(getattr(section, names))
    if wrong := [key for key in per_name if len(getattr(section, key)) != count]:
        raise ValueError(f"{wrong} must hold {count} values, as {names} does")
