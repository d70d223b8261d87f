"""Decide which requests the viewer's server answers: by Host, Origin and, on a network, a token."""

import ipaddress
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from hmac import compare_digest
from urllib.parse import urlsplit

LOCALHOST = "localhost"


def is_loopback(host: str | None) -> bool:
    """Return whether only this machine reaches the address or name `host`."""
    if host == LOCALHOST:
        return True
    try:
        return ipaddress.ip_address(host or "").is_loopback
    except ValueError:
        return False


@dataclass(frozen=True)
class Access:
    """Rules of one server."""

    token: str
    """First part of the path of every request; empty: none is needed, on an address that only this machine reaches."""

    @classmethod
    def of(cls, host: str) -> "Access":
        """Return the rules for a server on `host`: with a new token where other machines reach it."""
        return cls("" if is_loopback(host) else secrets.token_urlsafe(16))

    @property
    def path(self) -> str:
        """Path of the page."""
        return f"/{self.token}/" if self.token else ""

    def refusal(self, path: str, hosts: Sequence[str], origins: Sequence[str]) -> str:
        """Return why a request is refused, or an empty text.

        `hosts`, `origins`: values of the headers Host and Origin. A browser states the page that asks as Origin, which
        must be the viewer's own: a server on another port of this machine is another site. A page whose name was
        pointed at this machine shows in Host.
        """
        if self.token and not compare_digest(self._first_part(path).encode(), self.token.encode()):
            return "this viewer is opened by the address that it has printed, with its token"
        if len(hosts) != 1 or len(origins) > 1:
            return "a request needs one Host and at most one Origin"
        if not self.token and not is_loopback(_name(f"//{hosts[0]}")):
            return f"host {hosts[0]!r} is not this machine"
        if origins and origins[0].lower() not in {f"{scheme}://{hosts[0].lower()}" for scheme in ("http", "https")}:
            return f"a page of {origins[0]!r} must not use this viewer"
        return ""

    def without_token(self, path: str) -> str:
        """Return the path of an accepted request as the page knows it."""
        return path[1 + len(self.token) :] or "/" if self.token else path

    def _first_part(self, path: str) -> str:
        return path.partition("?")[0].removeprefix("/").partition("/")[0]


def _name(url: str) -> str | None:
    """Return the host name in an address, or None."""
    try:
        return urlsplit(url).hostname
    except ValueError:
        return None
