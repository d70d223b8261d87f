from .registry import make_policy as make_policy
