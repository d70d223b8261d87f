from .arm import ArmSpec as ArmSpec
from .hand import HandSpec as HandSpec
