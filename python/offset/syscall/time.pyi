"""`time` whose `sleep` parks only the goroutine that sleeps."""

from time import *
