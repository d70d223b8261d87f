from .planner import plan_pregrasp as plan_pregrasp
