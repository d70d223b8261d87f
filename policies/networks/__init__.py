"""Actor, critic and student networks."""
