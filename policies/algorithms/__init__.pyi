from .distillation import DistillationCfg as DistillationCfg
from .distillation import StudentPPO as StudentPPO
from .ppo import GraspPPO as GraspPPO
from .rollout_buffer import RolloutBuffer as RolloutBuffer
