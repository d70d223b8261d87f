"""Robot models: their names and files, and the reader of MJCF and URDF."""
