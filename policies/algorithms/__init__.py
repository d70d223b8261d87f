"""PPO and distillation."""
