"""`threading` in which a thread is a goroutine and whatever waits parks only the goroutine that does."""

from threading import *
