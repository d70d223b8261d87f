"""The real rl_games and skrl, unmodified, train on the faces: the steps they asked for, finite losses, new weights."""

import gymnasium
import numpy as np
import pytest
import torch

from dexgrasp.sim.envs.isaacgym import vec_task
from dexgrasp.sim.envs.registration import ENV_ID, register_envs
from dexgrasp.sim.task.grasp_task import TaskCfg

TINY = TaskCfg(grasp_s=0.2, lift_s=0.2, hold_s=0.1)
EPISODE = 10
ENVS = 4
pytestmark = pytest.mark.filterwarnings("ignore")  # what other people's packages warn about


@pytest.fixture(scope="module")
def options(household, allegro, balanced):
    return {"objects": household, "hand": allegro, "physics": balanced}


@pytest.fixture(autouse=True)
def settings_of_torch():
    """rl_games changes these for the whole process."""
    threads, precision = torch.get_num_threads(), torch.get_float32_matmul_precision()
    yield
    torch.set_num_threads(threads)
    torch.set_float32_matmul_precision(precision)


class Watch:
    """Passes everything on to a VecTask and remembers what went through."""

    def __init__(self, env):
        self.env, self.steps, self.resets, self.time_outs = env, 0, 0, 0

    def __getattr__(self, name):
        return getattr(self.env, name)

    def step(self, actions):
        result = self.env.step(actions)
        self.steps += 1
        self.resets += int(result[2].sum())
        self.time_outs += int(result[3]["time_outs"].sum())
        return result


def rl_games_params(folder, num_epochs, horizon, central_value):
    network = {
        "name": "actor_critic",
        "separate": False,
        "space": {
            "continuous": {
                "mu_activation": "None",
                "sigma_activation": "None",
                "mu_init": {"name": "default"},
                "sigma_init": {"name": "const_initializer", "val": -1.0},
                "fixed_sigma": True,
            }
        },
        "mlp": {"units": [32], "activation": "elu", "initializer": {"name": "default"}},
    }
    config = {
        "name": "grasp",
        "env_name": "dexgrasp",
        "train_dir": str(folder),
        "device": "cpu",
        "device_name": "cpu",
        "torch_compile": False,
        "ppo": True,
        "mixed_precision": False,
        "normalize_input": True,
        "normalize_value": True,
        "normalize_advantage": True,
        "value_bootstrap": True,
        "reward_shaper": {"scale_value": 1.0},
        "gamma": 0.95,
        "tau": 0.95,
        "learning_rate": 1e-3,
        "lr_schedule": None,
        "grad_norm": 1.0,
        "truncate_grads": True,
        "entropy_coef": 0.0,
        "e_clip": 0.2,
        "clip_value": True,
        "critic_coef": 1.0,
        "bounds_loss_coef": 0.001,
        "num_actors": ENVS,
        "horizon_length": horizon,
        "minibatch_size": ENVS * horizon,
        "mini_epochs": 2,
        "max_epochs": num_epochs,
        "env_config": {},
    }
    if central_value:
        critic = {"name": "actor_critic", "central_value": True, "mlp": network["mlp"]}
        config["central_value_config"] = {
            "minibatch_size": ENVS * horizon,
            "mini_epochs": 2,
            "learning_rate": 1e-3,
            "clip_value": True,
            "normalize_input": True,
            "truncate_grads": True,
            "grad_norm": 1.0,
            "network": critic,
        }
    model = {"name": "continuous_a2c_logstd"}
    return {"seed": 1, "algo": {"name": "a2c_continuous"}, "model": model, "network": network, "config": config}


@pytest.mark.parametrize("central_value", [False, True], ids=["symmetric", "asymmetric"])
def test_rl_games_trains_on_the_vec_task(options, tmp_path, central_value):
    from rl_games.common import env_configurations, vecenv
    from rl_games.common.algo_observer import AlgoObserver
    from rl_games.torch_runner import Runner

    made, weights, critics, scalars = [], [], [], {}

    class Observer(AlgoObserver):
        def after_init(self, algo):
            self.algo = algo
            algo.writer.add_scalar = lambda name, value, step: scalars.setdefault(name, []).append(value)
            weights.append(flat(algo.model))

        def after_print_stats(self, frame, epoch_num, total_time):
            weights.append(flat(self.algo.model))
            if central_value:
                critics.append(flat(self.algo.central_value_net.model))

    def create(config_name, num_actors, **config):
        made.append(Watch(vec_task.make(config["seed"], num_envs=num_actors, task_cfg=TINY, **options)))
        return made[-1]

    vecenv.register("DEXGRASP", create)
    env_configurations.register("dexgrasp", {"vecenv_type": "DEXGRASP", "env_creator": None})
    runner = Runner(Observer())
    runner.load({"params": rl_games_params(tmp_path, num_epochs=3, horizon=8, central_value=central_value)})
    runner.run({"train": True, "play": False})
    (env,) = made
    assert env.steps == 3 * 8
    assert env.resets == env.time_outs == ENVS * (3 * 8 // EPISODE)
    assert env.total_train_env_frames == 2 * 8 * ENVS  # told before each epoch
    losses = [value for name, values in scalars.items() if name.startswith("losses/") for value in values]
    assert len(scalars["losses/a_loss"]) == len(scalars["losses/c_loss"]) == 3
    assert np.isfinite(losses).all()
    assert scalars["episode_lengths/step"][-1] == EPISODE
    assert not torch.equal(weights[0], weights[-1])
    assert torch.isfinite(weights[-1]).all()
    assert len(critics) == 3 * central_value
    assert not central_value or not torch.equal(critics[0], critics[-1])


class TwoPerStep(vec_task.VecTask):
    """A user's task: every step is worth 2."""

    def compute_reward(self):
        super().compute_reward()
        self.rew_buf = torch.full((self.num_envs,), 2.0)


def test_rl_games_trains_on_a_users_subclass_with_its_own_reward(options, tmp_path, monkeypatch):
    from rl_games.common import env_configurations, vecenv
    from rl_games.common.algo_observer import AlgoObserver
    from rl_games.torch_runner import Runner

    monkeypatch.setattr(vec_task, "isaacgym_task_map", dict(vec_task.isaacgym_task_map))
    vec_task.register("TwoPerStep", TwoPerStep)
    scalars, weights = {}, []

    class Observer(AlgoObserver):
        def after_init(self, algo):
            self.algo = algo
            algo.writer.add_scalar = lambda name, value, step: scalars.setdefault(name, []).append(value)
            weights.append(flat(algo.model))

        def after_print_stats(self, frame, epoch_num, total_time):
            weights.append(flat(self.algo.model))

    def create(config_name, num_actors, **config):
        return vec_task.make(config["seed"], "TwoPerStep", num_actors, task_cfg=TINY, **options)

    vecenv.register("DEXGRASP_TWO", create)
    env_configurations.register("dexgrasp", {"vecenv_type": "DEXGRASP_TWO", "env_creator": None})
    runner = Runner(Observer())
    runner.load({"params": rl_games_params(tmp_path, num_epochs=3, horizon=8, central_value=False)})
    runner.run({"train": True, "play": False})
    assert float(scalars["rewards/step"][-1]) == 2.0 * EPISODE
    assert torch.isfinite(weights[-1]).all()
    assert not torch.equal(weights[0], weights[-1])


def flat(model):
    return torch.cat([p.detach().flatten().clone() for p in model.parameters()])


def skrl_models(observation_space, action_space):
    from skrl.models.torch import DeterministicMixin, GaussianMixin, Model

    class Policy(GaussianMixin, Model):
        def __init__(self):
            Model.__init__(self, observation_space, action_space, "cpu")
            GaussianMixin.__init__(self)
            self.net = torch.nn.Linear(self.num_observations, self.num_actions)
            self.log_std = torch.nn.Parameter(torch.full((self.num_actions,), -1.0))

        def compute(self, inputs, role):
            return self.net(inputs["states"]), self.log_std, {}

    class Value(DeterministicMixin, Model):
        def __init__(self):
            Model.__init__(self, observation_space, action_space, "cpu")
            DeterministicMixin.__init__(self)
            self.net = torch.nn.Linear(self.num_observations, 1)

        def compute(self, inputs, role):
            return self.net(inputs["states"]), {}

    return {"policy": Policy(), "value": Value()}


def train_with_skrl(env, folder, rollouts, timesteps):
    """PPO of skrl on a wrapped environment; its policy before and after, and the losses that it tracked."""
    from skrl.agents.torch.ppo import PPO, PPO_DEFAULT_CONFIG
    from skrl.memories.torch import RandomMemory
    from skrl.trainers.torch import SequentialTrainer

    experiment = {"directory": str(folder), "write_interval": 0, "checkpoint_interval": 0}
    cfg = PPO_DEFAULT_CONFIG | {"rollouts": rollouts, "mini_batches": 1, "time_limit_bootstrap": True}
    cfg["experiment"] = PPO_DEFAULT_CONFIG["experiment"] | experiment
    models = skrl_models(env.observation_space, env.action_space)
    memory = RandomMemory(memory_size=rollouts, num_envs=env.num_envs, device="cpu")
    spaces = {"observation_space": env.observation_space, "action_space": env.action_space}
    agent = PPO(models, memory, cfg=cfg, device="cpu", **spaces)
    before = flat(models["policy"])
    trainer = {
        "timesteps": timesteps,
        "headless": True,
        "disable_progressbar": True,
        "close_environment_at_exit": False,
    }
    SequentialTrainer(env=env, agents=agent, cfg=trainer).train()
    losses = [v for k, values in agent.tracking_data.items() if k.startswith("Loss") for v in values]
    return before, flat(models["policy"]), losses


def test_skrl_trains_on_the_vec_task_with_its_wrapper_for_omniverse_isaac_gym(options, tmp_path):
    from skrl.envs.wrappers.torch import wrap_env  # its other one for Isaac Gym wants spaces of the old gym

    task = Watch(vec_task.make(num_envs=ENVS, task_cfg=TINY, **options))
    env = wrap_env(task, wrapper="omniverse-isaacgym")
    assert env.state_space.shape == (task.num_states,)
    before, after, losses = train_with_skrl(env, tmp_path, rollouts=8, timesteps=24)
    assert task.steps == 24
    assert task.resets == task.time_outs == ENVS * (24 // EPISODE)
    assert losses
    assert np.isfinite(losses).all()
    assert not torch.equal(before, after)
    assert torch.isfinite(after).all()


def test_skrl_trains_on_the_gymnasium_batch(options, tmp_path):
    from skrl.envs.wrappers.torch import wrap_env

    register_envs()  # `import dexgrasp` does it only where gymnasium was imported before
    batch = gymnasium.make_vec(ENV_ID, num_envs=ENVS, task=TINY, **options)
    before, after, losses = train_with_skrl(wrap_env(batch), tmp_path, rollouts=8, timesteps=16)
    assert batch.task.trial.tolist() == [1] * ENVS  # 16 steps are one episode and a half
    assert np.isfinite(losses).all()
    assert not torch.equal(before, after)
