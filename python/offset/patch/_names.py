"""Which names of a module of the standard library mean something else in its proxy.

A proxy has copies of all functions and classes of its original, as they look their names up in its own namespace. Most
of them do what they did. Patched are only those that do not: what the proxy has of its own, and what uses that.

Invariant: modules are gone through in the order of `MODULES`, in which what a module takes from others comes before
it: `_Search.known` has what has been found so far.
"""

from __future__ import annotations

import importlib
import types
from typing import TYPE_CHECKING, Any, NamedTuple

from offset.syscall import _rebind

if TYPE_CHECKING:
    from collections.abc import Iterator

GROUPS: dict[str, tuple[str, ...]] = {
    "time": ("time",),
    "select": ("select", "selectors"),
    "os": ("os",),
    "threading": ("threading",),
    "queue": ("queue",),
    "socket": ("socket",),
    "ssl": ("ssl",),
    "subprocess": ("subprocess",),
    "socketserver": ("socketserver",),
    "http": ("http.client", "http.server"),
    "urllib": ("urllib.request",),
    "futures": (
        "concurrent.futures._base",
        "concurrent.futures.thread",
        "concurrent.futures.process",
        "concurrent.futures",
    ),
    "signal": ("signal",),
}
"""The arguments of `patch_all`, and the modules that each means."""

MODULES = tuple(module for modules in GROUPS.values() for module in modules)

# Those that need what not every system has.
_OPTIONAL = frozenset({"concurrent.futures.process"})


class Exchange(NamedTuple):
    """A name that means something else in the proxy."""

    module: types.ModuleType
    proxy: types.ModuleType
    name: str
    original: Any
    """The value that it has in the module."""
    replacement: Any
    """The value that it has in the proxy."""

    @property
    def place(self) -> str:
        """Where the replacement is."""
        return f"{self.proxy.__name__}.{self.name}"


def exchanges() -> dict[str, list[Exchange]]:
    """Give, by module, the names to be patched. Imports all proxies."""
    search = _Search()
    found = {}
    for name in MODULES:
        try:
            module, proxy = importlib.import_module(name), _rebind.proxy(name)
        except ImportError:
            if name in _OPTIONAL:
                continue
            raise
        found[name] = [exchange for exchange in search.of(module, proxy) if _asked_for(exchange)]
    return found


def _asked_for(exchange: Exchange) -> bool:
    """Tell whether others than the module itself use a name: other modules use private functions as well."""
    if not callable(exchange.original):
        # A module, which is patched itself, or something of the module's own.
        return False
    if not exchange.name.startswith("_"):
        return True
    if exchange.name.startswith("__"):
        return False
    return isinstance(exchange.original, types.FunctionType) and isinstance(exchange.replacement, types.FunctionType)


class _Search:
    """What has been found in one walk through the modules."""

    def __init__(self) -> None:
        # By identity: the originals that mean something else in a proxy, kept so that the identity is not another's.
        self.known: dict[int, Any] = {}

    def of(self, module: types.ModuleType, proxy: types.ModuleType) -> list[Exchange]:
        """Give what means something else in the proxy of a module."""
        record = _rebind.COPIED.get(module.__name__)
        values = dict(record.values) if record else _rebind.values(module)
        for name in getattr(module, "__all__", ()):
            if name not in values and hasattr(module, name):
                values[name] = getattr(module, name)
        pairs = {}
        for name, value in values.items():
            replacement = getattr(proxy, name, value)
            if replacement is not value:
                pairs[name] = Exchange(module, proxy, name, value, replacement)
        found = set(record.replaced & pairs.keys()) if record else set()
        found.update(name for name, pair in pairs.items() if not _is_copy(pair))
        self.learn(pairs[name] for name in found)
        while more := [name for name in pairs if name not in found and self.uses(pairs[name].original, found)]:
            found.update(more)
            self.learn(pairs[name] for name in more)
        return [pair for name, pair in pairs.items() if name in found]

    def learn(self, pairs: Iterator[Exchange]) -> None:
        """Take note of what was found. Plain values may be others' by chance."""
        self.known.update((id(pair.original), pair.original) for pair in pairs if callable(pair.original))

    def uses(self, value: Any, found: set[str]) -> bool:
        """Tell whether a function or class is, or uses, something that means something else in the proxy."""
        if id(value) in self.known:
            return True
        if isinstance(value, type):
            parts = [*value.__bases__, *vars(value).values()]
            if any(id(part) in self.known for part in parts):
                return True
        return any(_rebind.imports(code) or not found.isdisjoint(_names(code)) for code in _codes(value))


def _is_copy(pair: Exchange) -> bool:
    """Tell whether a replacement is a mere copy of the original's code."""
    original, replacement = pair.original, pair.replacement
    if isinstance(original, type) and isinstance(replacement, type):
        if original not in replacement.__bases__ or vars(replacement).get("__slots__") != ():
            return False
        return all(_same_code(vars(original).get(name), value) for name, value in vars(replacement).items())
    return isinstance(original, types.FunctionType) and _same_code(original, replacement)


def _same_code(original: Any, replacement: Any) -> bool:
    if not isinstance(replacement, types.FunctionType):
        return True
    return isinstance(original, types.FunctionType) and original.__code__.co_code == replacement.__code__.co_code


def _codes(value: Any) -> Iterator[types.CodeType]:
    """The code of a function, of what it wraps, or of a class's methods."""
    if isinstance(value, types.FunctionType):
        yield value.__code__
        inner = getattr(value, "__wrapped__", None)
        if inner is not None:
            yield from _codes(inner)
    elif isinstance(value, type):
        for member in vars(value).values():
            if not isinstance(member, type):
                yield from _codes(member)
    else:
        for part in _rebind.wrapped(value) or ():
            yield from _codes(part)


def _names(code: types.CodeType) -> Iterator[str]:
    """The names that code looks up, as globals or attributes, those of the functions in it too."""
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from _names(constant)
