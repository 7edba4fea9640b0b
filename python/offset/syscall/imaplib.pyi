"""`imaplib` for goroutines: what waits parks only the goroutine."""

from imaplib import *
