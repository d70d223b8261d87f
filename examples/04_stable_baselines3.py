"""Train PPO of Stable-Baselines3 on the task, then evaluate and save it.

python examples/04_stable_baselines3.py --steps 200000
"""

import argparse

from stable_baselines3 import PPO
from stable_baselines3.common.evaluation import evaluate_policy

import dexgrasp

PPO_OPTIONS = {"n_steps": 112, "learning_rate": 3e-4, "gamma": 0.99, "device": "cpu", "verbose": 1, "seed": 0}
"""Rollouts of one episode: 112 control steps."""


def main(steps: int, num_envs: int, objects: str, out: str) -> None:
    """Train on privileged observations with the physics preset of training."""
    options = {"objects": objects, "physics": "balanced", "randomization": "train"}
    env = dexgrasp.make_sb3("allegro", num_envs=num_envs, obs="teacher", **options)
    network = {"log_std_init": -1.2, "net_arch": [256, 128]}
    model = PPO("MlpPolicy", env, batch_size=28 * num_envs, policy_kwargs=network, **PPO_OPTIONS)
    model.learn(steps)
    model.save(out)
    mean, deviation = evaluate_policy(model, env, n_eval_episodes=num_envs)
    print(f"return {mean:.2f} (standard deviation {deviation:.2f}) over {num_envs} episodes; saved: {out}.zip")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=200_000, help="control steps, of all environments together")
    parser.add_argument("--num-envs", type=int, default=64, help="number of environments")
    parser.add_argument("--objects", default="generated:200", help="training objects; made on first use")
    parser.add_argument("--out", default="runs/sb3_teacher", help="file to write, without .zip")
    given = parser.parse_args()
    main(given.steps, given.num_envs, given.objects, given.out)
