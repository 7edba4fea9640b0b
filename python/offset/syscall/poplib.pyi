"""`poplib` for goroutines: what waits parks only the goroutine."""

from poplib import *
