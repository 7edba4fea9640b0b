"""Servers of HTTP/1.1: what `offset.wsgi` and `offset.asgi` share.

`_serve` reads what it is told and listens, `_server` accepts, `_service` is what a kind of application fills in, over
the parser in Rust (`offset._runtime.Http`); `_workers` has the processes of `workers` and `reload`.
"""
