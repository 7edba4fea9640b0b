"""An application by its name, "module:attribute"."""

from __future__ import annotations

import importlib
import os
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable


def load(name: str) -> Callable[..., Any]:
    """Import an application: "module:attribute", or "module:factory()" for what a function gives.

    The attribute is "application", or "app", if none is named. The current directory is searched, too. Raises
    ImportError if there is no such module, ValueError if there is no such application in it.
    """
    module_name, _, attribute = name.partition(":")
    here = os.getcwd()
    if here not in sys.path and "" not in sys.path:
        sys.path.insert(0, here)
    module = importlib.import_module(module_name)
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
            raise ValueError(f"{name}: {each} is no application, but of the type {type(value).__name__}")
        return value
    raise ValueError(f"the module {module_name} has no {' or '.join(attributes)}; name one as {module_name}:NAME")
