"""Observations and their inputs: geometry, hand-centric features, object points from a depth camera.

Simulation and robot run one implementation.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
