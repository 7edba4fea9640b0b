"""`http.server` for goroutines: what waits parks only the goroutine."""

from http.server import *
