"""`concurrent.futures.thread`: `ThreadPoolExecutor`, whose workers are goroutines."""

from concurrent.futures.thread import *
