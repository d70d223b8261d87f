"""Converts joint targets and palm poses of the contract to driver values, and driver states back."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import fields

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dexgrasp.perception.motors import Coupling, Motors
from dexgrasp.utils.rotations import Pose
from dexgrasp_ros.drivers.config import AdapterCfg, AdapterError
from dexgrasp_ros.drivers.joint_mapping import JointMap, PerJoint, Units
from dexgrasp_ros.drivers.motor_sums import MotorSums

Array = NDArray[np.float64]


class JointAdapter:
    """Converts positions between the contract and a joint driver, which moves motors and reports joints.

    A motor of the driver has the position of its joint, or with `couplings` the sum of ratio times position of several.
    Joints that the driver does not report are computed from its motors.
    """

    def __init__(
        self,
        cfg: AdapterCfg,
        joint_names: Sequence[str],
        coupled: Mapping[str, Coupling] | None = None,
        file: str = "",
    ) -> None:
        """`joint_names`: of the contract or of the arm; `coupled`: of the contract; `file`: for errors.

        Raises AdapterError.
        """
        state = cfg.state
        if state is None:
            raise AdapterError("a joint driver needs `state`")
        self.cfg, self.state = cfg, state
        """Driver description; its part `state`."""
        self._motors = Motors(joint_names, coupled or {})
        self._sums: MotorSums | None = None  # of all motors of the driver, where some move several joints
        try:
            _check_joints(cfg, self._motors.joint_names)
            order = self._map_commands()
            self._map_states(order)
        except ValueError as error:
            raise AdapterError(f"{file}: {error}" if file else str(error)) from error

    def command(self, joint_target: ArrayLike) -> Array:
        """Return driver values (driver joint,) for targets (motor,) [rad]."""
        target = np.asarray(joint_target, dtype=np.float64)
        return self.command_map.to_driver(target if self._sums is None else self._sums.of(target))

    def targets(self, values: ArrayLike) -> Array:
        """Return the targets (motor,) [rad] of driver values (driver joint,)."""
        motions = self.command_map.from_driver(values)
        return motions if self._sums is None else self._sums.motors(motions, {})

    def read(self, values: Mapping[str, float]) -> Array | None:
        """Return positions (joint,) [rad] of a message, or None if it has none of the joints.

        Raises JointStateError if it has only some of them.
        """
        if not any(name in values for name in self.state_map.order):
            return None
        found = dict(zip(self.state_map.joint_names, self.state_map.read(values), strict=True))
        names = self._motors.joint_names
        known = {i: found[name] for i, name in enumerate(self._motors.names) if name in self.state.names}
        sums = np.array([found[motor] for motor in self._read_sums])
        joints = self._motors.joint_positions(self._state_sums.motors(sums, known))
        return np.array([found[name] if name in self.state.names else joints[i] for i, name in enumerate(names)])

    def _map_commands(self) -> Sequence[str]:
        """Set the map of the commands; return the driver's motors in its order. Raises ValueError."""
        command, couplings, motors = self.cfg.command, self.cfg.couplings, self._motors
        units = Units(command.sign, command.offset_rad, command.scale)
        moved = {joint for ratios in couplings.values() for joint in ratios}
        alone = {joint: name for joint, name in self.state.names.items() if joint not in {*motors.coupled, *moved}}
        order = command.joints or tuple(alone.values())
        if not couplings:
            self.command_map = JointMap(motors.names, alone, order, units)
            return order
        joint_of = {name: joint for joint, name in alone.items()}
        if lost := [name for name in order if name not in joint_of and name not in couplings]:
            raise ValueError(f"command.joints: {lost} are neither in state.names nor in couplings")
        sums = [couplings[name] if name in couplings else {joint_of[name]: 1.0} for name in order]
        self._sums = MotorSums(motors, sums)
        if len(order) != len(motors.names) or not self._sums.determine(range(len(order))):
            raise ValueError(
                f"couplings: the {len(order)} motors in command.joints do not determine the {len(motors.names)} of the "
                f"contract, {list(motors.names)}: one independent motor is expected for each"
            )
        self.command_map = JointMap(order, {name: name for name in order}, order, units)
        return order

    def _map_states(self, order: Sequence[str]) -> None:
        """Set the map of joints that are read by name, and of motors of couplings that are. Raises ValueError.

        A motor of a coupling is read where not all of its joints are.
        """
        names, couplings, motors = self.state.names, self.cfg.couplings, self._motors
        self._read_sums = [name for name in order if name in couplings and not couplings[name].keys() <= names.keys()]
        if twice := sorted({*couplings} & {*names.values()}):
            raise ValueError(f"state.names: {twice} are motors of couplings; a joint needs a name of its own")
        self._state_sums = MotorSums(motors, [couplings[name] for name in self._read_sums])
        unread = [i for i, name in enumerate(motors.names) if name not in names]
        if not self._state_sums.determine(unread):
            raise ValueError(f"state.names: no driver joint for {[motors.names[i] for i in unread]}")
        driver_of = {joint: names[joint] for joint in motors.joint_names if joint in names}
        driver_of |= {name: name for name in self._read_sums}
        first = [name for name in order if name in driver_of.values()]
        read = [*first, *(name for name in names.values() if name not in first)]
        moved = {names[joint] for ratios in couplings.values() for joint in ratios if joint in names}
        units = Units(**{item.name: self._unit(item.name, order, read, moved) for item in fields(Units)})
        self.state_map = JointMap(tuple(driver_of), driver_of, read, units)

    def _unit(self, key: str, order: Sequence[str], read: Sequence[str], moved: Collection[str]) -> PerJoint:
        """Return sign, zero or scale of what is read, per driver joint: as stated, or as in `command`.

        Joints that motors of couplings move, `moved`, have none of the units of the motors.
        """
        stated, of_command = getattr(self.state, key), getattr(self.cfg.command, key)
        if stated is not None or not moved:
            return of_command if stated is None else stated
        values = dict(zip(order, np.broadcast_to(np.asarray(of_command, dtype=np.float64), len(order)), strict=True))
        return tuple(float(values.get(name, getattr(Units(), key))) for name in read)


def _check_joints(cfg: AdapterCfg, joint_names: Sequence[str]) -> None:
    """Raise ValueError for joints that the hand or arm does not have."""
    named = {"state.names": cfg.state.names if cfg.state else {}}
    named |= {f"couplings.{motor}": ratios for motor, ratios in cfg.couplings.items()}
    for key, joints in named.items():
        if unknown := [name for name in joints if name not in joint_names]:
            raise ValueError(f"{key}: {unknown} are not joints of this hand or arm: {list(joint_names)}")


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
