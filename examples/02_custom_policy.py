"""Write a policy of your own: a function from observations to actions, run on a batch of episodes.

python examples/02_custom_policy.py --num-envs 48
"""

import argparse

import torch
from torch import Tensor

import dexgrasp
from dexgrasp.sim.task import GraspTask


class Squeeze:
    """Correct the scripted grasp: close the fingers harder once the thumb and a finger touch the object."""

    def __init__(self, task: GraspTask, squeeze: float) -> None:
        self._contact = task.layouts["teacher"].slices()["contact"]
        self._thumb = torch.tensor(task.hand.thumb_mask)
        self._fingers = torch.tensor(task.hand.finger_mask)
        self._num_actions, self._squeeze = task.num_actions, squeeze
        # action[0:6] moves the palm, action[6:] the fingers: see dexgrasp.sim.task.actions
        self._closing = task.hand.power.closing.float().clamp(0, 1)

    def act(self, obs: dict[str, Tensor]) -> Tensor:
        """Return actions (env, action) for the observation groups "teacher" and "student", each (env, size)."""
        contact = obs["teacher"][:, self._contact] > 0.5
        gripped = (contact & self._thumb).any(1) & (contact & self._fingers).any(1)
        action = torch.zeros(len(contact), self._num_actions)
        action[:, 6:] = self._squeeze * gripped[:, None] * self._closing
        return action


def main(num_envs: int, squeeze: float) -> None:
    """Run one episode per environment without and with the correction."""
    for strength in (0.0, squeeze):
        print(f"squeeze {strength:g}: {num_envs} episodes side by side ...", flush=True)
        task = dexgrasp.make("allegro", num_envs=num_envs, auto_reset=False, seed=0)
        policy, obs, done = Squeeze(task, strength), task.reset(), torch.zeros(num_envs, dtype=torch.bool)
        successes = 0
        while not done.all():
            step = task.step(policy.act(obs))
            successes += sum(outcome.success for outcome in step.info["outcomes"])
            obs, done = step.obs, done | step.terminated | step.truncated
        print(f"squeeze {strength:g}: {successes} of {num_envs} episodes succeeded")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--num-envs", type=int, default=48, help="number of episodes, run in parallel")
    parser.add_argument("--squeeze", type=float, default=0.5, help="finger action, in units of task.finger_action_rad")
    given = parser.parse_args()
    main(given.num_envs, given.squeeze)
