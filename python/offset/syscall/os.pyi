"""`os` whose calls that wait park only the goroutine: reads and writes of pipes, terminals and sockets, and waits
for processes."""

from os import *
