"""Exported policies on a robot: numpy and onnxruntime only."""
