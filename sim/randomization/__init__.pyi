from .episode_draws import EpisodeDraws as EpisodeDraws
from .episode_draws import RandomizationCfg as RandomizationCfg
from .episode_draws import ResetCfg as ResetCfg
