"""The standard module `selectors` for goroutines: `select` parks only the goroutine."""

from selectors import *
