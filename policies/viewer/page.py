"""The browser page of the viewer: server, playback controls, trial form; alone imports viser."""

import logging
import queue
import socket
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, redirect_stdout
from dataclasses import dataclass, field
from html import escape
from http import HTTPStatus
from io import StringIO
from types import TracebackType
from typing import Any, Self

from dexgrasp.policies.viewer.access import LOCALHOST, Access
from dexgrasp.policies.viewer.rollout import MAX_ENVS, PRESETS, Choice
from dexgrasp.utils.text import install_command

SPEEDS = (0.1, 0.5, 1.0, 2.0, 4.0)
"""Playback speeds in multiples of real time; the keys 1 to 5 choose them."""
ANY_OBJECT = "each trial's own"
"""Entry of the object list that leaves the choice to the trial numbers."""
PANEL_PX = 380
"""Width of the panel [pixel]."""


@dataclass(frozen=True)
class Request:
    """Request to the session: a click, a key, or a submitted form."""

    name: str
    values: Mapping[str, Any] = field(default_factory=dict)


class Page:
    """Page for any number of browsers; their requests are queued until `requests` is called."""

    def __init__(self, host: str, port: int, speed: float = 1.0) -> None:
        """Start the server; `port` 0: any free one. Raises ImportError without viser, OSError if it is taken."""
        viser, self._access = _viser(), Access.of(host)
        logging.getLogger("websockets.server").setLevel(logging.CRITICAL)  # a closed browser is no error
        _demand_free(host, port)
        with _silence(), _guarded(self._access):
            self.server = viser.ViserServer(host, port, label="dexgrasp", verbose=False)
        if port and self.server.get_port() != port:  # taken since the check
            self.close()
            raise OSError(_cannot_serve(host, port, "Address already in use"))
        self._host, self._requests, self._message_text = host, queue.SimpleQueue(), ""
        self.playing, self.speed, self._urgent = True, speed, False

    @property
    def url(self) -> str:
        """Return the address of the page on this machine, with the token that it needs."""
        host = LOCALHOST if self._host in ("", "0.0.0.0", "127.0.0.1") else self._host
        return f"http://{host}:{self.server.get_port()}{self._access.path}"

    @property
    def warning(self) -> str:
        """Return a warning where other machines reach the page; empty on loopback."""
        if not self._access.token:
            return ""
        return (
            f"host={self._host}: whoever knows the address below, with its token, can watch and use the page, and the "
            "connection is not encrypted; host=127.0.0.1 and an SSH tunnel keep it private"
        )

    @property
    def interrupted(self) -> bool:
        """Return whether playback must not wait: the page is paused, or asks for more than a drawing."""
        return self._urgent or not self.playing

    def requests(self) -> list[Request]:
        """Return the requests since the last call."""
        self._urgent = False
        return [self._requests.get() for _ in range(self._requests.qsize())]

    def request(self, name: str, **values: Any) -> None:
        """Queue a request."""
        self._requests.put(Request(name, values))
        self._urgent |= name != "redraw"

    def message(self, text: str) -> None:
        """Show an error message in the panel until the next request succeeds; empty: none."""
        self._message_text = text
        self._message.content = f'<div style="{_MESSAGE_STYLE}">{escape(text)}</div>' if text else ""

    def close(self) -> None:
        """Stop the server and disconnect the browsers."""
        with _silence():
            self.server.stop()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def rebuild(self, preset: str, commands: Sequence[tuple[str, str]] = ()) -> None:
        """Empty page and scene and add the playback controls.

        `preset`: named in the title; `commands`: hotkey and request name of further keys.
        """
        gui, scene = self.server.gui, self.server.scene
        gui.reset()
        scene.reset()
        gui.configure_theme(show_logo=False, show_share_button=False)
        gui.main_panel.dock_right()
        gui.main_panel.set_width(PANEL_PX)
        gui.set_panel_label(f"dexgrasp viewer: {preset}")
        self._play = gui.add_button_group("playback", self._play_options())
        self._play.on_click(lambda event: self._clicked(event.target.value))
        self._speed = gui.add_button_group("speed", [f"{speed:g}×" for speed in SPEEDS])
        self._speed.on_click(lambda event: self._set_speed(float(event.target.value.rstrip("×"))))
        self._message = gui.add_html("")
        self.message(self._message_text)
        self.numbers = gui.add_html("")
        self._add_keys(commands)

    def add_trial_form(
        self, choice: Choice, *, policies: Sequence[str], objects: Sequence[str], disturbances: Sequence[str]
    ) -> None:
        """Add the fields of a choice of trials; `Start` requests "start" with their values."""
        gui = self.server.gui
        hint = "policy: solid scene, forces, plots. perception: depth camera and pipeline."
        preset = gui.add_button_group("preset", list(PRESETS), hint=hint)
        preset.on_click(lambda event: self.request("start", **self._values(), preset=event.target.value))
        with gui.add_form("Trial") as form:
            names = list(dict.fromkeys((*policies, choice.policy)))
            chosen = choice.object or ANY_OBJECT
            self._fields = {
                "policy": gui.add_dropdown("policy", names, initial_value=choice.policy),
                "other policy": gui.add_text("other policy", "", hint="Run, checkpoint or bundle by its path."),
                "object": gui.add_dropdown("object", [ANY_OBJECT, *objects], initial_value=chosen),
                "trial": gui.add_number("first trial", choice.trial, step=1, hint="Seed and number decide it."),
                "disturbance": gui.add_dropdown("disturbance", list(disturbances), initial_value=choice.disturbance),
                "num_envs": gui.add_slider("environments", 1, MAX_ENVS, 1, choice.num_envs, hint="With preset policy."),
            }
            start = gui.add_button("Start")
        start.on_click(lambda _: form.submit())
        form.on_submit(lambda _: self.request("start", **self._values()))

    def _values(self) -> dict[str, Any]:
        """Return the values of the form as fields of a `Choice`."""
        values = {name: handle.value for name, handle in self._fields.items()}
        other = values.pop("other policy").strip()
        values["policy"] = other or values["policy"]
        values["object"] = "" if values["object"] == ANY_OBJECT else values["object"]
        return values

    def _play_options(self) -> list[str]:
        return ["pause" if self.playing else "play", "step", "restart", "next"]

    def _clicked(self, name: str) -> None:
        if name in ("play", "pause"):
            self._toggle()
        else:
            self.request(name)

    def _toggle(self) -> None:
        self.playing = not self.playing
        self._play.options = tuple(self._play_options())
        self.request("redraw")

    def _set_speed(self, speed: float) -> None:
        self.speed = speed

    def _add_keys(self, commands: Sequence[tuple[str, str]]) -> None:
        """Add hotkeys, which the command palette of the page lists."""
        keys: list[tuple[str, str, Callable[[], None]]] = [("space", "play or pause", self._toggle)]
        keys += [
            (str(i), f"speed {speed:g} ×", lambda s=speed: self._set_speed(s)) for i, speed in enumerate(SPEEDS, 1)
        ]
        basic = (("X", "step"), ("R", "restart"), ("N", "next"))
        keys += [(key, name, lambda name=name: self.request(name)) for key, name in (*basic, *commands)]
        for key, label, action in keys:
            self.server.gui.add_command(label, hotkey=key).on_trigger(lambda _, action=action: action())


_MESSAGE_STYLE = (
    "margin:0.4em 0.9em;padding:0.3em 0.6em;border-radius:4px;font-size:0.8em;color:white;background:#b3261e"
)


def _viser() -> Any:
    try:
        import viser
    except ImportError as error:
        raise ImportError(f"the viewer needs viser: {install_command('viz')} ({error})") from error
    return viser


@contextmanager
def _guarded(access: Access) -> Iterator[None]:
    """Let the server that viser starts meanwhile refuse requests by `access`; viser has no setting for it.

    Raises RuntimeError if viser starts no such server.
    """
    from websockets.asyncio import server

    serve, guarded = server.serve, []

    def guarded_serve(*args: Any, process_request: Callable[..., Any], **options: Any) -> Any:
        def process(connection: Any, request: Any) -> Any:
            headers = request.headers
            reason = access.refusal(request.path, headers.get_all("Host"), headers.get_all("Origin"))
            if reason:
                return connection.respond(HTTPStatus.FORBIDDEN, f"refused: {reason}\n")
            request.path = access.without_token(request.path)
            return process_request(connection, request)

        guarded.append(True)
        return serve(*args, process_request=process, **options)

    server.serve = guarded_serve  # pyright: ignore[reportAttributeAccessIssue]
    try:
        yield
    finally:
        server.serve = serve
    if not guarded:
        raise RuntimeError("this version of viser cannot be guarded: install the one in constraints.txt")


def _silence() -> AbstractContextManager:
    """Suppress viser's messages on stdout; the command prints the address itself."""
    return redirect_stdout(StringIO())


def _demand_free(host: str, port: int) -> None:
    """Raise OSError with the reason if the address cannot be served; viser would try other ports, or wait for ever."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise OSError(_cannot_serve(host, port, error.strerror)) from error


def _cannot_serve(host: str, port: int, reason: str | None) -> str:
    return f"cannot serve on {host}:{port} ({reason}); choose another port=, 0 = any"
