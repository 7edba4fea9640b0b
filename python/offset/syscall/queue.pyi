"""`queue` whose calls that wait park only the goroutine that does."""

from queue import *
