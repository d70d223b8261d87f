"""Bags of the recorder, and the log of decisions from which they are replayed."""
