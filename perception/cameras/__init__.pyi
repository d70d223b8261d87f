from .depth import DepthFrame as DepthFrame
from .depth import DepthSource as DepthSource
from .depth import Intrinsics as Intrinsics
