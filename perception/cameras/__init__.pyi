from .depth import DepthFrame as DepthFrame
from .depth import DepthSource as DepthSource
from .depth import Intrinsics as Intrinsics
from .extrinsics import CameraPose as CameraPose
from .open import open_camera as open_camera
