"""Grasps and objects in the files of DexGraspBench, frames of its hands, and its rule of success."""
