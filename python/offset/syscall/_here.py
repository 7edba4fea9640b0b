"""Functions of a standard module under the names of its proxy."""

from __future__ import annotations

import functools
import types
from typing import Any


def bind(original: types.ModuleType, names: dict[str, Any]) -> None:
    """Replace each function of `original` that is still in `names` by one that finds what it uses in `names`."""
    own = vars(original)
    for name, value in list(names.items()):
        if own.get(name) is value and isinstance(value, types.FunctionType) and value.__globals__ is own:
            names[name] = function(value, names)


def function(value: types.FunctionType, names: dict[str, Any]) -> types.FunctionType:
    """Copy a function; the copy finds what it uses in `names`."""
    made = types.FunctionType(value.__code__, names, value.__name__, value.__defaults__, value.__closure__)
    made.__kwdefaults__ = value.__kwdefaults__
    functools.update_wrapper(made, value, assigned=("__doc__", "__qualname__", "__annotations__"))
    return made
