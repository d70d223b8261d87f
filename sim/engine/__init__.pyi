from .base import Engine as Engine
from .base import State as State
from .factory import make_engine as make_engine
