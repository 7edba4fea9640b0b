"""Atomic cells, as Go's package `sync/atomic`: `Int` (64 bits), `Bool`, and `Ref` for any object.

`AtomicLong` is an older name of `Int`.
"""

from offset._runtime import Bool, Int, Ref

__all__ = ["AtomicLong", "Bool", "Int", "Ref"]

AtomicLong = Int
