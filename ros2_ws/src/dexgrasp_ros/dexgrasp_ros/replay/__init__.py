"""Replay of recorded bags through perception and grasp logic."""
