"""Tests of concurrent programs, as Go's `testing/synctest` and more.

* `bubble(fn)` runs `fn` and what it starts on a clock of their own, which jumps to the next timer when all of them are
  blocked: an hour of waiting takes no time, and a deadlock fails the test at once;
* with a seed the schedule follows from it, and `explore(fn)` tries many seeds, and names the one that fails;
* `listen()` is a network in memory; `leak_check()` finds goroutines that are left.

`offset.testing` is also a plugin of pytest, which finds it by itself (see `plugin`).
"""

from offset.testing._bubble import bubble, explore, wait
from offset.testing._leaks import LeakError, leak_check
from offset.testing._network import Listener, listen

__all__ = ["LeakError", "Listener", "bubble", "explore", "leak_check", "listen", "wait"]
