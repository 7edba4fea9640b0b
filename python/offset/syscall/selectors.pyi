"""`selectors` for goroutines: what waits parks only the goroutine."""

from selectors import *
