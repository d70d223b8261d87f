from .registry import Agent as Agent
from .registry import make_policy as make_policy
