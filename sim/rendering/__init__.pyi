from .offscreen import Renderer as Renderer
from .offscreen import RenderUnavailable as RenderUnavailable
from .offscreen import VideoRecorder as VideoRecorder
