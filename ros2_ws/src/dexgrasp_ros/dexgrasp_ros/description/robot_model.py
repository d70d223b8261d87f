"""Model of hand and arm for the description node; needs the simulator."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dexgrasp.perception.motors import Motors
from dexgrasp.utils.rotations import Pose
from dexgrasp_ros.description.config import DescriptionCfg
from dexgrasp_ros.description.robot_tree import RobotTree
from dexgrasp_ros.drivers.adapters import JointAdapter
from dexgrasp_ros.drivers.config import AdapterError, load
from dexgrasp_ros.drivers.joint_states import JointStates

Array = NDArray[np.float64]
HAND_BASE, PALM = "hand_base", "palm"
"""Links of the hand base frame and of the palm frame."""


@dataclass(frozen=True, eq=False)
class RobotModel:
    """Robot of the description node."""

    urdf: str
    """Text of robot_description."""
    tree: RobotTree
    """Links and joints of the URDF."""
    states: JointStates
    """Joint states of "hand" and, where its kinematics are known, "arm"."""
    joint_names: dict[str, tuple[str, ...]]
    """Names of the joints in the URDF, in the order of `states`."""
    motors: Motors
    """Motors of the hand."""
    palm_b: Pose
    """Palm frame in the hand base frame."""
    keypoints: list[tuple[str, Array]]
    """Link of each keypoint of the hand, and its position there (3,) [m]."""


def read_robot_model(cfg: DescriptionCfg, namespace: str) -> RobotModel:
    """Read drivers and models of hand and arm. Raises ValueError, OSError or ImportError."""
    from dexgrasp.sim.robots.arm import ArmSpec
    from dexgrasp.sim.robots.hand import HandSpec
    from dexgrasp.sim.robots.urdf import robot_urdf

    hand_driver, arm_driver = load("hands", cfg.hand, namespace), load("arms", cfg.arm, namespace)
    hand = HandSpec.load(cfg.hand_model or str(hand_driver.hand), cfg.side)
    if hand.name != hand_driver.hand:
        raise AdapterError(f"{cfg.hand} is a driver of the hand {hand_driver.hand}, hand_model is {hand.name}")
    adapters = {"hand": JointAdapter(hand_driver, hand.joint_names, hand.coupled)}
    names, mount, base = {"hand": tuple(hand.joint_names)}, "floating", None
    if arm_driver.arm is not None and arm_driver.state is not None:
        mount = arm_driver.arm
        base = arm_driver.base and (arm_driver.base.pos_w, arm_driver.base.yaw_rad)
        names["arm"] = tuple(ArmSpec.load(mount, hand, base).joint_names)
        adapters["arm"] = JointAdapter(arm_driver, names["arm"])
    text = robot_urdf(hand, mount, cfg.tf_prefix, base)
    if cfg.urdf_file:
        text = Path(cfg.urdf_file).read_text(encoding="utf-8")
    tree = RobotTree.from_urdf(text)
    prefixed = {part: tuple(cfg.tf_prefix + name for name in joints) for part, joints in names.items()}
    if missing := sorted({name for joints in prefixed.values() for name in joints} - set(tree.joint_names)):
        raise ValueError(f"urdf_file {cfg.urdf_file} lacks the joints {missing}")
    sites = [hand.model.site(name) for name in hand.keypoint_names]
    bodies = [hand.model.body(int(site.bodyid[0])).name for site in sites]
    links = [cfg.tf_prefix + (HAND_BASE if body == "palm" else body) for body in bodies]
    return RobotModel(
        urdf=text,
        tree=tree,
        states=JointStates(adapters, others="arm" not in adapters),
        joint_names=prefixed,
        motors=hand.motors,
        palm_b=Pose.of(hand.palm_pos_b, hand.palm_quat_b),
        keypoints=[(link, np.array(site.pos)) for link, site in zip(links, sites, strict=True)],
    )
