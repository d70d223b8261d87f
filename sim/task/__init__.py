"""The grasping task as a batched Markov decision process."""
