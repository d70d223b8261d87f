"""Scanning of things: RGB-D frames from all sides to a closed mesh in metres, with open3d."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
