"""What was replaced where: the list that `report` gives."""

from __future__ import annotations

from typing import NamedTuple


class Replacement(NamedTuple):
    """What stands for something else somewhere."""

    module: str
    """The module in which it does; of a copy, the name of its original."""
    name: str
    """What its code asks for: a module of the standard library, or a name in `module` itself."""
    proxy: str
    """What it gets: a proxy, or a name of one."""


# In the order of happening: the fields of `Replacement`.
_replacements: dict[tuple[str, str, str], None] = {}


def note(module: str, name: str, proxy: str) -> None:
    """Take note of a replacement."""
    _replacements.setdefault((module, name, proxy))


def forget(module: str, name: str, proxy: str) -> None:
    """Take back a note: it is not replaced any more."""
    _replacements.pop((module, name, proxy), None)


def report() -> list[Replacement]:
    """Tell what is replaced where, in the order of happening: by `patched`, and by `patch_all` until it is undone."""
    return [Replacement(*fields) for fields in list(_replacements)]
