"""Use a reward term and a task of your own (upright_grasp.py) in Python; the commands take them as `plugins=`.

python examples/09_own_reward_and_task.py --steps 56
"""

import argparse

import torch
import upright_grasp  # registers the reward term `upright` and the task `UprightGrasp`

import dexgrasp


def rounded(values: torch.Tensor) -> list[float]:
    """Return values with three digits."""
    return [round(value, 3) for value in values.tolist()]


def main(steps: int, num_envs: int) -> None:
    """Step the task with the scripted grasp alone and print the new observation and the reward terms."""
    task = dexgrasp.make(
        "allegro",
        num_envs=num_envs,
        physics="balanced",
        seed=0,
        **{"task.class_name": "UprightGrasp", "task.reward.extra": {"upright": 0.5}},
    )
    obs = task.reset()
    print(f"objects start at y = {rounded(task.engine.state.object_pos_w[:, 1])} m")
    print(f"object_up of the first: {rounded(obs['teacher'][0, task.layouts['teacher'].slices()['object_up']])}")
    for _ in range(steps):
        step = task.step(torch.zeros(num_envs, task.num_actions))  # zero: the scripted grasp, not corrected
    print("reward terms of the last step, weighted:")
    for name, value in step.info["terms"].items():
        print(f"  {name:14} {value:+.3f}")
    tilt_deg = torch.rad2deg(torch.acos(upright_grasp.up_axis(task.engine.state.object_quat_w)[:, 2].clamp(-1, 1)))
    print(f"tilt of the objects: {[round(value) for value in tilt_deg.tolist()]} degrees")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=56, help="control steps at 20 Hz")
    parser.add_argument("--num-envs", type=int, default=4, help="number of environments")
    given = parser.parse_args()
    main(given.steps, given.num_envs)
