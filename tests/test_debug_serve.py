"""`offset.debug.serve`: what is answered, to whom, and how it ends."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import re
import socket

import offset
import pytest
from helpers import (
    PATIENCE,
    assert_no_growth,
    go_parked,
    in_thread,
    main_goroutine,
    run_script,
    wait_ended,
    wait_until,
)
from offset import _exit, context, debug, makechan, net, runtime
from offset.debug import _http, _metrics, _server, _vars
from pages import ask, connect, reply, request

LOCAL = "127.0.0.1:0"
TOKEN = "correct-horse.battery/staple=1"


@pytest.fixture
def published(monkeypatch):
    """Names that are published are forgotten after the test."""
    monkeypatch.setattr(_vars, "_published", {})


def served():
    """The goroutines of pages."""
    return [one for one in runtime.goroutines() if one.name.startswith("offset.debug")]


# ---- what is answered -------------------------------------------------------------------------


@main_goroutine
def test_what_there_is():
    channel = makechan(label="the label")
    waiting = go_parked(channel.recv)
    with debug.serve(LOCAL) as server:
        kinds = {}
        for path in ("/", "/metrics", "/debug/vars", "/debug/goroutines", "/debug/leaks", "/debug/live"):
            answer = ask(server.addr, path)
            assert answer.status == 200, answer
            kinds[path] = answer.headers["content-type"].partition(";")[0]
            assert ask(server.addr, path, method="HEAD").headers["content-length"]
        assert kinds == {
            "/": "text/html",
            "/metrics": "text/plain",
            "/debug/vars": "application/json",
            "/debug/goroutines": "text/plain",
            "/debug/leaks": "text/plain",
            "/debug/live": "application/json",
        }
        stacks = ask(server.addr, "/debug/goroutines").body
        assert f"goroutine {waiting.id} [chan receive] Chan.recv:\n" in stacks
        assert "in test_what_there_is\n" in stacks
        assert re.search(rf"^goroutine {waiting.id} ", ask(server.addr, "/debug/goroutines?full=1").body, re.MULTILINE)
        assert "goroutine" in ask(server.addr, "/debug/goroutines?group=1").body
        missing = ask(server.addr, "/favicon.ico")
        assert (missing.status, "/metrics" in missing.body) == (404, True)
    channel.send(1)
    wait_ended(waiting)


@main_goroutine
def test_a_look_with_goroutines_and_channels():
    channel = makechan(4, label="the label")
    channel.send(1)
    waiting = go_parked(lambda: makechan().recv())
    with debug.serve(LOCAL) as server:
        plain = json.loads(ask(server.addr, "/debug/live").body)
        assert {"stats", "states", "process", "server", "time"} <= plain.keys()
        assert not {"goroutines", "channels"} & plain.keys()
        assert plain["stats"]["goroutines"] == sum(plain["states"].values())
        both = json.loads(ask(server.addr, f"/debug/live?show=goroutines,channels&q={waiting.id}").body)
        assert both["goroutines"]["rows"][0]["members"][0][0] == waiting.id
        labelled = json.loads(ask(server.addr, "/debug/live?show=channels&q=the%20LABEL").body)["channels"]
        assert [(row["label"], row["length"]) for row in labelled["rows"]] == [("the label", 1)]
    waiting.cancel()
    wait_ended(waiting)


@main_goroutine
def test_several_requests_on_a_connection_and_what_ends_it():
    with debug.serve(LOCAL) as server:
        with connect(server.addr) as conn:
            conn.write(request("/debug/vars"))
            assert reply(conn).headers["connection"] == "keep-alive"
            conn.write(request("/metrics", method="HEAD") + request("/", "Connection: close"))
            # The answer to HEAD is a head only: the next answer follows at once.
            data = b""
            while part := conn.read(65_536):
                data += part
        assert data.startswith(b"HTTP/1.1 200 OK\r\nContent-Type: text/plain")
        assert b"\r\n\r\nHTTP/1.1 200 OK\r\nContent-Type: text/html" in data
        with connect(server.addr) as conn:
            conn.write(b"GET /debug/vars HTTP/1.0\r\nHost: localhost\r\n\r\n")
            assert reply(conn).headers["connection"] == "close"
            assert conn.read(1) == b""


@main_goroutine
@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (request("/", method="POST"), 405),
        (request("/", method="DELETE"), 405),
        (request("/", "Content-Length: 3") + b"abc", 400),
        (request("/", "Transfer-Encoding: chunked") + b"0\r\n\r\n", 400),
        (b"nonsense\r\n\r\n", 400),
        (b"\x80\xff\r\n\r\n", 400),
        (b"GET / HTTP/2.0\r\n\r\n", 400),
        (b"GET http://localhost/ HTTP/1.1\r\nHost: localhost\r\n\r\n", 400),
        (b"GET //[ HTTP/1.1\r\nHost: localhost\r\n\r\n", 400),
        (request("/", "no colon"), 400),
        (request("/", " folded: x"), 400),
        (request("/", "Host: elsewhere"), 400),
        (request("/" + "x" * 20_000), 431),
    ],
)
def test_what_is_no_request_for_it(sent, status):
    with debug.serve(LOCAL) as server, connect(server.addr) as conn:
        conn.write(sent)
        answer = reply(conn)
        assert (answer.status, answer.headers["connection"]) == (status, "close")
        assert status != 405 or answer.headers["allow"] == "GET, HEAD"
        # A reset, if it has not read all that was sent.
        with contextlib.suppress(ConnectionResetError):
            assert conn.read(1) == b""
        # The next one is answered.
        assert ask(server.addr).status == 200


@main_goroutine
def test_a_client_that_breaks_off_harms_nobody():
    with debug.serve(LOCAL) as server:
        for sent in (b"", b"GET / HT", request("/"), request("/metrics") * 50):
            with connect(server.addr) as conn:
                conn.write(sent)
        assert ask(server.addr).status == 200
        wait_until(lambda: server.stats()["clients"] == 0)


@main_goroutine
def test_a_client_that_is_silent_is_not_kept(monkeypatch):
    monkeypatch.setattr(_http, "_PATIENCE", 0.01)
    with debug.serve(LOCAL) as server, connect(server.addr) as conn:
        assert conn.read(1) == b""


@main_goroutine
def test_there_is_room_for_so_many(monkeypatch):
    monkeypatch.setattr(_server, "_MOST", 2)
    with debug.serve(LOCAL) as server:
        with connect(server.addr) as first, connect(server.addr):
            first.write(request("/metrics"))
            assert reply(first).status == 200
            with connect(server.addr) as third:
                assert reply(third).status == 503
        wait_until(lambda: server.stats()["clients"] == 0)
        assert ask(server.addr).status == 200


@main_goroutine
def test_what_fails_is_said_and_the_page_goes_on(monkeypatch):
    def broken():
        raise LookupError("broken on purpose")

    monkeypatch.setattr(_metrics, "text", broken)
    with debug.serve(LOCAL) as server:
        answer = ask(server.addr, "/metrics")
        assert (answer.status, "LookupError: broken on purpose" in answer.body) == (500, True)
        assert ask(server.addr).status == 200


# ---- values -----------------------------------------------------------------------------------


@main_goroutine
def test_values_that_are_published(published):
    jobs = makechan(3)
    jobs.send("x")
    numbers = {"a": 1}
    debug.publish("jobs", jobs.stats)
    debug.publish("numbers", numbers)
    debug.publish("odd", lambda: [float("nan"), float("inf"), {1: {2}}, (1, 2), "\udcff"])
    debug.publish("fails", lambda: 1 / 0)
    with debug.serve(LOCAL) as server:
        numbers["b"] = [1.5, None, True]
        values = json.loads(ask(server.addr, "/debug/vars").body)
    assert values["jobs"]["len"] == 1
    assert values["numbers"] == {"a": 1, "b": [1.5, None, True]}
    assert values["odd"] == ["nan", "inf", {"1": "{2}"}, [1, 2], "\udcff"]
    assert values["fails"] == {"error": "ZeroDivisionError: division by zero"}
    assert values["runtime"]["goroutines"] >= 2
    assert {"cmdline", "collector", "goroutines", "process"} <= values.keys()


def test_a_name_is_taken_once(published):
    debug.publish("name", 1)
    for name, value in (("name", 1), ("name", 2), ("runtime", 3)):
        with pytest.raises(ValueError, match=f"the name '{name}' is published already"):
            debug.publish(name, value)
    with pytest.raises(TypeError, match="needs a name, not int"):
        debug.publish(1, 2)


# ---- who may ask ------------------------------------------------------------------------------


@pytest.mark.parametrize("addr", ["0.0.0.0:0", ":0", "[::]:0"])
def test_without_a_token_it_is_for_this_machine_only(addr):
    with pytest.raises(ValueError, match=re.escape(f"at {addr} others than this machine could look into the program")):
        debug.serve(addr)
    assert not served()


@pytest.mark.parametrize("token", ["", "with space", "ümlaut", "line\n"])
def test_tokens_that_are_none(token):
    with pytest.raises(ValueError, match="a token must be of printable ASCII"):
        debug.serve(LOCAL, token=token)


def test_arguments_that_are_none():
    with pytest.raises(TypeError, match="a token is a string, not bytes"):
        debug.serve(LOCAL, token=b"token")
    for addr in ("127.0.0.1", "127.0.0.1:x", "127.0.0.1:70000"):
        with pytest.raises((ValueError, OSError)):
            debug.serve(addr)


@main_goroutine
def test_an_address_in_use():
    with net.listen("tcp", LOCAL) as listener, pytest.raises(OSError, match="in use"):
        debug.serve(listener.addr)


@main_goroutine
@pytest.mark.parametrize(
    "host", ["localhost", "LOCALHOST:6060", "127.0.0.1:1", "127.9.9.9", "[::1]:80", "a.localhost:7"]
)
def test_names_of_this_machine(host):
    with debug.serve(LOCAL) as server:
        assert ask(server.addr, "/debug/vars", host=host).status == 200


@main_goroutine
@pytest.mark.parametrize(
    "host", ["", "evil.example", "evil.example:6060", "localhost.evil.example", "10.0.0.1", "[::2]:1"]
)
def test_a_name_that_only_leads_here_is_refused(host):
    """A site may give its own name this address, and have the browser read what is here (DNS rebinding)."""
    with debug.serve(LOCAL) as server:
        for path in ("/", "/debug/vars"):
            answer = ask(server.addr, path, host=host)
            assert answer.status == 403
            assert "names of this machine only" in answer.body
        assert server.stats()["refused"] == 2


@main_goroutine
def test_with_a_token_everything_needs_it():
    with debug.serve("0.0.0.0:0", token=TOKEN) as server:
        addr = f"127.0.0.1:{server.addr.rpartition(':')[2]}"
        good = f"Authorization: Bearer {TOKEN}"
        for path in ("/metrics", "/debug/vars", "/debug/goroutines", "/debug/leaks", "/debug/live", "/nothing"):
            for headers in (
                [],
                ["Authorization: Bearer wrong"],
                [f"Authorization: Basic {TOKEN}"],
                [f"X-Token: {TOKEN}"],
            ):
                answer = ask(addr, path, *headers, host="any.example")
                assert answer.status == 401
                assert answer.headers["www-authenticate"].startswith("Bearer")
                assert answer.headers["connection"] == "close"
                assert "goroutine" not in answer.body
            # In an address it would be in logs and histories: for the page only, which takes it out again.
            assert ask(addr, f"{path}?token={TOKEN}").status == 401
            assert ask(addr, path, good, host="any.example").status == (404 if path == "/nothing" else 200)
        assert ask(addr, "/metrics", f"authorization:   bearer   {TOKEN}").status == 200
        # The page says nothing about the program, and asks for the token.
        assert ask(addr, f"/?token={TOKEN}").status == ask(addr, "/", good).status == 200
        assert ask(addr, "/").status == ask(addr, "/?token=wrong").status == ask(addr, "/?token=").status == 401
        assert ask(addr, "/").body == ask(addr, "/", good).body
        assert TOKEN not in ask(addr, f"/?token={TOKEN}").body


@main_goroutine
def test_what_browsers_are_told():
    with debug.serve(LOCAL) as server:
        page = ask(server.addr)
        others = [ask(server.addr, path) for path in ("/metrics", "/debug/vars", "/debug/live", "/nothing")]
    for answer in (page, *others):
        assert answer.headers["cache-control"] == "no-store"
        assert answer.headers["referrer-policy"] == "no-referrer"
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["x-frame-options"] == "DENY"
        assert answer.headers["cross-origin-resource-policy"] == "same-origin"
        policy = answer.headers["content-security-policy"]
        assert policy.startswith("default-src 'none'; ")
        assert "unsafe" not in policy
        assert "frame-ancestors 'none'" in policy
    policy = page.headers["content-security-policy"]
    for tag in ("script", "style"):
        (content,) = re.findall(f"<{tag}>(.*?)</{tag}>", page.body, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()
        assert f"{tag}-src 'sha256-{digest}';" in policy
    # Nothing is from elsewhere: the only other address is the name of a language.
    assert set(re.findall(r"\w+://[^\"'\s]+", page.body)) == {"http://www.w3.org/2000/svg"}
    assert not re.search(r"\s(style|on\w+)=", re.sub(r"<script>.*?</script>", "", page.body, flags=re.DOTALL))
    assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(", page.body)


# ---- how it lives and ends --------------------------------------------------------------------


@main_goroutine
def test_the_handle():
    with debug.serve(LOCAL) as server:
        assert re.fullmatch(r"127\.0\.0\.1:\d+", server.addr)
        assert repr(server) == f"<offset.debug.Server http://{server.addr}/>"
        with connect(server.addr) as conn:
            conn.write(request("/metrics"))
            reply(conn)
            stats = server.stats()
            assert stats == {"addr": server.addr, "clients": 1, "requests": 1, "refused": 0, "closed": False}
    assert server.closed
    assert repr(server).endswith(" closed>")
    server.close()


@main_goroutine
def test_close_cuts_off_who_is_connected():
    server = debug.serve(LOCAL)
    with connect(server.addr) as idle, connect(server.addr) as asking:
        asking.write(request("/metrics"))
        reply(asking)
        server.close()
        for conn in (idle, asking):
            # A reset, if it was not accepted yet.
            with contextlib.suppress(ConnectionResetError):
                assert conn.read(1) == b""
    with pytest.raises(ConnectionRefusedError):
        connect(server.addr)
    wait_until(lambda: not served(), "its goroutines have ended")
    assert server.stats()["clients"] == 0
    assert not _exit.background


@main_goroutine
def test_close_while_an_answer_is_being_made(published):
    entered, go_on = makechan(), makechan()
    debug.publish("slow", lambda: (entered.send(None), go_on.recv())[1])
    server = debug.serve(LOCAL)
    with connect(server.addr) as conn:
        conn.write(request("/debug/vars"))
        entered.recv()
        server.close()
        assert conn.read(1) == b""
    go_on.send(1)
    wait_until(lambda: not served())


@main_goroutine
def test_nothing_is_left_of_many_pages():
    def once():
        with debug.serve(LOCAL) as server:
            ask(server.addr, "/debug/live?show=goroutines,channels")
        wait_until(lambda: not served())

    assert_no_growth(once, repeats=50, warm_up=300)


@main_goroutine
def test_looks_are_shared_and_go_with_the_last_client(monkeypatch):
    monkeypatch.setattr(_server, "_SHORTEST", PATIENCE)
    with debug.serve(LOCAL) as server:
        path = "/debug/live?show=goroutines,channels"
        with connect(server.addr) as conn:
            conn.write(request(path))
            reply(conn)
            looks = dict(server._looks)
            assert looks.keys() == {"goroutines", "channels"}
            ask(server.addr, path)
            assert server._looks == looks
        wait_until(lambda: not server._looks)


def test_from_a_thread_and_without_a_run():
    server = debug.serve(LOCAL)
    try:
        host, _, port = server.addr.rpartition(":")
        with socket.create_connection((host, int(port)), timeout=PATIENCE) as conn:
            conn.sendall(request("/debug/goroutines", "Connection: close"))
            data = b""
            while part := conn.recv(65_536):
                data += part
        assert b"offset.debug client" in data
    finally:
        in_thread(server.close)
    wait_until(lambda: not served())


def test_a_run_ends_with_its_main_goroutine_and_the_page_with_it():
    for _ in range(20):
        server = offset.run(debug.serve, LOCAL)
        assert server.closed
        assert not served()


@main_goroutine
def test_in_a_scope_that_is_over_nothing_is_served():
    with pytest.raises(context.DeadlineExceeded), context.scope(context.with_timeout(context.background(), 0)[0]):
        debug.serve(LOCAL)
    wait_until(lambda: not served())


def test_a_run_without_a_main_goroutine_does_not_wait_for_it():
    server = debug.serve(LOCAL)
    done = []
    offset.go(done.append, 1)
    assert offset.run() is None
    assert done == [1]
    assert server.closed


@main_goroutine
def test_it_is_no_leak_and_keeps_the_program_from_being_deadlocked():
    """As in Go: who could be asked by somebody is not stuck for ever."""
    with debug.serve(LOCAL) as server, connect(server.addr) as conn:
        conn.write(request("/metrics"))
        reply(conn)
        own = {one.id for one in served()}
        assert len(own) == 2
        assert not own & {one.id for one in runtime.leaks()}
        assert not runtime.leaks()
        assert not offset._runtime.quiescent()
        assert _exit.background == own


def test_an_interpreter_that_exits_ends_it():
    program = """
        import offset
        server = offset.debug.serve("127.0.0.1:0")
        print(server.stats()["closed"])
    """
    assert run_script(program) == (0, "False\n", "")


def test_it_is_imported_when_it_is_asked_for():
    program = """
        import sys, offset
        print("offset.debug" in sys.modules, "offset.debug" in sys.modules or offset.debug.serve.__name__)
    """
    assert run_script(program) == (0, "False serve\n", "")


def test_a_forked_child_does_not_serve_it():
    ended = run_script(
        """
        import os
        from urllib.request import urlopen
        from offset import debug, run

        def main():
            before = sockets()
            server = debug.serve("127.0.0.1:0")
            reader, writer = os.pipe()
            child = os.fork()
            if not child:
                os.write(writer, f"{server.closed} {sockets() - before}".encode())
                os._exit(0)
            assert os.waitpid(child, 0)[1] == 0
            print(os.read(reader, 1000).decode())
            with urlopen(f"http://{server.addr}/debug/vars") as answer:
                print(answer.status)

        def sockets():
            found = set()
            for number in os.listdir("/proc/self/fd"):
                try:
                    found.add(os.readlink(f"/proc/self/fd/{number}"))
                except OSError:
                    pass
            return {it for it in found if it.startswith("socket:")}

        run(main)
    """
    )
    assert (ended.returncode, ended.stdout) == (0, "True set()\n200\n"), ended.stderr
