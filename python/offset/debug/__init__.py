"""A look into a program while it runs, in a browser, by Prometheus, or by a program: `serve` and `publish`.

    offset.debug.serve("127.0.0.1:6060")

* `/`: the page: goroutines by state and stack, channels with their waiters, machines, timers, the poller, over time;
* `/metrics`: the counters in the format of Prometheus;
* `/debug/vars`: values as JSON, as Go's `expvar`; `publish` adds one;
* `/debug/goroutines`, `/debug/leaks`: the stacks, and the goroutines that wait for ever, as text.

`offset top PID` shows the same in a terminal, of a process that serves nothing.
"""

from offset.debug._server import Server, serve
from offset.debug._vars import publish

__all__ = ["Server", "publish", "serve"]
