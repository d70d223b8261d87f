"""Simulated cameras and proprioception with latency and noise."""
