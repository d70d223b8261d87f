"""Drivers of hands and arms: topics, joint order, units."""
