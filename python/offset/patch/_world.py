"""Worlds: copies of pure-Python libraries in which the standard library's modules that wait are offset's proxies.

Which modules are copied: those that are named, and what they import from outside the standard library, as far as it is
written in Python. Shared with all are extension modules, packages that have some of their own (they know the classes of
the package itself, not those of a copy) unless they are named, and the standard library's modules that are not named.

Invariants: a world is a table of copies that know only each other, one for each call; a copy is in the table before its
code runs, so modules may import each other.
"""

from __future__ import annotations

import builtins
import importlib
import importlib.machinery
import importlib.util
import os
import sys
import types
from typing import TYPE_CHECKING, Any

from offset._runtime import RLock
from offset.patch import _report
from offset.patch._sys import SysModules
from offset.syscall import _rebind

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

# What a copy gets in place of a module of this name.
_STAND_INS = {**_rebind.PROXIES, **_rebind.LIBRARIES}


def patched_import(name: str) -> types.ModuleType:
    """Import a copy of a library that is bound to the proxies of `offset.syscall`.

    Each call makes a copy of its own, with all that the library imports from outside the standard library: classes of
    two copies are different ones. A module of the standard library may be named, too (`xmlrpc.client`). Raises
    ImportError if there is no such module, and TypeError if it is not written in Python.
    """
    return patched(name)[0]


def patched(*names: str) -> tuple[types.ModuleType, ...]:
    """Import copies of several libraries that share what they import, as `patched_import` does of one."""
    if not names:
        raise TypeError("patched() needs the name of a module at least")
    for name in names:
        if not isinstance(name, str):
            raise TypeError(f"patched() takes names of modules, not {type(name).__name__}")
        if name in _STAND_INS:
            raise ValueError(f"{name} has a proxy: import {_STAND_INS[name]}")
    world = _World(names)
    return tuple(world.load_named(name) for name in names)


class _World:
    """One table of copies."""

    def __init__(self, named: Sequence[str]) -> None:
        self.named = frozenset(named)
        # Packages that are not named, by whether they have extension modules.
        self.compiled: dict[str, bool] = {}
        self.copies: dict[str, types.ModuleType] = {}
        self.own = SysModules(self.copies)
        # Held while code of a copy runs on behalf of an import: another goroutine must not see a module half made.
        self.lock = RLock()
        self.builtins = {**vars(builtins), "__import__": self.import_}

    def load_named(self, name: str) -> types.ModuleType:
        """Give the copy of a module that the user has named."""
        module = self.load(name)
        if self.copies.get(name) is not module:
            raise TypeError(f"{name} is not written in Python, or is built into the interpreter: it cannot be copied")
        return module

    def load(self, name: str) -> types.ModuleType:
        """Give what a name stands for in this world: a proxy, a copy, or the module itself."""
        if name in _STAND_INS:
            return importlib.import_module(_STAND_INS[name])
        with self.lock:
            known = self.copies.get(name) or self.own.get(name)
            if known is not None:
                return known
            parent, _, last = name.rpartition(".")
            if parent:
                # The parent's code comes first, and may load this one.
                self.load(parent)
                if name in self.copies:
                    return self.copies[name]
            spec = self.find(name)
            if spec is None:
                return importlib.import_module(name)
            module = self.copy(name, spec)
            if parent in self.copies:
                setattr(self.copies[parent], last, module)
            return module

    def find(self, name: str) -> importlib.machinery.ModuleSpec | None:
        """Give the spec of a module that is to be copied; None for one that is shared with everybody."""
        if not self.to_copy(name):
            return None
        parent = name.rpartition(".")[0]
        if parent in self.copies:
            spec = self.find_in(self.copies[parent], name)
        elif not parent or name in self.named:
            spec = importlib.util.find_spec(name)
        else:
            return None
        if spec is None or not isinstance(spec.loader, importlib.machinery.SourceFileLoader):
            return None
        return spec

    def to_copy(self, name: str) -> bool:
        """Tell whether a module is one that is copied if it is written in Python."""
        top = name.partition(".")[0]
        if top in sys.stdlib_module_names:
            return any(f"{name}.".startswith(f"{each}.") or each.startswith(f"{name}.") for each in self.named)
        if any(each.partition(".")[0] == top for each in self.named):
            return True
        if top not in self.compiled:
            self.compiled[top] = _has_extensions(top)
        return not self.compiled[top]

    @staticmethod
    def find_in(package: types.ModuleType, name: str) -> importlib.machinery.ModuleSpec | None:
        """Find a module of a package without importing the package itself."""
        path = getattr(package, "__path__", None)
        if path is None:
            return None
        return importlib.machinery.PathFinder.find_spec(name, path)

    def copy(self, name: str, spec: importlib.machinery.ModuleSpec) -> types.ModuleType:
        """Load a module once more."""
        module = importlib.util.module_from_spec(spec)
        vars(module)["__builtins__"] = self.builtins
        loader = spec.loader
        assert isinstance(loader, importlib.machinery.SourceFileLoader)
        code = loader.get_code(name)
        if code is None:
            raise ImportError(f"there is no code of {name}", name=name)
        self.copies[name] = module
        try:
            exec(code, vars(module))
        except BaseException:
            del self.copies[name]
            raise
        # The code may have put something else in its place, as it could in `sys.modules`.
        return self.copies[name]

    def import_(
        self,
        name: str,
        globals: Mapping[str, Any] | None = None,
        locals: Mapping[str, Any] | None = None,
        fromlist: Sequence[str] | None = (),
        level: int = 0,
    ) -> types.ModuleType:
        """What an `import` statement in a copy does."""
        importer = str((globals or {}).get("__name__", "?"))
        if level:
            package = str((globals or {}).get("__package__") or importer)
            name = importlib.util.resolve_name("." * level + name, package)
        module = self.load(name)
        self.note(importer, name)
        if not fromlist:
            # `import a.b` binds a.
            return module if level else self.load(name.partition(".")[0])
        if hasattr(module, "__path__"):
            for item in fromlist:
                if item == "*":
                    self.load_all(module, name)
                elif not hasattr(module, item) or f"{name}.{item}" in _STAND_INS:
                    self.load_item(name, item)
        return module

    def load_all(self, module: types.ModuleType, name: str) -> None:
        """Load the modules that a package's `__all__` names."""
        for item in getattr(module, "__all__", ()):
            if not hasattr(module, item):
                self.load_item(name, item)

    def load_item(self, package: str, item: str) -> None:
        """Load a module of a package, if there is such a one; the statement says what is missing otherwise."""
        full = f"{package}.{item}"
        try:
            self.load(full)
        except ModuleNotFoundError as error:
            if error.name != full:
                raise

    @staticmethod
    def note(importer: str, name: str) -> None:
        """Take note of a proxy that was given."""
        if name in _STAND_INS:
            _report.note(importer, name, _STAND_INS[name])


def _has_extensions(package: str) -> bool:
    """Tell whether there are extension modules in a package, at any depth."""
    spec = importlib.util.find_spec(package)
    suffixes = tuple(importlib.machinery.EXTENSION_SUFFIXES)
    return any(
        file.endswith(suffixes)
        for place in (spec.submodule_search_locations or () if spec is not None else ())
        for _, _, files in os.walk(place)
        for file in files
    )
