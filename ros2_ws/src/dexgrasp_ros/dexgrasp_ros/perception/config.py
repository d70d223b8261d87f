"""Parameters of the perception node, and the camera pose and robot model made from them."""

import math
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Literal

import torch

from dexgrasp.perception.cameras.extrinsics import CameraPose, pose_matrix
from dexgrasp.perception.cameras.numbers import DEPTH_UNIT
from dexgrasp.perception.cameras.realsense import RealSenseCfg
from dexgrasp.perception.grasp_planning.planner import Reachable
from dexgrasp.perception.robot_mask import FILE, ArmBody, HandBody, arm_body_of, read_arm_body, read_hand_body
from dexgrasp.perception.segmentation.pipeline import SegmentationCfg
from dexgrasp.policies.deploy.bundle import read_contract
from dexgrasp.policies.deploy.contract import Contract, HandContract
from dexgrasp.utils.bounds import Bounds, bounded
from dexgrasp.utils.rotations import Pose
from dexgrasp_ros.drivers import config
from dexgrasp_ros.drivers.adapters import JointAdapter
from dexgrasp_ros.drivers.arm_kinematics import ArmKinematics, derived_capsules
from dexgrasp_ros.drivers.config import AdapterCfg
from dexgrasp_ros.drivers.joint_states import JointStates
from dexgrasp_ros.perception.state_machine import PerceptionSetup


@dataclass(frozen=True)
@bounded
class PerceptionCfg:
    """Parameters of the perception node."""

    bundle: str
    """Folder of the exported policy: its camera mode and the grasp styles of its hand are used."""
    hand: str = "sim_allegro"
    """Driver of the hand: a name in config/hands or the path of a .yaml; its joint states are read."""
    arm: str = ""
    """Driver of the arm, used to remove it from the image and for the palm pose; empty: palm pose from palm_topic."""
    hand_body: str = ""
    """File capsules.json of the hand; empty: the one in assets/hands."""
    source: str = "topic"
    """Source of depth images: topic, realsense, realsense:SERIAL, a recording (.db3, .bag) or a folder of frames."""
    depth_topic: str = "camera/camera/depth/image_rect_raw"
    """Topic of depth images, 16UC1 in millimetres or 32FC1 in metres."""
    depth_unit_m: Annotated[float, Bounds(0, 1)] = 0.0
    """Unit of the values of depth images [m]; 0 = by their encoding: 0.001 for 16UC1, 1 for 32FC1."""
    depth_stream: Literal["auto", "depth", "color"] = "auto"
    """Camera of the depth images of the topic: depth, or color where depth is aligned to it; auto: by frame_id."""
    depth_image: Literal["auto", "raw", "rectified"] = "auto"
    """Depth images are raw (K and D of camera_info) or rectified (P); auto: by topic name image_raw or image_rect."""
    camera_info_topic: str = "camera/camera/depth/camera_info"
    """Topic of the intrinsics of the depth images."""
    palm_topic: str = "grasp/palm"
    """Topic of the palm pose in the base frame; read where no arm is given."""
    state_topic: str = "grasp/state"
    """Topic of the state of the grasp node."""
    base_frame: str = "world"
    """Frame of published points and poses: z up, the table at z = 0."""
    camera_file: str = ""
    """Camera pose file from `dexgrasp calibrate camera`; empty: camera_pos_m and camera_quat_wxyz are used."""
    camera_frame: str = ""
    """frame_id of the depth images; empty: that in camera_file, else that of the first image."""
    camera_pos_m: Annotated[tuple[float, float, float], Bounds(-10, 10)] = (0.0, 0.0, 0.0)
    """Position of the optical frame of the depth images in the base frame [m]."""
    camera_quat_wxyz: Annotated[tuple[float, ...], Bounds(-1, 1)] = ()
    """Orientation of the optical frame of the depth images (x right, y down, z forward) in the base frame, w first."""
    check_reachability: bool = True
    """Prefer pre-grasps that the arm can reach; without effect where no arm is given."""
    readings_timeout_s: Annotated[float, Bounds(0.001, 60)] = 0.1
    """Largest difference between the stamps of a frame and of the robot readings used with it [s]."""
    held_object_rate_hz: Annotated[float, Bounds(0.1, 1000)] = 60.0
    """Rate at which the points of a held object are published between frames [Hz]."""
    autostart: bool = True
    """Configure and activate without a lifecycle manager."""
    segment: SegmentationCfg = field(default_factory=SegmentationCfg)
    """Settings of the object segmentation."""
    realsense: RealSenseCfg = field(default_factory=RealSenseCfg)
    """Settings of a RealSense camera read by this node."""

    def __post_init__(self) -> None:
        if not self.camera_file and not self.camera_quat_wxyz:
            raise ValueError(
                "the camera pose is missing: give camera_file, or camera_pos_m and camera_quat_wxyz (w first)"
            )
        if self.depth_unit_m:
            replace(DEPTH_UNIT, high=1.0).read(self.depth_unit_m, "depth_unit_m")


def camera_pose(cfg: PerceptionCfg) -> CameraPose:
    """Return the camera pose of a file or of the two parameters."""
    if cfg.camera_file:
        return CameraPose.load(cfg.camera_file)
    T = pose_matrix(cfg.camera_pos_m, cfg.camera_quat_wxyz, "camera_pos_m and camera_quat_wxyz")
    aligned = "color" if cfg.realsense.align_to_color else "depth"
    return CameraPose(T, stream=aligned if cfg.depth_stream == "auto" else cfg.depth_stream)


@dataclass(frozen=True)
class PerceptionInputs:
    """Inputs of the perception node, made from its parameters."""

    setup: PerceptionSetup
    """Camera, robot model and settings."""
    joints: JointStates
    """Joint states of "hand" and, where one is given, "arm"."""


def make_inputs(cfg: PerceptionCfg, namespace: str = "/") -> PerceptionInputs:
    """Read bundle, drivers, capsule models and camera pose. Raises ValueError, OSError or ImportError.

    `namespace`: of the node; relative topics of the drivers are in it.
    """
    contract = read_contract(cfg.bundle)
    hand = config.load("hands", cfg.hand, namespace)
    made_for = contract.hand
    name = made_for.name
    if hand.hand != name:
        raise ValueError(
            f"the bundle {cfg.bundle} is for the hand '{name}', driver '{cfg.hand}' is for '{hand.hand}': give another "
            f"bundle, or in hand= a driver for '{name}'"
        )
    body = hand_body(cfg.hand_body or asset(f"hands/{name}", "give hand_body"), contract.hand)
    adapters = {"hand": JointAdapter(hand, contract.hand.joint_names, contract.hand.coupled, cfg.hand)}
    arm = reachable = None
    if cfg.arm:
        driver = config.load("arms", cfg.arm, namespace)
        arm = arm_body(driver, cfg.arm, contract.hand)
        adapters["arm"] = JointAdapter(driver, arm.joint_names, file=cfg.arm)
        reachable = _reachable(driver, contract) if cfg.check_reachability else None
    T_world_cam = camera_pose(cfg).T_world_cam
    setup = PerceptionSetup(
        contract=contract,
        T_world_cam=T_world_cam,
        hand=body,
        arm=arm,
        segment=cfg.segment,
        reachable=reachable,
        timeout_s=cfg.readings_timeout_s,
    )
    return PerceptionInputs(setup, JointStates(adapters, others=arm is None))


def hand_body(place: str | Path, hand: HandContract) -> HandBody:
    """Return the capsule model of a bundle's hand from the hand's folder or a capsules.json."""
    return read_hand_body(
        place,
        side=hand.side,
        kinematics=vars(hand.kinematics),
        palm_pos_b=hand.palm_pos_b,
        palm_quat_b=hand.palm_quat_b,
    )


def asset(name: str, advice: str) -> Path:
    """Return the path of an asset; `advice` ends the error where the assets are not installed."""
    try:
        from dexgrasp import assets
    except ImportError as error:
        raise ImportError(f"the package `assets` is not installed ({error}): {advice}") from error
    return assets.path(name)


def arm_body(driver: AdapterCfg, name: str, hand: HandContract) -> ArmBody:
    """Return the capsule model of a driver's arm at its base pose.

    It is read from the arm's capsules.json; where there is none, the simulator derives it from the arm's model.
    """
    if driver.arm is None:
        raise ValueError(
            f"driver '{name}' names no arm with known kinematics: leave `arm` empty and publish palm_topic"
        )
    base = None
    if driver.base is not None:
        half = driver.base.yaw_rad / 2
        quat = [math.cos(half), 0.0, 0.0, math.sin(half)]
        base = torch.tensor(driver.base.pos_w, dtype=torch.float64), torch.tensor(quat, dtype=torch.float64)
    place = Path(driver.arm)
    if not place.exists() and place.name == driver.arm and ":" not in driver.arm:
        place = asset(f"arms/{driver.arm}", "leave `arm` empty")
    folder = place if place.is_dir() else place.parent
    if place.suffix in ("", ".yaml") and (folder / FILE).is_file():
        return read_arm_body(folder, base)
    return arm_body_of(derived_capsules(driver.arm, hand), driver.arm, base)


def _reachable(driver: AdapterCfg, contract: Contract) -> Reachable:
    """Return the filter of palm poses that the driver's arm can reach."""
    base = None if driver.base is None else (driver.base.pos_w, driver.base.yaw_rad)
    arm = ArmKinematics(str(driver.arm), contract.hand, 1.0 / contract.control.rate_hz, base)

    def reaches(pos_w: torch.Tensor, quat_w: torch.Tensor) -> torch.Tensor:
        poses = zip(pos_w.numpy(), quat_w.numpy(), strict=True)
        return torch.tensor([arm.reaches(Pose.of(*pose)) for pose in poses])

    return reaches
