"""Things found by name, imported on demand, and loaded once per process and set of options."""

from __future__ import annotations

import importlib
import inspect
import threading
from collections.abc import Mapping
from typing import Any, Generic, Protocol, TypeVar, runtime_checkable

from vsa_core.errors import BackendError, ConfigError, meant

T = TypeVar("T")


@runtime_checkable
class Unloadable(Protocol):
    """A model large enough to be worth giving back its memory when its stage is over."""

    def unload(self) -> None:
        """Free the network; the next use loads it again, and says the same."""


class Registry(Generic[T]):
    """Names and where their loaders are.

    Args:
        kind: what the names name, for messages.
        loaders: name → "module:loader"; a loader takes the options as keywords.
    """

    def __init__(self, kind: str, loaders: Mapping[str, str]) -> None:
        self.loaders = loaders
        self._kind = kind
        self._loaded: dict[tuple[str, str], T] = {}
        self._loading = threading.Lock()

    def load(self, name: str, options: Mapping[str, Any] | None = None) -> T:
        """The one of that name; the same object whenever name and options are the same.

        Raises:
            ConfigError: no such name, or an option its loader does not take.
            BackendError: a package or its weights are missing or altered.
        """
        options = dict(options or {})
        key = (name, repr(sorted(options.items())))
        with self._loading:
            if key not in self._loaded:
                self._loaded[key] = self._load(name, options)
            return self._loaded[key]

    def unload(self) -> None:
        """Free the networks of all that is loaded; they stay known, and load again when used."""
        with self._loading:
            loaded = list(self._loaded.values())
        for one in loaded:
            if isinstance(one, Unloadable):
                one.unload()

    def _load(self, name: str, options: dict[str, Any]) -> T:
        if name not in self.loaders:
            known = ", ".join(sorted(self.loaders))
            hint = meant(name, self.loaders)
            raise ConfigError(f"no {self._kind} is named {name!r}; there are: {known}{hint}")
        module_name, _, attribute = self.loaders[name].partition(":")
        try:
            loader = getattr(importlib.import_module(module_name), attribute)
        except ImportError as error:
            raise BackendError(
                f"{self._kind} {name!r} needs the package {error.name!r}: pip install {error.name}"
            ) from error
        try:
            inspect.signature(loader).bind(**options)
        except TypeError as error:
            raise ConfigError(
                f"{self._kind} {name!r} does not take these options: {error}"
            ) from error
        loaded: T = loader(**options)
        return loaded
