"""The simulated world: hands, arms, objects, scenes, engines and the grasping task."""

import os
import platform

_RENDERERS = {"Linux": ("egl", "osmesa", "glfw", "glx"), "Darwin": ("cgl", "glfw"), "Windows": ("wgl", "glfw")}
_SWITCHES = ("enable", "enabled", "on", "true", "1", "disable", "disabled", "off", "false", "0", "")


def _check_mujoco_gl() -> None:
    """Raise ImportError for a value of MUJOCO_GL with which MuJoCo cannot be imported."""
    value, known = os.environ.get("MUJOCO_GL", ""), _RENDERERS.get(platform.system(), ("glfw",))
    if value.strip().lower() not in (*known, *_SWITCHES):
        raise ImportError(
            f"MUJOCO_GL={value} is no OpenGL backend of MuJoCo: set it to {', '.join(known)} or off, or unset it, "
            "which lets dexgrasp choose"
        )


_check_mujoco_gl()
