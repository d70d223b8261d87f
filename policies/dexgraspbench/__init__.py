"""Commands that play grasps of DexGraspBench and write ours in its format."""
