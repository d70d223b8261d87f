"""Registers "dexgrasp/Grasp-v0" on import, for `gymnasium.make("dexgrasp.gym:dexgrasp/Grasp-v0")`."""

from dexgrasp.sim.envs.registration import register_envs

register_envs()
