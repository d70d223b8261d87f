"""Sessions of the viewer: play, draw and change trials or depth frames at the requests of the page."""

from collections.abc import Callable
from dataclasses import replace
from typing import Protocol

from dexgrasp import assets
from dexgrasp.perception.segmentation.pipeline import SegmentationCfg
from dexgrasp.policies.agents.registry import POLICIES
from dexgrasp.policies.viewer.page import Page, Request
from dexgrasp.policies.viewer.perception_view import PerceptionView
from dexgrasp.policies.viewer.players import CameraPlayer, TaskPlayer
from dexgrasp.policies.viewer.policy_view import COMMANDS, PolicyView
from dexgrasp.policies.viewer.rollout import Choice, Results, Rollout
from dexgrasp.sim.rendering.geom_meshes import geom_meshes
from dexgrasp.sim.task.disturbances import DISTURBANCES

FAILURES = (ValueError, TypeError, OSError, ImportError, RuntimeError)
"""Errors of requests that cannot be carried out; the page shows their messages."""


class Session(Protocol):
    """Protocol of sessions: advance in time, draw, and carry out the requests of the page."""

    def draw(self, speed: float) -> None:
        """Draw the present state; `speed` reached, in multiples of real time."""
        ...

    def advance(self) -> float:
        """Advance to the next state; return how long the present one is shown at speed 1 [s]."""
        ...

    def handle(self, request: Request) -> None:
        """Carry out a request of the page; raise one of FAILURES where it cannot be."""
        ...

    def close(self) -> None:
        """Release a camera."""
        ...


class CameraSession:
    """Frames of a camera, a recording or a folder in the perception preset."""

    def __init__(self, page: Page, player: CameraPlayer, segment: SegmentationCfg) -> None:
        page.rebuild("perception")
        self._player, self._view, self._placed = player, PerceptionView(page, segment, player.robot), False

    def draw(self, speed: float) -> None:
        """Draw the last frame."""
        snapshot = self._player.look()
        self._view.show(snapshot, speed)
        if not self._placed:
            self._placed = True
            self._view.stand_beside(snapshot.seen.T_world_cam, snapshot.centre_w())

    def advance(self) -> float:
        """Read the next frame."""
        return self._player.advance()

    def handle(self, request: Request) -> None:
        """Start a recording again; a camera goes on, and other requests change nothing."""
        if request.name == "restart":
            self._player.restart()

    def close(self) -> None:
        """Release the camera."""
        self._player.close()


class TaskSession:
    """Policy in the simulated task; the perception preset renders depth."""

    def __init__(
        self, page: Page, build: Callable[[Choice, Results], Rollout], choice: Choice, segment: SegmentationCfg
    ) -> None:
        """`build` returns the rollout of a choice; it raises one of FAILURES."""
        self._page, self._build, self._segment, self._results = page, build, segment, Results()
        self._rollout, self._choice = build(choice, self._results), choice
        self._open_page()

    def draw(self, speed: float) -> None:
        """Draw the present step."""
        if isinstance(self._view, PolicyView):
            self._view.show(self._results.rows(), speed)
        else:
            self._view.show(self._player.look(), speed)

    def advance(self) -> float:
        """Run one control step, or start the next trials."""
        return self._rollout.advance()

    def handle(self, request: Request) -> None:
        """Carry out a request: start, restart, next, push, move, next or previous environment."""
        if request.name == "start":
            self._start(self._chosen(request))
        elif request.name == "restart":
            self._rollout.restart()
        elif request.name == "next":
            self._rollout.next()
        elif isinstance(self._view, PolicyView):
            self._disturb_or_select(request.name, self._view)

    def close(self) -> None:
        """Do nothing: no resource is open."""

    def _disturb_or_select(self, name: str, view: PolicyView) -> None:
        if name == "push":
            self._rollout.push(view.row, view.push_n)
        elif name == "move":
            self._rollout.move(view.row, view.move_m)
        elif name in ("next environment", "previous environment"):
            view.select(1 if name == "next environment" else -1)

    def _chosen(self, request: Request) -> Choice:
        """Return the choice of a form; raise ValueError where a value has another type or range."""
        values = {"preset": self._choice.preset, **request.values}
        for name in ("trial", "num_envs"):
            if not isinstance(values[name], int | float) or values[name] != int(values[name]):
                raise ValueError(f"{name} must be a whole number, got {values[name]!r}")
            values[name] = int(values[name])
        choice = Choice(**values)
        choice.trials(self._rollout.task.library.names)
        return choice

    def _start(self, choice: Choice) -> None:
        """Play another choice; the present one goes on where it cannot be built."""
        if self._task_of(choice) == self._task_of(self._choice):
            self._rollout.start(self._playable(choice))
            self._choice = choice
            return
        self._rollout = self._build(self._playable(choice), self._results)
        before, self._choice = self._choice, choice
        if choice.preset == before.preset == "policy" and isinstance(self._view, PolicyView):
            self._view.open(self._rollout)
        else:
            self._open_page()

    @staticmethod
    def _task_of(choice: Choice) -> Choice:
        """Return the part of a choice that needs a task of its own."""
        return replace(TaskSession._playable(choice), trial=0, object="")

    @staticmethod
    def _playable(choice: Choice) -> Choice:
        """Return a choice with one environment in the perception preset."""
        return choice if choice.preset == "policy" else replace(choice, num_envs=1)

    def _open_page(self) -> None:
        """Build the page anew for the preset."""
        policy = self._choice.preset == "policy"
        self._page.rebuild(self._choice.preset, COMMANDS if policy else ())
        objects = self._rollout.task.library.names
        policies, disturbances = [*POLICIES, *assets.policies()], list(DISTURBANCES)
        self._page.add_trial_form(self._choice, policies=policies, objects=objects, disturbances=disturbances)
        if policy:
            self._view = PolicyView(self._page, self._rollout)
            return
        model = self._rollout.task.engine.get_model(0)
        bodies = [number for number in range(1, model.nbody) if model.body(number).name != "object"]
        self._player = TaskPlayer(self._rollout, self._segment)
        self._view = PerceptionView(self._page, self._segment, geom_meshes(model, bodies))
        snapshot = self._player.look()
        self._view.stand_beside(snapshot.seen.T_world_cam, snapshot.centre_w())
