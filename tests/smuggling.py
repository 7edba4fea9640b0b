"""Requests that two readers may take for different ones: a corpus, by what is wrong with each.

Each is a whole conversation. What follows the doubtful part would be a request for `/smuggled` to a reader that ends
the first one early; nobody may ever see that one.
"""

from __future__ import annotations

NEXT = b"GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n"


def _post(lines: bytes, body: bytes = b"") -> bytes:
    return b"POST / HTTP/1.1\r\nHost: a\r\n" + lines + b"\r\n\r\n" + body + NEXT


# ---- two lengths: CL.TE, TE.CL, CL.CL, TE.TE ---------------------------------------------------------

LENGTHS = [
    _post(b"Content-Length: 5\r\nTransfer-Encoding: chunked", b"0\r\n\r\n"),
    _post(b"Transfer-Encoding: chunked\r\nContent-Length: 5", b"0\r\n\r\n"),
    _post(b"Content-Length: 0\r\nTransfer-Encoding: chunked", b"0\r\n\r\n"),
    _post(b"Content-Length: 5\r\nContent-Length: 6", b"aaaaa"),
    _post(b"Content-Length: 0\r\nContent-Length: 44", b""),
    _post(b"Content-Length: 5, 6", b"aaaaa"),
    _post(b"Content-Length: 5,5", b"aaaaa"),
    _post(b"Content-Length: +5", b"aaaaa"),
    _post(b"Content-Length: -5", b"aaaaa"),
    _post(b"Content-Length: 0x5", b"aaaaa"),
    _post(b"Content-Length: 5_0", b"aaaaa"),
    _post(b"Content-Length: 5 0", b"aaaaa"),
    _post(b"Content-Length: 5.0", b"aaaaa"),
    _post(b"Content-Length: \xb2", b"aa"),
    _post(b"Content-Length: 18446744073709551621", b"aaaaa"),
    _post(b"Content-Length: ", b""),
    _post(b"Content-Length: five", b"aaaaa"),
]

CODINGS = [
    _post(b"Transfer-Encoding: xchunked", b"0\r\n\r\n"),
    _post(b"Transfer-Encoding: chunked\r\nTransfer-Encoding: identity", b"0\r\n\r\n"),
    _post(b"Transfer-Encoding: identity\r\nTransfer-Encoding: chunked", b"0\r\n\r\n"),
    _post(b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked", b"0\r\n\r\n"),
    _post(b"Transfer-Encoding: chunked, identity", b"0\r\n\r\n"),
    _post(b"Transfer-Encoding: chunked;foo", b"0\r\n\r\n"),
    _post(b"Transfer-Encoding: identity\r\nContent-Length: 5", b"aaaaa"),
    _post(b"Transfer-Encoding: \x0bchunked", b"0\r\n\r\n"),
    _post(b"Transfer-Encoding: \x0cchunked", b"0\r\n\r\n"),
    _post(b'Transfer-Encoding: "chunked"', b"0\r\n\r\n"),
    _post(b"Transfer-Encoding: chunked\x00", b"0\r\n\r\n"),
    _post(b"Transfer-Encoding: chunk\xc4\xb1d", b"0\r\n\r\n"),
    _post(b"Transfer-Encoding:", b"0\r\n\r\n"),
    _post(b"Transfer-Encoding: gzip, chunked", b"0\r\n\r\n"),
    b"POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\nConnection: keep-alive\r\n\r\n0\r\n\r\n" + NEXT,
]

# ---- lines ---------------------------------------------------------------------------------------

LINES = [
    _post(b"Content-Length : 5", b"aaaaa"),
    _post(b"Transfer-Encoding : chunked", b"0\r\n\r\n"),
    _post(b"Content-Length\t: 5", b"aaaaa"),
    _post(b" Content-Length: 5", b"aaaaa"),
    _post(b"X: y\r\n Content-Length: 5", b"aaaaa"),
    _post(b"X: y\r\n\tfolded", b""),
    _post(b"Transfer-Encoding:\r\n chunked", b"0\r\n\r\n"),
    _post(b"X: y\nContent-Length: 5", b"aaaaa"),
    _post(b"X: y\rContent-Length: 5", b"aaaaa"),
    _post(b"X: y\r\rContent-Length: 5", b"aaaaa"),
    _post(b"X: y\x00\r\nContent-Length: 5", b"aaaaa"),
    _post(b"X\x00: y\r\nContent-Length: 5", b"aaaaa"),
    _post(b"X\r\nContent-Length: 5", b"aaaaa"),
    _post(b": y\r\nContent-Length: 5", b"aaaaa"),
    _post(b"Content Length: 5", b"aaaaa"),
    _post(b"(Content-Length): 5", b"aaaaa"),
    _post(b"Content-Length\xa0: 5", b"aaaaa"),
    b"POST / HTTP/1.1\nHost: a\nContent-Length: 5\n\naaaaa" + NEXT,
    b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\naaaaa" + NEXT,
    b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\n\r\naaaaa" + NEXT,
    b"POST / HTTP/1.1\rHost: a\rContent-Length: 5\r\raaaaa" + NEXT,
    b"\nPOST / HTTP/1.1\r\nHost: a\r\n\r\n" + NEXT,
    b"\r\n\r\n\r\nPOST / HTTP/1.1\r\nHost: a\r\n\r\n" + NEXT,
]

REQUEST_LINES = [
    b"GET  / HTTP/1.1\r\nHost: a\r\n\r\n" + NEXT,
    b"GET /  HTTP/1.1\r\nHost: a\r\n\r\n" + NEXT,
    b"GET / x HTTP/1.1\r\nHost: a\r\n\r\n" + NEXT,
    b"GET\t/\tHTTP/1.1\r\nHost: a\r\n\r\n" + NEXT,
    b"GET /\x0bHTTP/1.1\r\nHost: a\r\n\r\n" + NEXT,
    b"GET / HTTP/1.1 \r\nHost: a\r\n\r\n" + NEXT,
    b" GET / HTTP/1.1\r\nHost: a\r\n\r\n" + NEXT,
    b"GET /\r\n\r\n" + NEXT,
    b"GET / HTTP/0.9\r\n\r\n" + NEXT,
    b"GET / HTTP/1.2\r\nHost: a\r\n\r\n" + NEXT,
    b"GET / HTTP/2.0\r\nHost: a\r\n\r\n" + NEXT,
    b"GET / HTTP/1.10\r\nHost: a\r\n\r\n" + NEXT,
    b"GET / HTTP/1.\xb2\r\nHost: a\r\n\r\n" + NEXT,
    b"GET / http/1.1\r\nHost: a\r\n\r\n" + NEXT,
    b"GET / HTTP/01.1\r\nHost: a\r\n\r\n" + NEXT,
    b"G\xc3\x89T / HTTP/1.1\r\nHost: a\r\n\r\n" + NEXT,
    b"GET /\xc3\xa9 HTTP/1.1\r\nHost: a\r\n\r\n" + NEXT,
    b"GET /\x00 HTTP/1.1\r\nHost: a\r\n\r\n" + NEXT,
    b"GET /#f HTTP/1.1\r\nHost: a\r\n\r\n" + NEXT,
    b"GET a HTTP/1.1\r\nHost: a\r\n\r\n" + NEXT,
    b"CONNECT a:1 HTTP/1.1\r\nHost: a\r\n\r\n" + NEXT,
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + NEXT,
]

HOSTS = [
    b"GET / HTTP/1.1\r\n\r\n" + NEXT,
    b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n" + NEXT,
    b"GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n" + NEXT,
    b"GET / HTTP/1.1\r\nHost: a b\r\n\r\n" + NEXT,
    b"GET / HTTP/1.1\r\nHost: a/b\r\n\r\n" + NEXT,
    b"GET / HTTP/1.1\r\nHost: b@a\r\n\r\n" + NEXT,
    b"GET / HTTP/1.1\r\nHost: a\\b\r\n\r\n" + NEXT,
]

# ---- chunks --------------------------------------------------------------------------------------

_BODIES = [
    b"5\naaaaa\r\n0\r\n\r\n",
    b"5\raaaaa\r\n0\r\n\r\n",
    b"5\r\naaaaa\n0\r\n\r\n",
    b"5\r\naaaaa0\r\n\r\n",
    b"5\r\naaaaab\r\n0\r\n\r\n",
    b"5\r\naaaa\r\n0\r\n\r\n",
    b"0x5\r\naaaaa\r\n0\r\n\r\n",
    b"+5\r\naaaaa\r\n0\r\n\r\n",
    b"-5\r\naaaaa\r\n0\r\n\r\n",
    b" 5\r\naaaaa\r\n0\r\n\r\n",
    b"5 \r\naaaaa\r\n0\r\n\r\n",
    b"5\t;a\r\naaaaa\r\n0\r\n\r\n",
    b"5_\r\naaaaa\r\n0\r\n\r\n",
    b"\r\naaaaa\r\n0\r\n\r\n",
    b";a=b\r\naaaaa\r\n0\r\n\r\n",
    b"5;a\nb\r\naaaaa\r\n0\r\n\r\n",
    b"5;a\rb\r\naaaaa\r\n0\r\n\r\n",
    b"5;\x00\r\naaaaa\r\n0\r\n\r\n",
    b"g\r\naaaaa\r\n0\r\n\r\n",
    b"\xb2\r\naa\r\n0\r\n\r\n",
    b"10000000000000005\r\naaaaa\r\n0\r\n\r\n",
    b"0000000000000000000005\r\naaaaa\r\n0\r\n\r\n",
    b"5\r\naaaaa\r\n0\r\n\n",
    b"5\r\naaaaa\r\n0\n\r\n",
    b"5\r\naaaaa\r\n0\r\nX : y\r\n\r\n",
    b"5\r\naaaaa\r\n0\r\n X: y\r\n\r\n",
    b"5\r\naaaaa\r\n0\r\nX: y\n\r\n",
    b"5\r\naaaaa\r\n0\r\nX\r\n\r\n",
    b"5\r\naaaaa\r\n0\r\nX: y\r\n z\r\n\r\n",
    b"5\r\naaaaa\r\n0\r\nX: \x00\r\n\r\n",
    b"5\r\naaaaa\r\n0\r\n" + NEXT[:-2] + b"\r\n",
]
CHUNKS = [_post(b"Transfer-Encoding: chunked", body) for body in _BODIES]

CORPUS = {
    "lengths": LENGTHS,
    "codings": CODINGS,
    "lines": LINES,
    "request lines": REQUEST_LINES,
    "hosts": HOSTS,
    "chunks": CHUNKS,
}

# What looks odd and is right: each is one POST with the body "aaaaa", and then the next request.
RIGHT = [
    _post(b"Content-Length: 5", b"aaaaa"),
    _post(b"content-length:5", b"aaaaa"),
    _post(b"Content-Length: \t 5 \t", b"aaaaa"),
    _post(b"Content-Length: 0000000005", b"aaaaa"),
    _post(b"Transfer-Encoding: Chunked", b"5\r\naaaaa\r\n0\r\n\r\n"),
    _post(b"Transfer-Encoding:chunked", b'05;a="b c"\r\naaaaa\r\n00\r\nX: y\r\n\r\n'),
    _post(b"X-Transfer-Encoding: chunked\r\nContent-Length: 5", b"aaaaa"),
    _post(b"Content_Length: 3\r\nContent-Length: 5", b"aaaaa"),
    _post(b"Transfer_Encoding: chunked\r\nContent-Length: 5", b"aaaaa"),
    b"\r\n" + _post(b"Content-Length: 5", b"aaaaa"),
    b"POST http://b/ HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\naaaaa" + NEXT,
]
