"""Sim-to-real dexterous grasping from one depth camera."""
