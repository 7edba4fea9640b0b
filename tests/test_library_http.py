"""`requests`, `urllib3` and `http.server` in goroutines: as they are, and as copies over the proxies.

Invariants: the server sees all requests at once, and only then answers; connections are kept, shared and dropped as the
libraries say; whoever is cancelled or out of time leaves no descriptor behind, and a session that works.
"""

from __future__ import annotations

import contextlib
import functools
import http.client
import http.server
import threading
import types

import offset
import pytest
from helpers import PATIENCE, main_goroutine, wait_until
from libraries import Call, Threads, calls, cancel, copies, few, needs_rescue, original, results, sockets, wait_closed
from net_peers import CERTIFICATES, client_context, server_context
from offset import go
from offset.syscall import ssl as proxied_ssl
from offset.syscall import threading as proxied_threading
from offset.syscall.http import client as proxied_client
from offset.syscall.http import server as proxied_server

# Each takes a thread where the library is as it is, and those go only after a while.
AT_ONCE = 12


@pytest.fixture(scope="module")
def copied():
    """The copies of requests and urllib3."""
    return copies("requests", "urllib3")


@pytest.fixture(params=[pytest.param("as it is", marks=needs_rescue), "a copy"])
def requests(request, copied):
    """The library, in both ways."""
    return copied[0] if request.param == "a copy" else original("requests")[0]


@pytest.fixture(params=[pytest.param("as it is", marks=needs_rescue), "a copy"])
def urllib3(request, copied):
    return copied[1] if request.param == "a copy" else original("urllib3")[0]


class Site:
    """A server of goroutines, and what it has seen."""

    def __init__(self, context=None):
        site = self
        self.meeting = None
        self.connections = 0
        self.now = self.most = 0
        self.lock = offset.sync.Mutex()
        self.paths = []
        self.go_on = offset.makechan()

        class Handler(proxied_server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def setup(self):
                super().setup()
                with site.lock:
                    site.connections += 1

            def handle(self):
                # A client may vanish.
                with contextlib.suppress(OSError):
                    super().handle()

            def do_GET(self):
                with site.lock:
                    site.now += 1
                    site.most = max(site.most, site.now)
                    site.paths.append(self.path)
                try:
                    getattr(self, f"on_{self.path.split('/')[1]}", self.on_anything)()
                finally:
                    with site.lock:
                        site.now -= 1

            def do_POST(self):
                self.answer(self.rfile.read(int(self.headers["Content-Length"])))

            def answer(self, body, status=200):
                self.send_response(status)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def on_anything(self):
                if site.meeting is not None:
                    site.meeting.wait(PATIENCE)
                self.answer(self.path.encode())

            def on_never(self):
                """Answers when the client has gone."""
                self.rfile.read(1)
                self.close_connection = True

            def on_twice(self):
                """Has to be asked three times."""
                if site.paths.count(self.path) < 3:
                    self.answer(b"not now", 503)
                else:
                    self.answer(b"at last")

            def on_pieces(self):
                """Sends each piece when the client has had the one before."""
                self.send_response(200)
                self.send_header("Transfer-Encoding", "chunked")
                self.end_headers()
                for number in range(5):
                    self.wfile.write(b"7\r\npiece %d\r\n" % number)
                    site.go_on.recv(timeout=PATIENCE)
                self.wfile.write(b"0\r\n\r\n")

            def log_message(self, *_):
                pass

        class Server(proxied_server.ThreadingHTTPServer):
            request_queue_size = 100

        self.server = Server(("127.0.0.1", 0), Handler)
        if context is not None:
            self.server.socket = context.wrap_socket(
                self.server.socket, server_side=True, do_handshake_on_connect=False
            )
        scheme, host = ("http", "127.0.0.1") if context is None else ("https", "localhost")
        self.url = f"{scheme}://{host}:{self.server.server_address[1]}"

    def __enter__(self):
        self.serving = go(self.server.serve_forever, 0.01)
        return self

    def __exit__(self, *_):
        self.meeting = None
        self.server.shutdown()
        self.server.server_close()
        assert self.serving.join(timeout=PATIENCE)

    def meet(self, count):
        """Let nobody have an answer before so many ask."""
        self.meeting = proxied_threading.Barrier(count)


# ---- requests ----------------------------------------------------------------------------------


@main_goroutine
def test_all_at_once(requests):
    with Site() as site:
        site.meet(AT_ONCE)

        def get(number):
            with requests.Session() as session:
                return session.get(f"{site.url}/{number}", timeout=PATIENCE).text

        assert sorted(results(calls(AT_ONCE, get))) == sorted(f"/{number}" for number in range(AT_ONCE))
        assert site.most == AT_ONCE


@main_goroutine
def test_those_of_a_copy_take_no_threads(copied):
    requests = copied[0]
    threads = Threads()
    count = 40
    with Site() as site:
        site.meet(count + 1)
        begun = calls(count, lambda number: requests.get(f"{site.url}/{number}", timeout=PATIENCE).status_code)
        wait_until(lambda: site.now == count, "all have asked")
        few(threads, count)
        begun += calls(1, lambda _: requests.get(f"{site.url}/last", timeout=PATIENCE).status_code)
        assert set(results(begun)) == {200}


@main_goroutine
def test_a_session_keeps_its_connections(requests):
    with Site() as site, requests.Session() as session:
        session.mount("http://", requests.adapters.HTTPAdapter(pool_connections=1, pool_maxsize=4, pool_block=True))

        def ask(number):
            return [session.get(f"{site.url}/{number}", timeout=PATIENCE).text for _ in range(5)]

        assert results(calls(AT_ONCE, ask)) == [[f"/{number}"] * 5 for number in range(AT_ONCE)]
        assert site.connections <= 4
        assert site.most <= 4
        # All of the pool at once.
        site.meet(4)
        results(calls(8, lambda number: session.get(f"{site.url}/{number}", timeout=PATIENCE).text))
        assert site.most == 4
        assert site.connections <= 4


@main_goroutine
def test_a_stream_comes_in_pieces(requests):
    with Site() as site:

        def read(number):
            seen = []
            with requests.get(f"{site.url}/pieces/{number}", stream=True, timeout=PATIENCE) as response:
                for piece in response.iter_content(chunk_size=None):
                    seen.append(piece)
                    site.go_on.send(None, timeout=PATIENCE)
            return seen

        for seen in results(calls(5, read)):
            assert seen == [b"piece %d" % number for number in range(5)]


@main_goroutine
def test_what_is_sent_arrives(requests):
    body = bytes(range(256)) * 8_192
    with Site() as site, requests.Session() as session:
        echoes = results(calls(4, lambda number: session.post(site.url, data=body[number:], timeout=PATIENCE).content))
    assert [echo == body[number:] for number, echo in enumerate(echoes)] == [True] * 4


@main_goroutine
def test_it_tries_again(requests):
    retries = requests.adapters.Retry(total=5, backoff_factor=0.001, status_forcelist=[503])
    with Site() as site, requests.Session() as session:
        session.mount("http://", requests.adapters.HTTPAdapter(max_retries=retries))
        answers = results(calls(5, lambda number: session.get(f"{site.url}/twice/{number}", timeout=PATIENCE).text))
    assert answers == ["at last"] * 5
    assert len(site.paths) == 15


@main_goroutine
def test_who_is_out_of_time_can_go_on(requests):
    with Site() as site, requests.Session() as session:
        before = sockets()

        def ask(number):
            with pytest.raises(requests.exceptions.ReadTimeout):
                session.get(f"{site.url}/never/{number}", timeout=(PATIENCE, 0.05))
            return session.get(f"{site.url}/{number}", timeout=PATIENCE).text

        assert results(calls(5, ask)) == [f"/{number}" for number in range(5)]
        session.close()
        wait_until(lambda: site.now == 0, "the server has seen that they are gone")
        wait_closed(before)


@main_goroutine
def test_who_is_cancelled_leaves_nothing(copied):
    requests = copied[0]
    with Site() as site, requests.Session() as session:
        session.mount("http://", requests.adapters.HTTPAdapter(pool_maxsize=2, pool_block=True))
        session.get(f"{site.url}/first", timeout=PATIENCE)
        wait_until(lambda: site.now == 0, "the server is done with the first")
        before = sockets()
        for number in range(3):
            call = Call(session.get, f"{site.url}/never/{number}")
            wait_until(lambda: site.now == 1, "it has asked")
            cancel(call)
            wait_until(lambda: site.now == 0, "the server has seen that it is gone")
        # Both places of the pool are free.
        site.meet(2)
        results(calls(2, lambda number: session.get(f"{site.url}/{number}", timeout=PATIENCE).text))
        session.close()
        wait_closed(before)


@main_goroutine
def test_tls(requests):
    with Site(server_context(ssl=proxied_ssl)) as site:
        site.meet(5)

        def get(number):
            return requests.get(
                f"{site.url}/{number}", verify=str(CERTIFICATES / "localhost.pem"), timeout=PATIENCE
            ).text

        assert results(calls(5, get)) == [f"/{number}" for number in range(5)]
        for wrong in (str(CERTIFICATES / "elsewhere.pem"), True):
            with pytest.raises(requests.exceptions.SSLError, match="CERTIFICATE_VERIFY_FAILED"):
                requests.get(site.url, verify=wrong, timeout=PATIENCE)


@main_goroutine
def test_errors_are_those_of_the_library(requests):
    with Site() as site:
        url = site.url
        with pytest.raises(requests.exceptions.HTTPError, match="503"):
            requests.get(f"{url}/twice/1", timeout=PATIENCE).raise_for_status()
    with pytest.raises(requests.exceptions.ConnectionError, match="refused"):
        requests.get(url, timeout=PATIENCE)


# ---- urllib3 -----------------------------------------------------------------------------------


@main_goroutine
def test_a_pool_of_urllib3(urllib3):
    with Site() as site, urllib3.PoolManager(maxsize=3, block=True) as pool:
        site.meet(3)
        answers = results(calls(12, lambda number: pool.request("GET", f"{site.url}/{number}", timeout=PATIENCE).data))
        assert sorted(answers) == sorted(b"/%d" % number for number in range(12))
        assert site.connections <= 3
        assert site.most == 3


@main_goroutine
def test_a_pool_that_is_empty_says_so(copied):
    urllib3 = copied[1]
    with Site() as site, urllib3.HTTPConnectionPool(*site.server.server_address, maxsize=1, block=True) as pool:
        kept = pool.request("GET", "/one", preload_content=False)
        with pytest.raises(urllib3.exceptions.EmptyPoolError):
            pool.request("GET", "/two", pool_timeout=0.01)
        kept.drain_conn()
        kept.release_conn()
        assert pool.request("GET", "/three").data == b"/three"
        assert site.connections == 1


@main_goroutine
def test_a_response_of_urllib3_is_read_as_it_comes(urllib3):
    with Site() as site, urllib3.PoolManager() as pool:
        response = pool.request("GET", f"{site.url}/pieces", preload_content=False, timeout=PATIENCE)
        seen = []
        for piece in response.stream():
            seen.append(piece)
            site.go_on.send(None, timeout=PATIENCE)
        assert b"".join(seen) == b"piece 0piece 1piece 2piece 3piece 4"


@main_goroutine
def test_tls_of_urllib3(urllib3):
    with Site(server_context(ssl=proxied_ssl)) as site:
        trusting = urllib3.PoolManager(ca_certs=str(CERTIFICATES / "localhost.pem"))
        assert trusting.request("GET", f"{site.url}/x", timeout=PATIENCE).data == b"/x"
        with pytest.raises(urllib3.exceptions.SSLError), urllib3.PoolManager() as pool:
            pool.request("GET", site.url, retries=False, timeout=PATIENCE)
        trusting.clear()


# ---- http.server -------------------------------------------------------------------------------

SERVERS = {
    "as it is": (http.server, http.client, threading),
    "the proxy": (proxied_server, proxied_client, proxied_threading),
}


@pytest.fixture(params=[pytest.param("as it is", marks=needs_rescue), "the proxy"])
def served(request, tmp_path):
    """A directory that a server of both kinds serves, with files of some sizes: its address, its client."""
    server, client, locks = SERVERS[request.param]
    for number in range(5):
        (tmp_path / f"{number}.bin").write_bytes(bytes([number]) * number * 100_000)

    class Handler(server.SimpleHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        barrier = None

        def __init__(self, *args):
            super().__init__(*args, directory=str(tmp_path))

        def send_head(self):
            if self.path.endswith("?meet"):
                self.barrier.wait(PATIENCE)
            return super().send_head()

        def log_message(self, *_):
            pass

    return types.SimpleNamespace(server=server, client=client, handler=Handler, locks=locks)


@main_goroutine
def test_files_are_served_to_all_at_once(served):
    class Server(served.server.ThreadingHTTPServer):
        request_queue_size = 100

    served.handler.barrier = served.locks.Barrier(AT_ONCE)
    with Server(("127.0.0.1", 0), served.handler) as server:
        serving = go(functools.partial(server.serve_forever, 0.01))

        def get(number):
            with contextlib.closing(served.client.HTTPConnection(*server.server_address, timeout=PATIENCE)) as conn:
                conn.request("GET", f"/{number % 5}.bin?meet")
                first = conn.getresponse().read()
                # The same connection again.
                conn.request("HEAD", f"/{number % 5}.bin")
                response = conn.getresponse()
                assert response.read() == b""
                return first, int(response.headers["Content-Length"])

        for number, (body, length) in enumerate(results(calls(AT_ONCE, get))):
            assert body == bytes([number % 5]) * (number % 5) * 100_000
            assert length == len(body)
        server.shutdown()
        assert serving.join(timeout=PATIENCE)
    served.handler.barrier = None


@main_goroutine
def test_a_server_over_tls():
    class Handler(proxied_server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b"secret")

        def log_message(self, *_):
            pass

    with proxied_server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        context = server_context(ssl=proxied_ssl)
        server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
        serving = go(server.serve_forever, 0.01)
        port = server.server_address[1]

        def get(_):
            conn = proxied_client.HTTPSConnection(
                "localhost", port, context=client_context(ssl=proxied_ssl), timeout=PATIENCE
            )
            with contextlib.closing(conn):
                conn.request("GET", "/")
                return conn.getresponse().read()

        assert results(calls(5, get)) == [b"secret"] * 5
        server.shutdown()
        assert serving.join(timeout=PATIENCE)
