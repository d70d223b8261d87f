"""Domain randomisation and its counter-based random numbers."""
