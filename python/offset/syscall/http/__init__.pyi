"""`http`, whose `client` and `server` have proxies."""

from http import *

from offset.syscall.http import client as client
from offset.syscall.http import server as server
