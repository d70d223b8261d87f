from .offscreen import RenderUnavailable as RenderUnavailable
from .renderer import Renderer as Renderer
from .video import VideoRecorder as VideoRecorder
