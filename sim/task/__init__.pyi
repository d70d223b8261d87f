from .grasp_task import GraspTask as GraspTask
from .grasp_task import StepResult as StepResult
from .grasp_task import TaskCfg as TaskCfg
