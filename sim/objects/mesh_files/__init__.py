"""Readers of OBJ, STL, PLY and GLB files: the surface that the format describes, as triangles."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
