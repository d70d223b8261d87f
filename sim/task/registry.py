"""Registries of user extensions: reward terms and tasks."""

from collections.abc import Iterable
from typing import Generic, TypeVar

from dexgrasp.utils.text import comma_separated, did_you_mean

T = TypeVar("T")


class Registry(Generic[T]):
    """Maps names to registered objects of one kind; errors name the kind, the known names and what to do."""

    def __init__(self, kind: str, function: str, reserved: Iterable[str] = ()) -> None:
        """`kind` and `function`: an entry, and the function that registers one, in messages.

        `reserved`: names that cannot be registered.
        """
        self._kind, self._function, self._reserved = kind, function, frozenset(reserved)
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
            hint = did_you_mean(name, self._entries) or f" Registered: {comma_separated(self.names)}."
            raise ValueError(
                f"{self._kind} '{name}' is not registered.{hint} Register it with dexgrasp.{self._function}; on the "
                f"command line, name the module that does so: plugins=my_module"
            )
        return self._entries[name]


def _origin(entry: object) -> str:
    """Return module and name of a function or class; two reloads of one definition have one origin.

    Functions defined in functions, and lambdas, share their names with others: their origin is the object itself.
    """
    name = getattr(entry, "__qualname__", repr(entry))
    return f"{getattr(entry, '__module__', '')}.{name}" + (f" at {id(entry):#x}" if "<" in name else "")
