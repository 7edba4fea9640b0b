"""`concurrent`, whose `futures` has a proxy."""

from offset.syscall.concurrent import futures as futures
