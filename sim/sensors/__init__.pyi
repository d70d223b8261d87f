from .config import CameraCfg as CameraCfg
from .depth_camera import DepthCamera as DepthCamera
from .object_camera import ObjectCamera as ObjectCamera
from .point_camera import PointCamera as PointCamera
