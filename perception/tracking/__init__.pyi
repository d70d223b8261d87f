from .icp import IcpCfg as IcpCfg
from .object_points import ObjectPoints as ObjectPoints
