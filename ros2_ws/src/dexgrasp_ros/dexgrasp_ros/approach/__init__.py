"""Way to the pre-grasp from a motion planner."""
