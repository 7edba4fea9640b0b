"""`signal` in which the main goroutine is the main thread: it may set handlers, and what they raise is raised in it."""

from signal import *
