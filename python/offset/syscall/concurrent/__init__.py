"""`concurrent`, whose `futures` has a proxy."""

import concurrent as _original
import importlib as _importlib


def __getattr__(name):
    if name == "futures":
        return _importlib.import_module("offset.syscall.concurrent.futures")
    return getattr(_original, name)
