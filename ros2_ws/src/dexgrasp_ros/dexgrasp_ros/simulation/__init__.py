"""Simulated robot, closed loop and its benchmark."""
