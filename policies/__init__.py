"""Policies, their training, evaluation and export, and the command line."""
