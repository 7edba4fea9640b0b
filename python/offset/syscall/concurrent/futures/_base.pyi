"""`concurrent.futures._base`: `Future`, `Executor`, `wait`, `as_completed`."""

from concurrent.futures._base import *
from concurrent.futures._base import Executor as Executor
from concurrent.futures._base import Future as Future
