"""A web server and a hundred clients: each request waits for its own, and all of them wait at once.

    python web.py [SECONDS]

The application is plain WSGI; Flask's and Django's are served in the same way. With SECONDS it stays for so long,
for a look with a browser.
"""

import sys

from offset import context, errgroup, go, makechan, run, time
from offset.syscall.urllib.request import urlopen
from offset.wsgi import serve

CLIENTS = 100


def application(waiting, everybody):
    """An application whose requests wait until all have come."""

    def app(environ, start_response):
        start_response("200 OK", [("Content-Type", "text/plain; charset=utf-8")])
        if environ["PATH_INFO"] == "/together":
            waiting.send(environ["QUERY_STRING"])
            everybody.recv_ok()
        return [f"hello {environ['QUERY_STRING'] or 'world'}\n".encode()]

    return app


def read(url):
    with urlopen(url) as answer:
        return answer.read().decode().strip()


def main(seconds):
    waiting, everybody, ready = makechan(), makechan(), makechan(1)
    ctx, stop = context.with_cancel(context.background())
    server = go(serve, application(waiting, everybody), "127.0.0.1:0", ready=ready, stop=ctx)
    addr = ready.recv()
    print(read(f"http://{addr}/"))
    with errgroup.Group() as group:
        answers = [group.go(read, f"http://{addr}/together?{number}") for number in range(CLIENTS)]
        there = {waiting.recv() for _ in range(CLIENTS)}
        print(f"{len(there)} requests are being answered at once")
        everybody.close()
    print(answers[0].result(), "...", answers[-1].result())
    if seconds:
        print(f"http://{addr}/")
        time.sleep(seconds)
    stop()
    server.join()


if __name__ == "__main__":
    run(main, float(sys.argv[1]) if len(sys.argv) > 1 else 0)
