"""Atomic cells, as Go's package `sync/atomic`."""

from offset._runtime import Bool as Bool
from offset._runtime import Int as Int
from offset._runtime import Ref as Ref

__all__ = [
    "AtomicLong",
    "Bool",
    "Int",
    "Ref",
]

AtomicLong = Int
