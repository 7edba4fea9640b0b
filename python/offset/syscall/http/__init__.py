"""`http`, whose `client` and `server` have proxies."""

import http as _original
import importlib as _importlib


def __getattr__(name):
    if name in ("client", "server"):
        return _importlib.import_module(f"offset.syscall.http.{name}")
    return getattr(_original, name)
