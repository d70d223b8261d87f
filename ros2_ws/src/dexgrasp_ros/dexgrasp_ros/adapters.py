"""Between the contract and a driver: joint targets and palm poses to what the driver is told, and its states back."""

from collections.abc import Mapping, Sequence
from dataclasses import fields

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dexgrasp.utils.rotations import Pose
from dexgrasp_ros.adapter_cfg import AdapterCfg, AdapterError
from dexgrasp_ros.joint_map import JointMap, Units

Array = NDArray[np.float64]


class JointAdapter:
    """A driver of joints: positions of the contract to and from what it says."""

    def __init__(self, cfg: AdapterCfg, joint_names: Sequence[str]) -> None:
        """`joint_names`: the contract's, or the arm's."""
        command, state = cfg.command, cfg.state
        if state is None:
            raise AdapterError("an adapter of joints needs `state`")
        self.cfg, self.state = cfg, state
        """As described; what is read."""
        order = command.joints or tuple(state.names.values())
        given = {item.name: getattr(state, item.name) for item in fields(Units)}
        read = Units(**{name: getattr(command, name) if value is None else value for name, value in given.items()})
        try:
            self.command_map = JointMap(
                joint_names, state.names, order, Units(command.sign, command.offset_rad, command.scale)
            )
            self.state_map = JointMap(joint_names, state.names, order, read)
        except ValueError as error:
            raise AdapterError(str(error)) from error

    def command(self, joint_target: ArrayLike) -> Array:
        """(driver joint,) what to send for targets (joint,) [rad]."""
        return self.command_map.to_driver(joint_target)

    def read(self, values: Mapping[str, float]) -> Array | None:
        """(joint,) [rad] of a message; None where it speaks of other joints. Raises JointStateError if of some only."""
        return self.state_map.read(values) if any(name in values for name in self.state_map.order) else None


class PoseAdapter:
    """A Cartesian controller: poses of the palm in the world to what it is told."""

    def __init__(self, cfg: AdapterCfg, palm: Pose) -> None:
        """`palm`: of the palm in the hand base frame, T_flange_palm."""
        frame = cfg.command.frame
        if frame is None:
            raise AdapterError("an adapter of poses needs `command.frame`")
        self.cfg, self._gain_hz = cfg, cfg.command.gain_hz
        """As described."""
        self.frame_id = frame.id
        """Frame of the messages."""
        self._frame_world = Pose.of(frame.pos_w, frame.quat_w).inverse()
        self._palm_link = Pose.of((0, 0, 0), (1, 0, 0, 0)) if frame.link == "palm" else palm.inverse()

    def pose(self, T_world_palm: Pose) -> Pose:
        """T_frame_link: where the commanded body must be."""
        return self._frame_world @ T_world_palm @ self._palm_link

    def palm(self, T_frame_link: Pose) -> Pose:
        """T_world_palm of a pose of the commanded body."""
        return self._frame_world.inverse() @ T_frame_link @ self._palm_link.inverse()

    def twist(self, T_world_goal: Pose, T_world_palm: Pose) -> tuple[Array, Array]:
        """Velocity (3,) [m/s] of the commanded body's origin and its angular velocity (3,) [rad/s], in the frame."""
        goal, now = self.pose(T_world_goal), self.pose(T_world_palm)
        return (goal.pos_m - now.pos_m) * self._gain_hz, now.turn_to(goal) * self._gain_hz


class Ramp:
    """Joint commands between two control ticks: from the last goal to the new one in one period."""

    def __init__(self, period_s: float) -> None:
        self._period_s = period_s
        self._from: Array | None = None
        self._goal: Array | None = None
        self._since_s = 0.0

    def aim(self, goal: Array, now_s: float) -> None:
        """A new goal, reached one control period from now; the very first at once."""
        self._from = goal.copy() if self._goal is None else self.at(now_s)
        self._goal, self._since_s = goal.copy(), now_s

    def at(self, now_s: float) -> Array:
        """Where the command is now; it stays at the goal when no other comes, and where it is if time runs back."""
        if self._goal is None or self._from is None:
            raise RuntimeError("aim(goal) comes first")
        part = float(np.clip((now_s - self._since_s) / self._period_s, 0.0, 1.0))
        return self._from + part * (self._goal - self._from)
