"""Descriptions and models of arms: files, bodies from base to tip, derived values, search of poses."""
