"""The standard module `select` for goroutines: waits park only the goroutine."""

from select import *
from select import epoll as epoll
from select import poll as poll
from select import select as select
