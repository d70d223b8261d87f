"""Run a shipped policy in a Gymnasium vector environment, with regrasps.

python examples/03_gymnasium.py --episodes 16
"""

import argparse

import dexgrasp


def main(episodes: int, num_envs: int) -> None:
    """Step the environment until enough episodes have ended and print how many succeeded."""
    num_envs = min(num_envs, episodes)
    env = dexgrasp.make_gym_vec("allegro", num_envs=num_envs, obs="dict", policy="allegro/student", attempts=3)
    policy = dexgrasp.load_policy("allegro/student", env)
    obs, info = env.reset(seed=0)
    print(f"observation: {sorted(obs)}")
    print(f"action: {env.single_action_space}")
    print(f"{num_envs} episodes run side by side; the first ones end in a minute or two ...", flush=True)

    successes: list[bool] = []
    while len(successes) < episodes:
        obs, _, _, _, info = env.step(policy.act(obs))  # obs, reward, terminated, truncated, info
        if "final_info" in info:  # episodes ended; their environments were reset in this step
            ended, outcome = info["_final_info"], info["final_info"]["outcome"]
            results = zip(*(outcome[key][ended].tolist() for key in ("object", "success", "attempts")), strict=True)
            for name, success, attempts in list(results)[: episodes - len(successes)]:
                successes.append(success)
                end = "grasped" if success else "failed"
                print(f"episode {len(successes)} of {episodes}: {name}, {end}, attempts: {attempts}", flush=True)
    print(f"{sum(successes)} of {len(successes)} episodes succeeded")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--episodes", type=int, default=16, help="number of episodes")
    parser.add_argument("--num-envs", type=int, default=8, help="number of environments")
    given = parser.parse_args()
    main(given.episodes, given.num_envs)
