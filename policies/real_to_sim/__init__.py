"""Commands from real things to the simulation: scans as objects, checks of the real scene."""
