"""Rendering of one environment as an image, or in a window."""

import threading
import warnings
from typing import Any

import mujoco
import numpy as np
from numpy.typing import NDArray

from dexgrasp.sim.rendering.renderer import Renderer
from dexgrasp.sim.task.grasp_task import GraspTask

MODES = ("human", "rgb_array")
CLOSING_S = 5.0
"""Longest wait for a window to close [s]."""


class NoDisplay(RuntimeError):  # noqa: N818 - as StopIteration
    """The process has no display for a window."""

    def __init__(self) -> None:
        super().__init__(
            "render_mode='human' opens a window, and this process has no display it can open one on (is DISPLAY set?): "
            "take render_mode='rgb_array', or run it where a screen is attached"
        )


def check_mode(mode: str | None) -> None:
    """Raise ValueError for an unknown render mode, NoDisplay where a window cannot be opened."""
    if mode is not None and mode not in MODES:
        raise ValueError(f"render_mode must be None or one of {list(MODES)}, got '{mode}'")
    if mode == "human" and not _has_display():
        raise NoDisplay


def _has_display() -> bool:
    import mujoco.viewer  # what it brings is wanted by windows alone

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # glfw warns about what we report
        return bool(mujoco.viewer.glfw.init())


class Window:
    """Renders one environment of a task, `width` x `height` pixels."""

    def __init__(self, task: GraspTask, row: int = 0, width: int = 640, height: int = 480) -> None:
        self._task, self._row, self._size = task, row, (width, height)
        self._photographer: Renderer | None = None
        self._subject: tuple[str, float] | None = None
        self._window: Any = None
        self._threads: set[threading.Thread] = set()
        self._shown: tuple[mujoco.MjModel, mujoco.MjData] | None = None

    def picture(self) -> NDArray[np.uint8]:
        """Return an image (height, width, 3) of the present state. Raises RenderUnavailable without OpenGL."""
        name, size = self._task.objects[self._row], float(self._task.draws.size[self._row])
        if self._photographer is None or self._subject != (name, size):
            self._close_photographer()
            self._photographer = Renderer(self._task.object_mesh(self._row), *self._size)
            self._subject = name, size
        engine = self._task.engine
        return self._photographer.shoot(engine.get_model(self._row), engine.get_data(self._row))

    def show(self) -> None:
        """Update the window; each episode has another model, for which it is opened anew."""
        import mujoco.viewer

        engine = self._task.engine
        model, data = engine.get_model(self._row), engine.get_data(self._row)
        if self._shown is None or self._shown[0] is not model:
            self._close_window()
            others = set(threading.enumerate())
            self._window, self._shown = mujoco.viewer.launch_passive(model, data), (model, data)
            self._threads = set(threading.enumerate()) - others
        with self._window.lock():
            self._shown[1].qpos[:] = data.qpos
            mujoco.mj_forward(*self._shown)
        self._window.sync()

    def close(self) -> None:
        """Free OpenGL and close the window."""
        self._close_photographer()
        self._close_window()

    def _close_photographer(self) -> None:
        if self._photographer is not None:
            self._photographer.close()
        self._photographer = None

    def _close_window(self) -> None:
        if self._window is not None:
            self._window.close()
        for thread in self._threads:  # the viewer's own; a window that opens or a process that ends beside it crashes
            thread.join(CLOSING_S)
        self._window, self._shown, self._threads = None, None, set()
