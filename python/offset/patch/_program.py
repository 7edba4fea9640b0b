"""`patch_all`: a whole program on the proxies.

Modules are patched from outside. Each keeps its namespace as it is, and with it all its own code, which the proxies
build on, goes on meaning the originals. What changes is what others get from the module: its class becomes a
subclass in which each patched name is a descriptor that gives the proxy's value, to `socket.socket` as to `from socket
import socket`. To undo it, the class is put back.

Invariants:

* offset's own code must not see what it has patched. Wherever it has a patched module in its globals it gets a `View`
  of it instead: an object on the very same namespace. So it must not import such a module inside a function
  (tests/test_patch_all.py sees to it), and all of it is imported before anything is patched.
* What a program took from a module by name (`from time import sleep`) is exchanged where it is found, but under its own
  name only: `real_sleep = time.sleep` stays.
* Whoever sets a patched name means everybody: the value goes into the module's namespace and the proxy's as well, until
  the one that was there is set again.
* `_patched`, and whatever is exchanged, changes under `_lock`. Undoing goes backwards, and leaves alone what somebody
  has set since.
"""

from __future__ import annotations

import contextlib
import importlib
import pkgutil
import sys
import types
from typing import TYPE_CHECKING, Any, Self

import offset
from offset import _exit
from offset._runtime import RLock
from offset.patch import _left, _names, _report
from offset.patch._obstacles import obstacles
from offset.syscall import _rebind

if TYPE_CHECKING:
    from collections.abc import Callable

    from offset.patch._names import Exchange

_lock = RLock()

# The modules that are patched, by name.
_patched: dict[str, _Module] = {}


def patch_all(
    *,
    socket: bool = True,
    ssl: bool = True,
    select: bool = True,
    time: bool = True,
    os: bool = True,
    subprocess: bool = True,
    queue: bool = True,
    threading: bool = True,
    futures: bool = True,
    socketserver: bool = True,
    http: bool = True,
    urllib: bool = True,
    signal: bool = True,
) -> Patch:
    """Put the proxies of `offset.syscall` in the place of the standard library's modules, for the whole program.

    Call it at the beginning, before other modules are imported. Each argument stands for one module; `select` means
    `selectors`, too, `http` means `http.client` and `http.server`, `futures` means `concurrent.futures`. What is
    patched already stays so. What this call has patched is undone by the `undo` of what it gives, which as a context
    manager does so at its end.

    What goroutines call then parks them; outside goroutines everything does what it did. Names that loaded modules have
    taken from patched ones are exchanged, too, except in the standard library's own; `leftovers()` tells what is not.

    Raises RuntimeError, and has done nothing, if something is in the way: an event loop that runs, a lock of some
    module that is held, another library that patches.
    """
    wanted = {name for name, value in locals().items() if value}
    with _lock:
        modules = [name for group, names in _names.GROUPS.items() if group in wanted for name in names]
        _import_offset()
        every = _names.exchanges()
        new = {name: every[name] for name in modules if name in every and name not in _patched}
        in_the_way = obstacles({name: _rebind.COPIED[name].module for name in new if name in _rebind.COPIED})
        if new and in_the_way:
            raise RuntimeError("patch_all() cannot be called now: " + "; ".join(in_the_way))
        patch = Patch()
        with contextlib.ExitStack() as undo:
            for name, exchanges in new.items():
                _put(_Module(name, exchanges), patch, undo)
            if "threading" in new:
                _exit.ahead.append(_end_multiprocessing)
                undo.callback(_exit.ahead.remove, _end_multiprocessing)
            patch._undo = undo.pop_all()
        return patch


class Patch:
    """What one call of `patch_all` has patched. A context manager that undoes it."""

    def __init__(self) -> None:
        self._undo = contextlib.ExitStack()
        self._names: list[_report.Replacement] = []

    @property
    def replaced(self) -> list[_report.Replacement]:
        """What it has replaced, and where; nothing once it is undone."""
        return list(self._names)

    def undo(self) -> None:
        """Put the originals back, wherever they were replaced. A second call does nothing.

        What was made of proxies goes on working, and so does what has taken them elsewhere in the meantime.
        """
        with _lock:
            self._undo.close()
            self._names.clear()

    def stats(self) -> dict[str, Any]:
        """Give the number of names that are replaced, and of the modules in which they are."""
        return {"names": len(self._names), "modules": len({each.module for each in self._names})}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *failure: object) -> None:
        self.undo()


def _missing(module: object, name: str) -> Any:
    """Give what a module makes when it is asked for."""
    namespace = vars(module)
    lazily: Callable[[str], Any] | None = namespace.get("__getattr__")
    if lazily is None:
        text = f"module {namespace.get('__name__')!r} has no attribute {name!r}"
        raise AttributeError(text, name=name, obj=module)
    return lazily(name)


class View:
    """A module as its own code sees it, which does not go through the module's class."""

    def __init__(self, module: types.ModuleType) -> None:
        self.__dict__ = vars(module)

    __getattr__ = _missing


class _Name:
    """A patched name of a module: a descriptor, so that it comes before the module's namespace."""

    __slots__ = ("exchange", "value")

    def __init__(self, exchange: Exchange) -> None:
        self.exchange = exchange
        here = self.namespaces()[0].get(exchange.name, exchange.original)
        # What others have put there before stays.
        self.value = exchange.replacement if here is exchange.original else here
        if self.value is here:
            self.namespaces()[1][exchange.name] = here

    def namespaces(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """The module's, and the proxy's."""
        return vars(self.exchange.module), vars(self.exchange.proxy)

    def __get__(self, module: types.ModuleType | None, kind: type) -> Any:
        if module is None:
            return self
        if self.value is _GONE:
            raise AttributeError(f"module {self.exchange.module.__name__!r} has no attribute {self.exchange.name!r}")
        return self.value

    def __set__(self, module: types.ModuleType, value: Any) -> None:
        exchange = self.exchange
        if value is exchange.original or value is exchange.replacement:
            self.restore()
            return
        self.value = value
        for namespace in self.namespaces():
            namespace[exchange.name] = value

    def __delete__(self, module: types.ModuleType) -> None:
        self.__get__(module, type(module))
        self.value = _GONE
        for namespace in self.namespaces():
            namespace.pop(self.exchange.name, None)

    def restore(self) -> None:
        """Give the proxy's value, with each namespace as it was when the proxy was made."""
        exchange = self.exchange
        self.value = exchange.replacement
        for namespace, value in zip(self.namespaces(), (exchange.original, exchange.replacement), strict=True):
            namespace[exchange.name] = value


_GONE = object()


_FOR_USERS_OF = {
    "offset.gunicorn": "gunicorn",
    "offset.testing.plugin": "pytest",
    **{ours: name for name, ours in _rebind.LIBRARIES.items()},
}


class _Module:
    """A module to be patched."""

    def __init__(self, name: str, exchanges: list[Exchange]) -> None:
        self.name = name
        self.module = importlib.import_module(name)
        self.exchanges = exchanges


def _import_offset() -> None:
    """Import all of offset, before it could get a patched module."""
    for found in pkgutil.walk_packages(offset.__path__, "offset.", onerror=lambda name: None):
        # What is for users of a library imports it, which is not for us to do.
        library = _FOR_USERS_OF.get(found.name)
        if not found.name.endswith(".__main__") and (library is None or library in sys.modules):
            importlib.import_module(found.name)


def _end_multiprocessing() -> None:
    """Have `multiprocessing` send what is in its queues, which threads do that are goroutines now."""
    util = sys.modules.get("multiprocessing.util")
    if util is not None:
        # What it does at exit itself, and once only.
        util._exit_function()


def _put(target: _Module, patch: Patch, undo: contextlib.ExitStack) -> None:
    """Patch one module, with what there is to do to undo it."""
    module, exchanges = target.module, target.exchanges
    _show_originals(module, undo)
    before = type(module)
    names = {exchange.name: _Name(exchange) for exchange in exchanges}
    body = {
        "__module__": __name__,
        "__doc__": before.__doc__,
        # Not a module's own, for which CPython takes a shortcut to the namespace, past the descriptors, from 3.14 on
        # (tests/test_patch_all.py, "executed often").
        "__getattribute__": object.__getattribute__,
        "__getattr__": _missing,
        **names,
    }
    # Deriving from what it is: somebody else may have done the same.
    module.__class__ = type("PatchedModule", (before,), body)
    undo.callback(_take_back, module, before, names)
    _patched[target.name] = target
    undo.callback(_patched.pop, target.name)
    for exchange in exchanges:
        if names[exchange.name].value is exchange.replacement:
            _note(patch, undo, target.name, exchange.name, exchange.place)
            if callable(exchange.original):
                # Several modules may have it: it is called by the one that made it.
                if getattr(exchange.original, "__module__", None) == target.name:
                    _left.exchanged[id(exchange.original)] = exchange
                else:
                    _left.exchanged.setdefault(id(exchange.original), exchange)
                undo.callback(_left.exchanged.pop, id(exchange.original), None)
    by_identity = {
        id(exchange.original): exchange
        for exchange in exchanges
        if callable(exchange.original) and names[exchange.name].value is exchange.replacement
    }
    for name, owner in _left.own_modules():
        for key, value in list(vars(owner).items()):
            found = by_identity.get(id(value))
            # Who gave it another name may have kept the original on purpose.
            if found is not None and key == found.name:
                _exchange(vars(owner), key, value, found.replacement, undo)
                _note(patch, undo, name, key, found.place)


def _show_originals(module: types.ModuleType, undo: contextlib.ExitStack) -> None:
    """Give offset's own code a view of a module in place of it."""
    view = View(module)
    for name, other in list(sys.modules.items()):
        if name.partition(".")[0] == "offset":
            for key, value in list(vars(other).items()):
                if value is module:
                    _exchange(vars(other), key, module, view, undo)


def _exchange(namespace: dict[str, Any], key: str, value: Any, other: Any, undo: contextlib.ExitStack) -> None:
    def back() -> None:
        if namespace.get(key) is other:
            namespace[key] = value

    namespace[key] = other
    undo.callback(back)


def _take_back(module: types.ModuleType, before: type, names: dict[str, _Name]) -> None:
    module.__class__ = before
    for name in names.values():
        # The proxy goes back to its own, the module keeps what was put there for everybody.
        vars(name.exchange.proxy)[name.exchange.name] = name.exchange.replacement


def _note(patch: Patch, undo: contextlib.ExitStack, *fields: str) -> None:
    _report.note(*fields)
    patch._names.append(_report.Replacement(*fields))
    undo.callback(_report.forget, *fields)
