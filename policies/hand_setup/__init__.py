"""Describe a hand: search the numbers of its grasp styles."""
