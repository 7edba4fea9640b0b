"""`socketserver` for goroutines: what waits parks only the goroutine."""

from socketserver import *
