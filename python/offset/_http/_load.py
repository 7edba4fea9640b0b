"""An application by its name, "module:attribute"."""

from __future__ import annotations

import importlib
import os
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable


class LoadError(ImportError, ValueError):
    """There is no such application; the text says what is missing. What the program itself raises is something else."""


def load(name: str) -> Callable[..., Any]:
    """Import an application: "module:attribute", or "module:factory()" for what a function gives.

    The attribute is "application", or "app", if none is named. The current directory is searched, too. Raises
    LoadError, and whatever the program raises.
    """
    module_name, _, attribute = name.partition(":")
    here = os.getcwd()
    if here not in sys.path and "" not in sys.path:
        sys.path.insert(0, here)
    if not module_name or module_name.startswith(".") or "/" in module_name:
        raise LoadError(f"{name!r} names no module: write MODULE:APP, with the module as `import` has it")
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if not f"{module_name}.".startswith(f"{error.name}."):
            # It is there, and needs what is not.
            raise
        hint = f", neither in {here} nor installed"
        if module_name.endswith(".py"):
            hint = f"; name the module, {module_name[:-3]}, not its file"
        raise LoadError(f"there is no module {module_name!r}{hint}") from None
    attributes = [attribute] if attribute else ["application", "app"]
    for each in attributes:
        value: object = module
        path, call = each.removesuffix("()"), each.endswith("()")
        try:
            for part in path.split("."):
                value = getattr(value, part)
        except AttributeError:
            continue
        if call and callable(value):
            value = value()
        if not callable(value):
            raise LoadError(f"{name}: {each} is no application, but of the type {type(value).__name__}")
        return value
    raise LoadError(f"the module {module_name} has no {' or '.join(attributes)}; name one as {module_name}:NAME")
