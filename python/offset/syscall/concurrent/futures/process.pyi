"""`concurrent.futures.process`: `ProcessPoolExecutor`, whose futures park only the goroutine that waits for them."""

from concurrent.futures.process import *
