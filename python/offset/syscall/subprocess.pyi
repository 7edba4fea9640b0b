"""`subprocess` for goroutines: what waits parks only the goroutine."""

from subprocess import *
