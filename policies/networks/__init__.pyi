from .actor_critic import Actor as Actor
from .actor_critic import Critic as Critic
from .actor_critic import GraspPolicy as GraspPolicy
from .student import StudentActor as StudentActor
