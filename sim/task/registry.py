"""Registries of user extensions: reward terms and tasks."""

from collections.abc import Iterable
from typing import Generic, TypeVar

T = TypeVar("T")


class Registry(Generic[T]):
    """Maps names to registered objects of one kind; errors name the kind, the known names and what to do."""

    def __init__(self, kind: str, reserved: Iterable[str] = ()) -> None:
        """`kind`: what error messages call an entry. `reserved`: names that cannot be registered."""
        self._kind, self._reserved = kind, frozenset(reserved)
        self._entries: dict[str, T] = {}

    @property
    def names(self) -> list[str]:
        """Return the registered names, sorted."""
        return sorted(self._entries)

    def register(self, name: str, entry: T) -> None:
        """Add `entry` under `name`. Raise ValueError where the name is taken or is not a Python identifier.

        The definition that is registered already may be registered anew, as when its module is reloaded.
        """
        if not isinstance(name, str) or not name.isidentifier():
            raise ValueError(f"the name of a {self._kind} must be a Python identifier, got {name!r}")
        if name in self._reserved:
            raise ValueError(f"{self._kind} '{name}' is built in: register another name")
        if name in self._entries and _origin(self._entries[name]) != _origin(entry):
            raise ValueError(
                f"{self._kind} '{name}' is registered already, by {_origin(self._entries[name])}: take another name"
            )
        self._entries[name] = entry

    def get(self, name: str) -> T:
        """Return the entry registered under `name`.

        Raise ValueError, with how to register it, where there is none.
        """
        if name not in self._entries:
            known = f" (registered: {', '.join(self.names)})" if self._entries else ""
            raise ValueError(
                f"{self._kind} '{name}' is not registered; import the module that registers it: "
                f"plugins=my_module{known}"
            )
        return self._entries[name]


def _origin(entry: object) -> str:
    """Return module and name of a function or class; two reloads of one definition have one origin."""
    return f"{getattr(entry, '__module__', '')}.{getattr(entry, '__qualname__', repr(entry))}"
