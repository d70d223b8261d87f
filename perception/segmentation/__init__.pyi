from .pipeline import SegmentationCfg as SegmentationCfg
from .pipeline import Segmenter as Segmenter
