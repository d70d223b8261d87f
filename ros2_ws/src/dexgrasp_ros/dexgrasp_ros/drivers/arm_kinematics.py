"""Kinematics of the arm with the hand: palm pose from joints, joints from palm pose.

The only file of the grasp node that imports the simulator, and with it MuJoCo, mink and torch.
"""

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dexgrasp.policies.deploy.contract import HandContract
from dexgrasp.utils.rotations import Pose

Array = NDArray[np.float64]
UP_POSES, ACROSS_POSES, DOWN_POSES = 1, 5, 2
"""Poses at which the way to a pre-grasp is tried."""
TRANSIT_M = 0.4
"""Height of the palm on the way across the table [m]; `reaches` tries it, scripted motions have it as their default."""


class ArmKinematics:
    """Forward kinematics of the palm, and differential inverse kinematics."""

    def __init__(
        self,
        name: str,
        hand: HandContract,
        step_s: float,
        base: tuple[tuple[float, float, float], float] | None = None,
        speed: float = 0.4,
    ) -> None:
        """`name`: as `mount=` takes it; `hand`: of the contract; `base`: position [m] and yaw [rad] of the base.

        `speed`: fraction of the joint speed limits; they are reached near singular poses only.
        """
        try:
            from dexgrasp.sim.robots.arm import ArmIK, ArmSpec
        except ImportError as error:
            raise ImportError(
                f"arm kinematics need the packages `sim` and `assets` with MuJoCo, mink and torch: {error}"
            ) from error
        spec = ArmSpec.load(name, hand, base)
        spec = replace(spec, speed_limit=spec.speed_limit * speed)
        self._ik = ArmIK(spec, step_s=step_s)
        self._flange_palm = Pose.of(hand.palm_pos_b, hand.palm_quat_b)
        self.joint_names: tuple[str, ...] = spec.joint_names
        """Joint names from base to flange."""
        self.home: Array = spec.home
        """Home position (joint,) [rad]: palm above the centre of the workspace, facing down."""
        self.step_towards(
            self.home, self.palm(self.home)
        )  # warm up: the first solution takes longer than a control period

    def palm(self, q_arm: ArrayLike) -> Pose:
        """Return T_world_palm at joint positions (joint,) [rad]."""
        pos, quat = self._ik.forward(_row(q_arm))
        return Pose(pos[0].numpy(), quat[0].numpy()) @ self._flange_palm

    def palms(self, q_arm: ArrayLike) -> list[Pose]:
        """Return T_world_palm at each row of joint positions (row, joint) [rad]."""
        rows = np.asarray(q_arm, dtype=np.float64)
        pos, quat = (value.numpy() for value in self._ik.forward(_row(rows)[0]))
        return [Pose(one, other) @ self._flange_palm for one, other in zip(pos, quat, strict=True)]

    def step_towards(self, q_arm: Array, T_world_palm: Pose) -> Array:
        """Return joint targets (joint,) [rad] of the next control period towards a pose, from `q_arm`."""
        flange = T_world_palm @ self._flange_palm.inverse()
        return self._ik.solve(_row(q_arm), _row(flange.pos_m), _row(flange.quat))[0].numpy()

    def reaches(self, T_world_palm: Pose) -> bool:
        """Return whether the arm follows the way from home to a palm pose: up, across the table, down."""
        home = self.palm(self.home)
        up, above = (
            Pose(np.array([*pose.pos_m[:2], max(pose.pos_m[2], TRANSIT_M)]), quat)
            for pose, quat in ((home, home.quat), (T_world_palm, T_world_palm.quat))
        )
        ways = ((home, up, UP_POSES), (up, above, ACROSS_POSES), (above, T_world_palm, DOWN_POSES))
        path = [pose @ self._flange_palm.inverse() for way in ways for pose in _between(*way)]
        pos_w, quat_w = (np.stack(column) for column in zip(*((it.pos_m, it.quat) for it in path), strict=True))
        return self._ik.follows(_tensor(self.home), _tensor(pos_w), _tensor(quat_w))


def derived_capsules(arm: str, hand: HandContract) -> dict[str, Any]:
    """Return the content of capsules.json of an arm, derived from its model."""
    from dexgrasp.sim.robots.capsules import arm_capsules

    return arm_capsules(arm, hand)


def _between(start: Pose, end: Pose, count: int) -> list[Pose]:
    """Return poses on the straight line from one pose to another, which is the last of them."""
    length_m, angle_rad = start.distance_m(end), start.angle_rad(end)
    return [start.step_towards(end, length_m * i / count, angle_rad * i / count) for i in range(1, count)] + [end]


def _tensor(values: ArrayLike) -> Any:
    """Return values as a float64 tensor."""
    import torch

    return torch.from_numpy(np.array(values, dtype=np.float64))


def _row(values: ArrayLike) -> Any:
    """Return values (n,) as a float64 tensor (1, n)."""
    return _tensor(values)[None]
