"""OpenGL without a display: finds the backend that works and opens renderers on it.

MuJoCo reads MUJOCO_GL once, when it is first imported; by then it is usually too late for a library to choose. So the
backend is found here by trying each one in a short-lived child process (a failed attempt leaves PyOpenGL bound to the
wrong platform for good), and the winner is handed to `mujoco.Renderer` explicitly.
"""

import functools
import importlib
import os
import subprocess
import sys
from typing import Any

import mujoco

LAMP_CUTOFF_DEG, SHADOW_HALF_ANGLE_DEG = 180.0, 17.0
"""Cone of the lamp, and the part of it that has shadows."""

APT_PACKAGES = {"egl": "libegl1 libegl-mesa0 libgl1", "osmesa": "libosmesa6"}
"""Debian packages of each headless backend, best one first."""

PROBE_TIMEOUT_S = 60.0
_PROBE = "from mujoco.{0} import GLContext as C; c = C(64, 64); c.make_current(); c.free()"


class RenderUnavailable(RuntimeError):  # noqa: N818 - says what it is, like StopIteration
    """No OpenGL backend works here; the message names the packages that bring one."""

    def __init__(self, reasons: dict[str, str]) -> None:
        tried = "; ".join(f"{backend}: {reason}" for backend, reason in reasons.items())
        install = " | ".join(f"apt-get install {APT_PACKAGES[backend]}" for backend in APT_PACKAGES)
        super().__init__(f"no headless OpenGL for pictures and videos ({tried}). Install one of: {install}")


@functools.cache
def backend() -> str:
    """Return the name of the OpenGL backend that works on this machine.

    MUJOCO_GL where it names one, else egl, else osmesa.
    """
    asked = os.environ.get("MUJOCO_GL", "").strip().lower()
    reasons: dict[str, str] = {}
    for name in [asked] if asked in APT_PACKAGES else list(APT_PACKAGES):
        failure = _probe(name)
        if not failure:
            return name
        reasons[name] = failure
    raise RenderUnavailable(reasons)


def open_renderer(model: mujoco.MjModel, width: int, height: int, samples: int = 4) -> mujoco.Renderer:
    """Return a renderer of one model on the working backend; the caller closes it.

    Images have `width` x `height` pixels of `samples` samples.

    Raises RenderUnavailable where no backend works.
    """
    os.environ["PYOPENGL_PLATFORM"] = backend()  # it may be inherited from a process that took the other one
    chosen: Any = importlib.import_module("mujoco.rendering.classic.gl_context")
    chosen.GLContext = importlib.import_module(f"mujoco.{backend()}").GLContext
    model.stat.extent = 1.0  # clipping and shadow depths are in units of it
    model.vis.global_.offwidth = max(width, model.vis.global_.offwidth)
    model.vis.global_.offheight = max(height, model.vis.global_.offheight)
    model.vis.map.shadowscale = SHADOW_HALF_ANGLE_DEG / LAMP_CUTOFF_DEG
    model.vis.quality.offsamples, model.vis.quality.shadowsize = samples, 1024
    return mujoco.Renderer(model, height=height, width=width)


@functools.cache
def _probe(name: str) -> str:
    """Return '' when backend `name` can make a context in a fresh process, else its last message."""
    clean = {key: value for key, value in os.environ.items() if key != "PYOPENGL_PLATFORM"}
    command = [sys.executable, "-c", _PROBE.format(name)]
    try:
        done = subprocess.run(
            command, env=clean | {"MUJOCO_GL": name}, capture_output=True, text=True, timeout=PROBE_TIMEOUT_S
        )
    except subprocess.TimeoutExpired:
        return f"no answer within {PROBE_TIMEOUT_S:.0f} s"
    return "" if done.returncode == 0 else (done.stderr.strip().splitlines() or ["it crashed"])[-1]
