"""`smtplib` for goroutines: what waits parks only the goroutine."""

from smtplib import *
