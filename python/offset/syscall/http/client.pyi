"""`http.client` for goroutines: what waits parks only the goroutine."""

from http.client import *
