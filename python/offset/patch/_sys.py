"""What copies of libraries get for `sys`, and for the standard modules that look a class's module up there by its name.

The copies of a world are not in `sys.modules`. So in a copy `sys.modules` shows the copies first, then what everybody
sees, and what is put there is seen by the world's copies only; everything else of `sys` is the interpreter's.
`dataclasses`, and `typing.get_type_hints`, resolve annotations that are strings in the module that a class names:
copies get those functions on globals in which `sys` is their world's. Their classes and sentinels are everybody's.
"""

from __future__ import annotations

import collections
import functools
import importlib
import sys
import types
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import MutableMapping

# Which functions of a module are made anew; all that it has if none is named.
_LOOK_MODULES_UP: dict[str, tuple[str, ...]] = {"dataclasses": (), "typing": ("get_type_hints",)}


class WorldSys(types.ModuleType):
    """The `sys` of a world."""

    modules: MutableMapping[str, types.ModuleType]

    def __init__(self, *tables: dict[str, types.ModuleType]) -> None:
        super().__init__("sys", sys.__doc__)
        vars(self)["modules"] = collections.ChainMap(*tables, sys.modules)

    def __getattr__(self, name: str) -> Any:
        return getattr(sys, name)

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(sys, name, value)

    def __delattr__(self, name: str) -> None:
        delattr(sys, name)

    def __dir__(self) -> list[str]:
        return dir(sys)


class SysModules:
    """The modules of a world that know its copies by their names."""

    def __init__(self, copies: dict[str, types.ModuleType]) -> None:
        self._made: dict[str, types.ModuleType] = {}
        self._sys = self._made["sys"] = WorldSys(copies, self._made)

    def get(self, name: str) -> types.ModuleType | None:
        """Give the world's own version of a module; None if it has none."""
        if name in _LOOK_MODULES_UP and name not in self._made:
            self._made[name] = self._on_sys(importlib.import_module(name), _LOOK_MODULES_UP[name])
        return self._made.get(name)

    def _on_sys(self, module: types.ModuleType, names: tuple[str, ...]) -> types.ModuleType:
        """Give a module that is the same, but for functions that find the world's `sys` in their globals."""
        made = types.ModuleType(module.__name__, module.__doc__)
        vars(made).update(vars(module))
        space = {**vars(module), "sys": self._sys}
        for name in names or tuple(vars(module)):
            function = vars(module)[name]
            if isinstance(function, types.FunctionType) and function.__globals__ is vars(module):
                clone = types.FunctionType(function.__code__, space, name, function.__defaults__, function.__closure__)
                clone.__kwdefaults__ = function.__kwdefaults__
                space[name] = functools.update_wrapper(clone, function)
                setattr(made, name, clone)
        return made
