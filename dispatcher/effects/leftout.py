"""Names of libraries → `import` finds an empty stand-in for each: for what NeMo-Run imports and then never uses where we use it.

While imports run, a stand-in has every attribute, each a class that can be inherited from and called. Once `seal()` has been called,
using one raises `ImportError`, so that what turns out to be needed after all is an error and never a wrong result.
"""

from __future__ import annotations

import importlib.abc
import importlib.machinery
import sys
import types
from collections.abc import Iterable


class LeftOut(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Stands in for modules, each with everything below it."""

    def __init__(self, names: Iterable[str]) -> None:
        self.names = frozenset(names)
        self.sealed = False

    def install(self) -> LeftOut:
        """From now on imports find the stand-ins; modules that are loaded already stay what they are."""
        sys.meta_path.insert(0, self)
        return self

    def seal(self) -> None:
        """Imports are done: from now on nothing may be asked of a stand-in."""
        self.sealed = True

    def allow(self, what: str) -> None:
        """Says no once sealed.

        Raises:
            ImportError: names what is needed.
        """
        if self.sealed:
            raise ImportError(f"{what} is needed after all, but it is left out here to start faster")

    def find_spec(self, fullname: str, path: object, target: object = None) -> importlib.machinery.ModuleSpec | None:
        """Ours, when the module or a package around it is left out."""
        parts = fullname.split(".")
        if any(".".join(parts[:count]) in self.names for count in range(1, len(parts) + 1)):
            return importlib.machinery.ModuleSpec(fullname, self, is_package=True)
        return None

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> types.ModuleType:
        """An empty module that has whatever it is asked for."""
        module = types.ModuleType(spec.name)
        module.__getattr__ = lambda name: _stand_in(self, spec.name, name)  # type: ignore[method-assign]
        return module

    def exec_module(self, module: types.ModuleType) -> None:
        """There is nothing to run."""


class _Answers(type):
    """The class of stand-in classes: their attributes are stand-ins too."""

    _owner: LeftOut

    def __getattr__(cls, name: str) -> object:
        return _stand_in(cls._owner, f"{cls.__module__}.{cls.__name__}", name)


def _stand_in(owner: LeftOut, place: str, name: str) -> object:
    if name.startswith("__"):  # what Python itself asks for: it is not there
        raise AttributeError(name)
    owner.allow(f"{place}.{name}")

    def made(self: object, *arguments: object, **named: object) -> None:
        owner.allow(f"{place}.{name}")

    return _Answers(name, (), {"__module__": place, "__init__": made, "_owner": owner})
