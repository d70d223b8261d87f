from .vec_task import VecTask as VecTask
from .vec_task import make as make
