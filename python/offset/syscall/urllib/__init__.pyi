"""`urllib`, whose `request` has a proxy."""

from offset.syscall.urllib import request as request
