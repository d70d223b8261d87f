"""Messages of packages that are not everywhere: dexgrasp_msgs, and those of viewers."""

import importlib
from types import ModuleType
from typing import Any

import numpy as np
from geometry_msgs.msg import Point, Vector3
from rclpy.node import Node
from rclpy.publisher import Publisher
from rclpy.qos import QoSProfile

from dexgrasp.policies.deploy.policy import PregraspPlan
from dexgrasp_ros import message_conversions
from dexgrasp_ros.object_estimate import ObjectEstimate


def interfaces(kind: str) -> ModuleType | None:
    """Return dexgrasp_msgs.msg or dexgrasp_msgs.action; None where the package is not built and sourced."""
    return optional_module(f"dexgrasp_msgs.{kind}")


def optional_module(name: str) -> ModuleType | None:
    """Return a module of messages that not every machine has, or None."""
    try:
        return importlib.import_module(name)
    except ImportError:
        return None


class TypedPublisher:
    """Publisher of one message type of dexgrasp_msgs; without that package it publishes nothing."""

    def __init__(self, node: Node, kind: str, topic: str, qos: QoSProfile) -> None:
        types = interfaces("msg")
        self._kind: Any = None if types is None else getattr(types, kind)
        self._publisher: Publisher | None = (
            None if self._kind is None else node.create_publisher(self._kind, topic, qos)
        )

    @property
    def is_read(self) -> bool:
        """Whether anybody subscribes to it."""
        return self._publisher is not None and self._publisher.get_subscription_count() > 0

    def publish(self, stamp_s: float, frame_id: str = "", **fields: Any) -> None:
        """Publish a message of these fields; its header takes stamp [s] and frame."""
        if self._publisher is not None:
            self._publisher.publish(self._kind(header=message_conversions.header(stamp_s, frame_id), **fields))


def plan_fields(plan: PregraspPlan) -> dict[str, Any]:
    """Return the fields of a GraspPlan."""
    return {
        "palm": message_conversions.pose_message(plan.palm_pos_w, plan.palm_quat_w, 0.0, "").pose,
        "depth_m": float(np.asarray(plan.depth_m)),
        "floor_m": float(np.asarray(plan.floor_m)),
        "joint_pos": np.asarray(plan.joint_pos, float).tolist(),
        "closing": np.asarray(plan.closing, float).tolist(),
    }


def estimate_fields(estimate: ObjectEstimate, frame_id: str) -> dict[str, Any]:
    """Return the fields of an ObjectEstimate, with the box around its points."""
    lower, upper = estimate.points_w.min(0), estimate.points_w.max(0)
    x, y, z = map(float, (lower + upper) / 2)
    length, width, height = map(float, upper - lower)
    return {
        "points": message_conversions.estimate_message(estimate, frame_id),
        "middle": Point(x=x, y=y, z=z),
        "size": Vector3(x=length, y=width, z=height),
        "visible_fraction": float(estimate.visible_fraction),
        "view_fresh": bool(estimate.view_fresh),
    }
