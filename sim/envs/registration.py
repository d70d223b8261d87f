"""Registration of the task with Gymnasium by name; imports neither torch nor MuJoCo."""

ENV_ID = "dexgrasp/Grasp-v0"


def register_envs() -> None:
    """Register `ENV_ID` for `gymnasium.make` and `gymnasium.make_vec`; a second call changes nothing."""
    import gymnasium

    if ENV_ID not in gymnasium.registry:
        gymnasium.register(ENV_ID, entry_point="dexgrasp.api:make_gym", vector_entry_point="dexgrasp.api:make_gym_vec")
