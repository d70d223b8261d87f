from .gymnasium_env import GraspEnv as GraspEnv
from .gymnasium_env import GraspVectorEnv as GraspVectorEnv
from .sb3_env import GraspVecEnv as GraspVecEnv
from .trial_streams import make_task as make_task
