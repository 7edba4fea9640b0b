"""The reference as its readers want it, from stubs and docstrings that are for those who change the code, too."""

from __future__ import annotations

import re
from typing import Any

from griffe import Extension, Module

# Where the part of a module's docstring begins that is about its inside.
_INSIDE = re.compile(r"\n\n(?:Invariants?\b|Inside: )")


class ForReaders(Extension):
    """Cuts docstrings of modules where the inside begins, and keeps functions of which a stub has overloads only."""

    def on_module(self, *, mod: Module, **_: Any) -> None:
        """Called by griffe for each module that it has read."""
        if mod.docstring is not None:
            mod.docstring.value = _INSIDE.split(mod.docstring.value)[0]
        for name, overloads in mod.overloads.items():
            if name not in mod.members and overloads:
                # The last one takes everything, and has the docstring.
                function = overloads[-1]
                function.overloads = overloads[:-1]
                mod.set_member(name, function)
