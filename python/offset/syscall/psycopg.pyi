"""psycopg for goroutines: waits for the server park only the goroutine."""

from psycopg import *
