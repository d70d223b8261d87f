from .cameras.depth import DepthFrame as DepthFrame
from .cameras.depth import DepthSource as DepthSource
from .cameras.depth import Intrinsics as Intrinsics
from .hand_features import HandFeatures as HandFeatures
from .segmentation.pipeline import SegmentationCfg as SegmentationCfg
from .segmentation.pipeline import Segmenter as Segmenter
from .tracking.icp import IcpCfg as IcpCfg
from .tracking.object_points import ObjectPoints as ObjectPoints
