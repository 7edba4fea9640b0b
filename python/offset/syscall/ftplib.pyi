"""`ftplib` for goroutines: what waits parks only the goroutine."""

from ftplib import *
