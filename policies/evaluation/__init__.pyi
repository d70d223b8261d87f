from .config import EvaluateCfg as EvaluateCfg
from .evaluate import evaluate as evaluate
