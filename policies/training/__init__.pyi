from .config import TrainCfg as TrainCfg
from .train import train as train
