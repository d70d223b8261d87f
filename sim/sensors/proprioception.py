"""Proprioception and command delay: late, biased, noisy readings of the hand, late commands.

Keypoints are computed from the measured joints and palm as on a robot, so that a biased joint moves them too.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from dexgrasp.perception.transforms import compose, invert, quat_from_rotvec, quat_multiply
from dexgrasp.sim.engine.base import State
from dexgrasp.sim.randomization.episode_draws import EpisodeDraws, RandomizationCfg
from dexgrasp.sim.randomization.trial_rng import TrialRandom
from dexgrasp.sim.robots.hand import HandSpec


@dataclass(frozen=True)
class ProprioceptiveState:
    """Hold the measured state of the hand; first dimension: environment."""

    joint_pos: Tensor
    """(env, joint) [rad]."""
    palm_pos_w: Tensor
    """(env, 3) [m]."""
    palm_quat_w: Tensor
    """(env, 4) wxyz."""
    keypoints_w: Tensor
    """(env, keypoint, 3) [m]."""


def exact_readings(state: State) -> ProprioceptiveState:
    """Return the true state of the hand as readings."""
    return ProprioceptiveState(
        joint_pos=state.joint_pos,
        palm_pos_w=state.palm_pos_w,
        palm_quat_w=state.palm_quat_w,
        keypoints_w=state.keypoints_w,
    )


class DelayLine:
    """Delays values by a number of steps per environment.

    Slot k holds the values of k steps ago.   push -> [now, 1 ago, 2 ago, ...] -> delayed(delay)
    """

    def __init__(self, num_envs: int, longest: int, sizes: Sequence[int], device: torch.device | str = "cpu") -> None:
        """`longest` delay in steps; one value of each size per step and environment."""
        kind = {"dtype": torch.float64, "device": device}
        self._slots = [torch.zeros(longest + 1, num_envs, size, **kind) for size in sizes]

    def fill(self, rows: Tensor, values: Sequence[Tensor]) -> None:
        """Fill all slots of `rows` with values (row, size)."""
        for slots, value in zip(self._slots, values, strict=True):
            slots[:, rows] = value.double()

    def refill(self, mask: Tensor, values: Sequence[Tensor]) -> None:
        """Fill all slots in a mask (env,) with values (env, size)."""
        for slots, value in zip(self._slots, values, strict=True):
            slots.copy_(torch.where(mask[:, None], value.double(), slots))

    def push(self, values: Sequence[Tensor]) -> None:
        """Append the values (env, size) of a new step."""
        for slots, value in zip(self._slots, values, strict=True):
            slots[1:] = slots[:-1].clone()
            slots[0] = value

    def delayed(self, delay: Tensor) -> list[Tensor]:
        """Return the values (env, size) of `delay` (env,) steps ago."""
        row = torch.arange(len(delay), device=delay.device)
        return [slots[delay.long(), row] for slots in self._slots]


class ProprioceptionModel:
    """Measures the hand with a delay, bias and noise drawn per trial.

    Bias and noise are of the motors; coupled joints have those that follow, as where a driver reports motors alone.
    """

    def __init__(
        self, cfg: RandomizationCfg, hand: HandSpec, num_envs: int, device: torch.device | str = "cpu"
    ) -> None:
        joints, motors = len(hand.joint_names), len(hand.motors.names)
        self.exact = not (
            cfg.joint_noise_rad or cfg.joint_bias_rad or cfg.palm_noise_m or cfg.palm_noise_rad or cfg.observation_delay
        )
        """Whether readings equal the true state."""
        widths = [cfg.joint_noise_rad] * motors + [cfg.palm_noise_m] * 3 + [cfg.palm_noise_rad] * 3
        self._half_width = torch.tensor(widths, dtype=torch.float64, device=device)
        self._line = DelayLine(num_envs, cfg.observation_delay, (joints, 3, 4), device)
        self._kinematics = hand.kinematics().to(torch.float64, device)
        palm = torch.tensor(hand.palm_pos_b, device=device), torch.tensor(hand.palm_quat_b, device=device)
        self._base_in_palm = invert(*palm)
        self._motors = hand.motors

    def reset(self, rows: Tensor, state: State) -> None:
        """Reset the delay line of `rows` to the present state."""
        self._line.fill(rows, (state.joint_pos[rows], state.palm_pos_w[rows], state.palm_quat_w[rows]))

    def restart(self, mask: Tensor, state: State) -> None:
        """Fill the delay line in a mask (env,) with the present state."""
        self._line.refill(mask, (state.joint_pos, state.palm_pos_w, state.palm_quat_w))

    def push(self, state: State) -> None:
        """Append the state after a control step."""
        if not self.exact:
            self._line.push((state.joint_pos, state.palm_pos_w, state.palm_quat_w))

    def measure(self, state: State, draws: EpisodeDraws, step: Tensor) -> ProprioceptiveState:
        """Return the readings after `step` (env,) control steps of the episodes."""
        if self.exact:
            return exact_readings(state)
        joints, pos, quat = self._line.delayed(draws.observation_delay)
        noise = (
            TrialRandom(draws.key).uniform("readings", -1.0, 1.0, self._half_width.shape, at=step) * self._half_width
        )
        motors = len(self._motors.names)
        bias, joint_noise = (self._motors.moved(error) for error in (draws.joint_bias, noise[:, :motors]))
        joints = joints + bias + joint_noise
        pos = pos + noise[:, motors : motors + 3]
        quat = quat_multiply(quat, quat_from_rotvec(noise[:, motors + 3 :]))
        base = compose(pos, quat, *self._base_in_palm)
        return ProprioceptiveState(
            joint_pos=joints,
            palm_pos_w=pos,
            palm_quat_w=quat,
            keypoints_w=self._kinematics.keypoints(*base, joints),
        )


class CommandDelay:
    """Delays the commands by a time drawn per trial."""

    def __init__(
        self, cfg: RandomizationCfg, num_motors: int, num_envs: int, device: torch.device | str = "cpu"
    ) -> None:
        self._late_probability = cfg.late_action_probability
        self._line = DelayLine(num_envs, cfg.action_delay, (num_motors, 3, 4), device)

    def reset(self, rows: Tensor, state: State) -> None:
        """Reset the delay line of `rows` to the present state."""
        self._line.fill(rows, (state.joint_target[rows], state.palm_pos_w[rows], state.palm_quat_w[rows]))

    def apply(self, targets: Sequence[Tensor], draws: EpisodeDraws, step: Tensor) -> tuple[list[Tensor], Tensor | None]:
        """Return the delayed targets of this step, and the mask (env,) of late ones; None: none is late."""
        self._line.push(targets)
        late = (
            TrialRandom(draws.key).uniform("late", at=step) < self._late_probability if self._late_probability else None
        )
        return self._line.delayed(draws.action_delay), late
