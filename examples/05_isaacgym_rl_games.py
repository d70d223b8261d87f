"""Train with rl_games on the IsaacGymEnvs interface of the task.

pip install -e '.[trainers]' -c constraints.txt
python examples/05_isaacgym_rl_games.py --epochs 100
"""

import argparse
from pathlib import Path

import yaml
from rl_games.common import env_configurations, vecenv
from rl_games.torch_runner import Runner

from dexgrasp.sim.envs import isaacgym  # in place of isaacgymenvs


def main(epochs: int, num_envs: int, out: str) -> None:
    """Register the task with rl_games and train for some epochs."""
    vecenv.register("DEXGRASP", lambda name, num_envs, **options: isaacgym.make(num_envs=num_envs, **options))
    env_configurations.register("dexgrasp", {"vecenv_type": "DEXGRASP", "env_creator": None})

    params = yaml.safe_load(Path(__file__).with_suffix(".yaml").read_text(encoding="utf-8"))["params"]
    config = params["config"]
    config |= {
        "num_actors": num_envs,
        "minibatch_size": num_envs * config["horizon_length"] // 4,
        "max_epochs": epochs,
        "train_dir": out,
    }
    runner = Runner()
    runner.load({"params": params})
    runner.run({"train": True, "play": False})
    print(f"checkpoints: {out}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--epochs", type=int, default=100, help="rollouts of 28 control steps, each with an update")
    parser.add_argument("--num-envs", type=int, default=64, help="number of environments, a multiple of 4")
    parser.add_argument("--out", default="runs/rl_games", help="folder of the checkpoints")
    given = parser.parse_args()
    main(given.epochs, given.num_envs, given.out)
