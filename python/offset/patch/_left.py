"""`leftovers`: what still holds originals in a program that is patched.

Names of modules are exchanged; what took a value and keeps it elsewhere may be somebody's on purpose: under another
name, as the base of a class, an attribute of a class, a default of an argument.
"""

from __future__ import annotations

import sys
import types
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator

    from offset.patch._names import Exchange


class Leftover(NamedTuple):
    """Something that goes on using an original."""

    place: str
    """The module, or a function or class with its module."""
    how: str
    """What it is there: "name NAME", "base", "attribute NAME", "default" or "default of NAME"."""
    original: str
    """The original, with its module."""


# The originals that are exchanged at the moment, by identity.
exchanged: dict[int, Exchange] = {}


def leftovers() -> list[Leftover]:
    """Tell what in the loaded modules, those of the standard library excepted, still uses originals of what is patched.

    Patch before these modules are imported, or change them. Without `patch_all` there are none.
    """
    if not exchanged:
        return []
    found: dict[Leftover, None] = {}
    for name, module in own_modules():
        for key, value in list(vars(module).items()):
            if id(value) in exchanged:
                found[Leftover(name, f"name {key}", _name(value))] = None
            if getattr(value, "__module__", None) == name:
                found.update(dict.fromkeys(_inside(value)))
    return list(found)


def own_modules() -> Iterator[tuple[str, types.ModuleType]]:
    """Give the program's own modules that are loaded: not offset, nor the standard library, nor what is no Python."""
    seen = set()
    for name, module in list(sys.modules.items()):
        top = name.partition(".")[0]
        if top == "offset" or (top in sys.stdlib_module_names and top != "__main__"):
            continue
        if not isinstance(module, types.ModuleType) or id(module) in seen:
            continue
        seen.add(id(module))
        if type(getattr(module, "__loader__", None)).__name__ != "ExtensionFileLoader":
            yield name, module


def _inside(value: Any) -> Iterator[Leftover]:
    if isinstance(value, types.FunctionType):
        yield from _defaults(value)
    elif isinstance(value, type):
        place = f"{value.__module__}.{value.__qualname__}"
        for base in value.__bases__:
            if id(base) in exchanged:
                yield Leftover(place, "base", _name(base))
        for name, member in list(vars(value).items()):
            plain = member.__func__ if isinstance(member, staticmethod | classmethod) else member
            if id(plain) in exchanged:
                yield Leftover(place, f"attribute {name}", _name(plain))
            elif isinstance(plain, types.FunctionType):
                yield from _defaults(plain)


def _defaults(function: types.FunctionType) -> Iterator[Leftover]:
    place = f"{function.__module__}.{function.__qualname__}"
    for default in function.__defaults__ or ():
        if id(default) in exchanged:
            yield Leftover(place, "default", _name(default))
    for name, default in (function.__kwdefaults__ or {}).items():
        if id(default) in exchanged:
            yield Leftover(place, f"default of {name}", _name(default))


def _name(original: Any) -> str:
    exchange = exchanged[id(original)]
    return f"{exchange.module.__name__}.{exchange.name}"
