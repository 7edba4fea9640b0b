"""`urllib`, whose `request` has a proxy."""

import importlib as _importlib
import urllib as _original


def __getattr__(name):
    if name == "request":
        return _importlib.import_module("offset.syscall.urllib.request")
    return getattr(_original, name)
