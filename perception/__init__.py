"""What the policy can know: geometry, hand-centric features, points from a camera. One implementation for all uses."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
