from . import deploy as deploy
from . import perception as perception
from .api import evaluate as evaluate
from .api import load_policy as load_policy
from .api import make as make
from .api import make_gym as make_gym
from .api import make_gym_vec as make_gym_vec
from .api import make_isaacgym as make_isaacgym
from .api import make_sb3 as make_sb3
from .api import open_objects as open_objects
from .api import register_envs as register_envs
from .api import register_isaacgym_task as register_isaacgym_task
from .api import register_reward as register_reward
from .api import register_task as register_task

__version__: str
