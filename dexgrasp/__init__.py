"""Sim-to-real dexterous grasping from one depth camera: training, evaluation and deployment.

Names are imported on first use: `import dexgrasp` loads neither torch nor MuJoCo.
"""

import sys

import lazy_loader

__version__ = "0.1.0"

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)

if "gymnasium" in sys.modules:  # else by dexgrasp.gym or register_envs(): importing gymnasium here would take long
    from dexgrasp.api import register_envs

    register_envs()
