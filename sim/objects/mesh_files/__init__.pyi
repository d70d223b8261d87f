from .reader import SUFFIXES as SUFFIXES
from .reader import MeshFileError as MeshFileError
from .reader import read_surface as read_surface
