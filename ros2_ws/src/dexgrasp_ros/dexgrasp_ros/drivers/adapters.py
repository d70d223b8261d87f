"""Converts joint targets and palm poses of the contract to driver values, and driver states back."""

from collections.abc import Mapping, Sequence
from dataclasses import fields

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dexgrasp.perception.motors import Coupling, Motors
from dexgrasp.utils.rotations import Pose
from dexgrasp_ros.drivers.config import AdapterCfg, AdapterError
from dexgrasp_ros.drivers.joint_mapping import JointMap, Units

Array = NDArray[np.float64]


class JointAdapter:
    """Converts positions between the contract and a joint driver, which moves motors and reports joints.

    A coupled joint that the driver does not report is computed from its motor.
    """

    def __init__(
        self, cfg: AdapterCfg, joint_names: Sequence[str], coupled: Mapping[str, Coupling] | None = None
    ) -> None:
        """`joint_names`: of the contract or of the arm; `coupled`: of the contract. Raises AdapterError."""
        command, state = cfg.command, cfg.state
        if state is None:
            raise AdapterError("a joint driver needs `state`")
        self.cfg, self.state = cfg, state
        """Driver description; its part `state`."""
        self._motors = motors = Motors(joint_names, coupled or {})
        driver_of = {joint: name for joint, name in state.names.items() if joint not in motors.coupled}
        reported = [joint for joint in joint_names if joint not in motors.coupled or joint in state.names]
        order = command.joints or tuple(driver_of.values())
        given = {item.name: getattr(state, item.name) for item in fields(Units)}
        read = Units(**{name: getattr(command, name) if value is None else value for name, value in given.items()})
        try:
            self.command_map = JointMap(
                motors.names, driver_of, order, Units(command.sign, command.offset_rad, command.scale)
            )
            self.state_map = JointMap(reported, state.names, (*order, *self._reported_followers()), read)
        except ValueError as error:
            raise AdapterError(str(error)) from error

    def command(self, joint_target: ArrayLike) -> Array:
        """Return driver values (driver joint,) for targets (motor,) [rad]."""
        return self.command_map.to_driver(joint_target)

    def read(self, values: Mapping[str, float]) -> Array | None:
        """Return positions (joint,) [rad] of a message, or None if it has none of the joints.

        Raises JointStateError if it has only some of them.
        """
        if not any(name in values for name in self.state_map.order):
            return None
        found = dict(zip(self.state_map.joint_names, self.state_map.read(values), strict=True))
        joints = self._motors.joint_positions(np.array([found[name] for name in self._motors.names]))
        names = self._motors.joint_names
        return np.array([found.get(name, joints[i]) for i, name in enumerate(names)])

    def _reported_followers(self) -> list[str]:
        """Return the driver's names of the coupled joints that it reports, after those of the motors."""
        return [name for joint, name in self.state.names.items() if joint in self._motors.coupled]


class PoseAdapter:
    """Converts palm poses in the world to poses and twists of a Cartesian controller."""

    def __init__(self, cfg: AdapterCfg, palm: Pose) -> None:
        """`palm`: T_flange_palm, the palm in the hand base frame. Raises AdapterError."""
        frame = cfg.command.frame
        if frame is None:
            raise AdapterError("a Cartesian driver needs `command.frame`")
        self.cfg, self._gain_hz = cfg, cfg.command.gain_hz
        """Driver description."""
        self.frame_id = frame.id
        """frame_id of the messages."""
        self._frame_world = Pose.of(frame.pos_w, frame.quat_w).inverse()
        self._palm_link = Pose.of((0, 0, 0), (1, 0, 0, 0)) if frame.link == "palm" else palm.inverse()

    def pose(self, T_world_palm: Pose) -> Pose:
        """Return T_frame_link, the pose of the commanded body."""
        return self._frame_world @ T_world_palm @ self._palm_link

    def palm(self, T_frame_link: Pose) -> Pose:
        """Return T_world_palm for a pose of the commanded body."""
        return self._frame_world.inverse() @ T_frame_link @ self._palm_link.inverse()

    def twist(self, T_world_goal: Pose, T_world_palm: Pose) -> tuple[Array, Array]:
        """Return velocity (3,) [m/s] and angular velocity (3,) [rad/s] of the commanded body, in the frame."""
        goal, now = self.pose(T_world_goal), self.pose(T_world_palm)
        return (goal.pos_m - now.pos_m) * self._gain_hz, now.turn_to(goal) * self._gain_hz


class JointInterpolator:
    """Interpolates joint commands linearly between two control ticks."""

    def __init__(self, period_s: float) -> None:
        self._period_s = period_s
        self._from: Array | None = None
        self._goal: Array | None = None
        self._since_s = 0.0

    def set_goal(self, goal: Array, now_s: float) -> None:
        """Set the goal (joint,) [rad], reached one control period from now; the first one at once."""
        self._from = goal.copy() if self._goal is None else self.at(now_s)
        self._goal, self._since_s = goal.copy(), now_s

    def at(self, now_s: float) -> Array:
        """Return the command (joint,) [rad] at a time, clipped to the interval of the current goal."""
        if self._goal is None or self._from is None:
            raise RuntimeError("call set_goal before at")
        fraction = float(np.clip((now_s - self._since_s) / self._period_s, 0.0, 1.0))
        return self._from + fraction * (self._goal - self._from)
