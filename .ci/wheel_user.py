"""What a user of the wheel does first: imports, faces of the task, a shipped policy (run by .ci/wheel)."""

import importlib.metadata
import subprocess
import sys

import dexgrasp

assert not {"torch", "mujoco", "numpy", "gymnasium", "stable_baselines3"} & set(sys.modules)

import gymnasium  # noqa: E402

names = {path.parts[0] for path in importlib.metadata.files("dexgrasp") or [] if ".dist-info" not in path.parts[0]}
assert names <= {"dexgrasp", "..", "__pycache__"}, f"site-packages got {names}"
for name in dexgrasp.__all__:
    getattr(dexgrasp, name)
cards = [path for path in importlib.metadata.files("dexgrasp") or [] if path.match("policies/*/*/README.md")]
assert len(cards) == 10, f"model cards in the wheel: {cards}"

env = gymnasium.make("dexgrasp.gym:dexgrasp/Grasp-v0")  # imports dexgrasp.gym, which registers it
observation, info = env.reset(seed=0)
env.step(env.action_space.sample())
env.close()

from stable_baselines3 import PPO  # noqa: E402

PPO("MlpPolicy", dexgrasp.make_sb3("allegro", num_envs=2), n_steps=8, batch_size=16).learn(16)

envs = dexgrasp.make_gym_vec("allegro", num_envs=2, obs="dict", policy="allegro/student")
policy = dexgrasp.load_policy("allegro/student", envs)
observation, info = envs.reset(seed=0)
for _ in range(5):
    observation, reward, terminated, truncated, info = envs.step(policy.act(observation))
subprocess.run(
    [sys.executable, "-c", "import dexgrasp.deploy; import sys; assert 'torch' not in sys.modules"], check=True
)
print("faces and policy: fine")
