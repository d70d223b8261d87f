"""Policies that act in the simulator: scripted, checkpoint, bundle."""
