"""Interfaces of the task: Gymnasium, Stable-Baselines3, Isaac Gym."""
