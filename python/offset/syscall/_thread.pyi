"""`_thread` whose threads are goroutines and whose locks park only the goroutine."""

from _thread import *
