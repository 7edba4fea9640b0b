"""`urllib.request` for goroutines: what waits parks only the goroutine."""

from urllib.request import *
