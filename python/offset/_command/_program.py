"""Programs as `python` finds them: a script, a directory or archive with a `__main__`, a module, standard input.

Invariant: what is loaded is the module `__main__` from then on, with the attributes that `python` would give it, and
the first entry of `sys.path` is what it would be.
"""

from __future__ import annotations

import builtins
import importlib.machinery
import importlib.util
import io
import os
import pkgutil
import sys
import threading
import types
from typing import Any


class LoadError(Exception):
    """There is no such program; the text says what is missing."""


# The module that was `__main__` before: its globals are in use as long as the command runs.
_before: list[types.ModuleType] = []


def main_module(**attributes: Any) -> types.ModuleType:
    """Make an empty module `__main__` and put it in the place of the one that there is."""
    _before.append(sys.modules["__main__"])
    module = types.ModuleType("__main__")
    vars(module).update({"__builtins__": builtins, **attributes})
    sys.modules["__main__"] = module
    return module


def be_main_thread() -> None:
    """Have the threads that the caller, the main goroutine, starts be no daemons, as if the main thread did.

    The interpreter waits for them at its end. Those of a goroutine would be daemons, as `threading` has it for what it
    did not start.
    """
    # Its setter refuses a thread that runs; the stubs lack what it sets.
    threading.current_thread()._daemonic = False  # type: ignore[attr-defined]


def load(path: str) -> tuple[types.CodeType, types.ModuleType]:
    """Give the code of a script, and the module for it; "-" is standard input. Raises LoadError or SyntaxError."""
    if path == "-":
        if sys.stdin is None:
            raise LoadError("there is no standard input to read a script from")
        # As bytes, which may say how they are encoded.
        return load_text(getattr(sys.stdin, "buffer", sys.stdin).read(), "<stdin>")
    if not path:
        raise LoadError("the name of the script is empty")
    importer: Any = pkgutil.get_importer(path)
    if importer is not None and (spec := importer.find_spec("__main__")) is not None:
        sys.path.insert(0, path)
        return _of_spec(spec)
    if os.path.isdir(path):
        raise LoadError(f"{path!r} is a directory without a file __main__.py")
    try:
        with io.open_code(os.path.abspath(path)) as file:
            source = file.read()
    except OSError as error:
        raise LoadError(f"can't open {path!r}: {error.strerror}") from None
    code = _compiled(source, path)
    _first_path(os.path.dirname(os.path.realpath(path)))
    loader = importlib.machinery.SourceFileLoader("__main__", path)
    return code, main_module(__file__=path, __loader__=loader, __cached__=None)


def load_text(text: str | bytes, path: str = "<string>") -> tuple[types.CodeType, types.ModuleType]:
    """The same of a program that is given as it is, as with `python -c`."""
    code = _compiled(text, path)
    _first_path("")
    return code, main_module()


def _compiled(source: str | bytes, path: str) -> types.CodeType:
    try:
        return compile(source, path, "exec", dont_inherit=True)
    except ValueError as error:
        # A zero byte, before Python 3.12.
        raise SyntaxError(str(error)) from None


def load_module(name: str) -> tuple[types.CodeType, types.ModuleType]:
    """The same of a module or package by its name, as with `python -m`."""
    hint = f"; name the module, {name[:-3]}, not its file" if name.endswith(".py") else ""
    _first_path(os.getcwd())
    try:
        spec = importlib.util.find_spec(name)
        if spec is not None and spec.submodule_search_locations is not None:
            spec = importlib.util.find_spec(f"{name}.__main__")
            if spec is None:
                raise LoadError(f"{name!r} is a package without a module __main__")
    except (ImportError, AttributeError, TypeError, ValueError) as error:
        raise LoadError(f"no module {name!r}: {error}{hint}") from None
    if spec is None:
        raise LoadError(f"no module named {name!r}{hint}")
    return _of_spec(spec)


def _of_spec(spec: importlib.machinery.ModuleSpec) -> tuple[types.CodeType, types.ModuleType]:
    loader: Any = spec.loader
    code = loader.get_code(spec.name) if hasattr(loader, "get_code") else None
    if code is None:
        raise LoadError(f"{spec.name!r} has no code that could be run")
    module = main_module(
        __file__=spec.origin, __loader__=loader, __spec__=spec, __package__=spec.parent, __cached__=spec.cached
    )
    return code, module


def _first_path(directory: str) -> None:
    # With -P or -I nobody has put the directory of the command there.
    if not sys.flags.safe_path:
        sys.path[0] = directory
