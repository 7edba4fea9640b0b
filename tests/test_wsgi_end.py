"""`offset.wsgi.serve`: how a server and its connections end."""

from __future__ import annotations

import offset
import pytest
from helpers import PATIENCE, main_goroutine, run_script
from net_peers import Call, client_context, server_context
from offset import _runtime, context, go, makechan, net, testing, wsgi
from offset._http import _server as server_module
from web import Reader, ask, connect, hello, request, serving


@main_goroutine
def test_a_stop_lets_requests_end_and_idle_connections_go():
    begun, go_on = makechan(1), makechan(1)

    def app(environ, start_response):
        if environ["PATH_INFO"] == "/slow":
            begun.send(True)
            go_on.recv()
        start_response("200 OK", [])
        return [b"hello"]

    with (
        serving(app) as served,
        connect(served.addr) as idle,
        connect(served.addr) as fresh,
        connect(served.addr) as busy,
    ):
        idle.write(request())
        assert Reader(idle).answer().status == 200
        busy.write(request("/slow") + request("/next"))
        begun.recv(timeout=PATIENCE)
        served.stop()
        assert Reader(idle).at_end() and Reader(fresh).at_end()
        with pytest.raises(OSError):
            net.dial("tcp", served.addr)
        assert not served.call.ended
        go_on.send(True)
        reader = Reader(busy)
        answer = reader.answer()
        assert (answer.body, answer.headers["connection"]) == (b"hello", "close")
        assert reader.at_end()
        busy.close()
        served.call.result()


@main_goroutine
def test_a_stop_does_not_wait_for_ever():
    begun, never = makechan(1), makechan()

    def app(environ, start_response):
        begun.send(True)
        start_response("200 OK", [])
        yield b"begun"
        never.recv_ok()
        yield b"more"

    with serving(app, grace=0.05) as served, connect(served.addr) as conn:
        conn.write(request())
        begun.recv(timeout=PATIENCE)
        served.stop()
        served.call.result()
        never.close()


@main_goroutine
def test_a_server_that_is_cancelled():
    ready = makechan(1)
    server = go(wsgi.serve, hello, "127.0.0.1:0", ready=ready)
    addr = ready.recv(timeout=PATIENCE)
    with connect(addr) as conn:
        conn.write(request())
        reader = Reader(conn)
        assert reader.answer().status == 200
        server.cancel()
        assert server.join(timeout=PATIENCE)
        assert reader.at_end()
    with pytest.raises(OSError):
        net.dial("tcp", addr)


@main_goroutine
def test_a_stop_ends_idle_connections_over_tls():
    with serving(hello, tls=server_context()) as served, connect(served.addr, client_context()) as conn:
        conn.write(request())
        reader = Reader(conn)
        assert reader.answer().status == 200
        served.stop()
        assert reader.at_end()
        conn.close()
        served.call.result()


@main_goroutine
def test_who_accepts_is_ended_when_the_connection_is_over_already(monkeypatch):
    class Late:
        """`_runtime`, where the goroutine of a connection is over before `go` returns to who is ended just then."""

        def __getattr__(self, name):
            return getattr(_runtime, name)

        def go(self, function, *args):
            goroutine = _runtime.go(function, *args)
            if function.__name__ == "_serve":
                assert goroutine.join(timeout=PATIENCE)
                raise offset.GoroutineExit
            return goroutine

    monkeypatch.setattr(server_module, "_runtime", Late())
    ended = []
    over = server_module.Server._over
    monkeypatch.setattr(server_module.Server, "_over", lambda *args: ended.append(over(*args)))
    with serving(hello) as served:
        assert ask(served.addr, request("/", "Connection: close")).body == b"hello"
        served.stop()
        served.call.result()
    assert ended == [None], "once"


@main_goroutine
def test_a_server_that_is_stopped_before_it_accepts():
    ctx, cancel = context.with_cancel(context.background())
    cancel()
    with testing.leak_check(patience=PATIENCE):
        for _ in range(20):
            wsgi.serve(hello, ["127.0.0.1:0"] * 2, stop=ctx)


@main_goroutine
def test_a_server_under_a_context():
    seen = []

    def serve():
        with context.timeout(0.2), pytest.raises(TimeoutError):
            wsgi.serve(hello, "127.0.0.1:0", on_ready=seen.append)

    Call(serve).result()
    assert len(seen) == 1


@pytest.mark.parametrize("inside", [False, True])
def test_signals_end_it(inside):
    program = """
        import os, signal, sys, threading
        import socket as plain
        import offset
        from offset.syscall import socket
        from offset.wsgi import serve

        def app(environ, start_response):
            # From now on nothing new is begun.
            os.kill(os.getpid(), getattr(signal, environ["PATH_INFO"][1:]))
            while True:
                try:
                    socket.create_connection(address).close()
                except OSError:
                    break
                offset.sleep(0.001)
            start_response("200 OK", [])
            return [b"served"]

        def ready(addr):
            global address
            host, port = addr.split(":")
            address = (host, int(port))
            thread.start()

        def client():
            with plain.create_connection(address) as conn:
                conn.sendall(b"GET /%s HTTP/1.1\\r\\nHost: a\\r\\n\\r\\n" % sys.argv[1].encode())
                data = b""
                while part := conn.recv(1000):
                    data += part
            print(data.endswith(b"served"))

        thread = threading.Thread(target=client)
        if sys.argv[2] == "inside":
            offset.run(serve, app, "127.0.0.1:0", ready)
        else:
            serve(app, "127.0.0.1:0", ready)
        thread.join()
        print("over")
    """
    for number in ("SIGTERM", "SIGINT", "SIGHUP"):
        status, stdout, stderr = run_script(program, number, "inside" if inside else "outside")
        assert (status, sorted(stdout.split())) == (0, ["True", "over"]), stderr


def test_a_signal_that_is_ignored_from_the_start_stays_so():
    program = """
        import os, signal, threading, time
        from offset.wsgi import serve

        def ready(addr):
            def kill():
                os.kill(os.getpid(), signal.SIGHUP)
                with open(f"/proc/{os.getpid()}/status") as file:
                    print(int([line for line in file if line.startswith("SigIgn")][0].split()[1], 16) & 1)
                os.kill(os.getpid(), signal.SIGTERM)

            threading.Thread(target=kill).start()

        # As nohup does for a program.
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        serve(lambda environ, start_response: [], "127.0.0.1:0", ready)
    """
    assert run_script(program) == (0, "1\n", "")
