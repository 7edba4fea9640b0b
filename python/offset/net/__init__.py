"""Networks, as Go's package `net`: connections whose operations park only the goroutine.

Networks are "tcp", "tcp4", "tcp6", "udp", "udp4", "udp6", "unix" and "unixgram". Addresses are strings: "host:port"
("[::1]:80" for IPv6; a port may be a service's name), a path for Unix sockets, "@name" for an abstract one.
Errors are Python's own (ConnectionRefusedError, TimeoutError), with a text that says what was tried, and where.

`_address` reads and writes addresses, `_conn` has connections, `_listen` what accepts them, `_packet` what has none;
`_dial` and `_lookup` find the other side, `_tls` wraps a connection, `_pipe` is one in memory, `_stream` has what they
share, `_file` sends files, `_relay` copies between connections. All of them wait by `offset._runtime.Stream` and `Fd`.
"""

from offset.net import _file, _relay
from offset.net._conn import Conn
from offset.net._dial import dial
from offset.net._listen import Listener, listen
from offset.net._lookup import lookup_host
from offset.net._packet import PacketConn, listen_packet
from offset.net._pipe import PipeConn, pipe
from offset.net._tls import TLSConn

__all__ = [
    "Conn",
    "Listener",
    "PacketConn",
    "PipeConn",
    "TLSConn",
    "dial",
    "listen",
    "listen_packet",
    "lookup_host",
    "pipe",
]

_file.install()
_relay.install()
