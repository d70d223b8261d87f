"""Parameters of the perception node, and what they make: camera pose, bodies of hand and arm."""

import math
from dataclasses import dataclass, field
from pathlib import Path

import torch

from dexgrasp.utils.rotations import Pose
from dexgrasp_ros import adapter_cfg
from dexgrasp_ros.adapter_cfg import AdapterCfg
from dexgrasp_ros.adapters import JointAdapter
from dexgrasp_ros.arm import Arm
from dexgrasp_ros.joint_states import JointStates
from dexgrasp_ros.watching import Scene
from perception.best_pregrasp import Reachable
from perception.extrinsics import CameraPose, pose_matrix
from perception.realsense import RealSenseCfg
from perception.robot_body import ArmBody, HandBody, read_arm_body, read_hand_body
from perception.segment import SegmentCfg
from policies.bundle import read_contract
from policies.contract import Contract, HandContract


@dataclass(frozen=True)
class PerceptionCfg:
    """What the perception node is told."""

    bundle: str
    """Folder of the exported policy: how it goes on seeing the object, how its hand takes hold."""
    hand: str = "sim_allegro"
    """Driver of the hand, a shipped description or a .yaml: whose joint states are read."""
    arm: str = ""
    """Driver of the arm: left out of the image, tells where the palm is. Empty: the palm comes on palm_topic."""
    hand_body: str = ""
    """capsules.json of the hand; empty = that of assets/hands."""
    source: str = "topic"
    """topic, realsense, realsense:SERIAL, a recording (.db3, .bag) or a folder of frames."""
    depth_topic: str = "/camera/camera/depth/image_rect_raw"
    """Depth images, 16UC1 in millimetres or 32FC1 in metres."""
    camera_info_topic: str = "/camera/camera/depth/camera_info"
    """Their intrinsics."""
    palm_topic: str = "/grasp/palm"
    """Pose of the palm in the base frame; read where no arm is given."""
    state_topic: str = "/grasp/state"
    """State of the grasp node."""
    base_frame: str = "world"
    """Frame of all that is published: z up, the table at z = 0."""
    camera_file: str = ""
    """Where the camera stands, written by `dexgrasp calibrate camera`; empty = camera_pos_m and camera_quat_wxyz."""
    camera_pos_m: tuple[float, float, float] = (0.0, 0.0, 0.0)
    """Origin of the camera's optical frame in the base frame [m]."""
    camera_quat_wxyz: tuple[float, ...] = ()
    """Its orientation, w first: optical frame (x right, y down, z forward) to base frame."""
    reach: bool = True
    """Prefer pre-grasps that the arm can reach; without an arm it means nothing."""
    readings_timeout_s: float = 0.1
    """Joint states and palm may be so much older than a frame [s]."""
    carry_hz: float = 60.0
    """While the object is held, its points are published that often between frames."""
    segment: SegmentCfg = field(default_factory=SegmentCfg)
    """How the object is found."""
    realsense: RealSenseCfg = field(default_factory=RealSenseCfg)
    """The camera, where the node reads it itself."""

    def __post_init__(self) -> None:
        if not self.readings_timeout_s > 0 or not 0 < self.carry_hz <= 1000:
            raise ValueError("readings_timeout_s must be positive, carry_hz lie within 0 and 1000")
        if not self.camera_file and not self.camera_quat_wxyz:
            raise ValueError(
                "where does the camera stand? Give camera_file, or camera_pos_m and camera_quat_wxyz (w first)"
            )


def camera_pose(cfg: PerceptionCfg) -> CameraPose:
    """Where the camera stands."""
    if cfg.camera_file:
        return CameraPose.load(cfg.camera_file)
    return CameraPose(pose_matrix(cfg.camera_pos_m, cfg.camera_quat_wxyz, "camera_pos_m and camera_quat_wxyz"))


@dataclass(frozen=True)
class Robot:
    """What the parameters make."""

    scene: Scene
    joints: JointStates
    """Of "hand" and, where there is one, "arm"."""


def make_robot(cfg: PerceptionCfg) -> Robot:
    """Everything that the node looks at and reads; what is wrong with the parameters is an error here."""
    contract = read_contract(cfg.bundle)
    hand = adapter_cfg.load("hands", cfg.hand)
    made_for = contract.hand
    name = made_for.name
    if hand.hand != name:
        raise ValueError(f"the bundle {cfg.bundle} is for the hand '{name}', '{cfg.hand}' drives '{hand.hand}'")
    body = hand_body(cfg.hand_body or asset(f"hands/{name}", "hand_body"), made_for)
    adapters = {"hand": JointAdapter(hand, made_for.joint_names)}
    arm = reachable = None
    if cfg.arm:
        driver = adapter_cfg.load("arms", cfg.arm)
        arm = _arm_body(driver, cfg.arm)
        adapters["arm"] = JointAdapter(driver, arm.joint_names)
        reachable = _reachable(driver, contract) if cfg.reach else None
    T_world_cam = camera_pose(cfg).T_world_cam
    scene = Scene(contract, T_world_cam, body, arm, cfg.segment, reachable, cfg.readings_timeout_s)
    return Robot(scene, JointStates(adapters, others=arm is None))


def hand_body(place: str | Path, hand: HandContract) -> HandBody:
    """Return the capsule model of a bundle's hand from the hand's folder or a capsules.json."""
    return read_hand_body(
        place,
        side=hand.side,
        kinematics=vars(hand.kinematics),
        palm_pos_b=hand.palm_pos_b,
        palm_quat_b=hand.palm_quat_b,
    )


def asset(name: str, parameter: str) -> Path:
    """A folder of assets; `parameter` gives another place."""
    try:
        import assets
    except ImportError as error:
        raise ImportError(f"the package `assets` is missing ({error}): give {parameter}") from error
    return assets.path(name)


def _arm_body(driver: AdapterCfg, name: str) -> ArmBody:
    if driver.arm is None:
        raise ValueError(f"'{name}' says nothing of the arm's kinematics: leave `arm` empty, the palm comes on a topic")
    base = None
    if driver.base is not None:
        half = driver.base.yaw_rad / 2
        quat = [math.cos(half), 0.0, 0.0, math.sin(half)]
        base = torch.tensor(driver.base.pos_w, dtype=torch.float64), torch.tensor(quat, dtype=torch.float64)
    return read_arm_body(asset(f"arms/{driver.arm}", "no arm"), base)


def _reachable(driver: AdapterCfg, contract: Contract) -> Reachable:
    base = None if driver.base is None else (driver.base.pos_w, driver.base.yaw_rad)
    arm = Arm(str(driver.arm), contract.hand, 1.0 / contract.control.rate_hz, base)

    def reaches(pos_w: torch.Tensor, quat_w: torch.Tensor) -> torch.Tensor:
        poses = zip(pos_w.numpy(), quat_w.numpy(), strict=True)
        return torch.tensor([arm.reaches(Pose.of(*pose)) for pose in poses])

    return reaches
