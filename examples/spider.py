"""A crawler with `requests`, twice: on the proxies of the standard library, and as it is.

    python spider.py [PAGES]

The site is a program of its own, has PAGES pages (2000 unless told), and takes 100 ms over each. A copy of
`requests` that `patched_import` has made waits without a thread. The library itself knows of no goroutines:
where it waits, its OS thread waits with it, and the others go on on another one.
"""

import re
import subprocess
import sys
import time

import requests
from offset import makechan, patch, run, runtime, sleep, sync
from offset.syscall.http import server

AT_ONCE = 100
LINK = re.compile(r'href="/(\d+)"')


class Site(server.BaseHTTPRequestHandler):
    """Page N links to pages 10N - 8 to 10N + 1, and back to page 1."""

    protocol_version = "HTTP/1.1"
    pages = 0

    def do_GET(self):
        sleep(0.1)
        number = int(self.path.strip("/"))
        targets = [target for target in range(10 * number - 8, 10 * number + 2) if target <= self.pages]
        body = "".join(f'<a href="/{target}">{target}</a>' for target in [*targets, 1]).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args):
        """Stay silent; the crawler prints what there is to see."""


def serve(pages):
    """Serve the site, a goroutine for each connection, until the program is ended."""
    Site.pages = pages
    server.ThreadingHTTPServer.request_queue_size = AT_ONCE
    with server.ThreadingHTTPServer(("127.0.0.1", 0), Site) as site:
        print(site.server_port, flush=True)
        site.serve_forever()


class Crawler:
    """Goes through a site with the library that it is given."""

    def __init__(self, library, site):
        self.site = site
        self.lock = sync.Mutex()
        self.seen, self.texts, self.threads = set(), [], 0
        self.visits = sync.WaitGroup()
        # Who has a session may read a page; each keeps its connection.
        self.sessions = makechan(AT_ONCE)
        for _ in range(AT_ONCE):
            session = library.Session()
            # The proxies of the environment have no way to the loopback interface.
            session.trust_env = False
            self.sessions.send(session)

    def crawl(self, number):
        with self.lock:
            if number in self.seen:
                return
            self.seen.add(number)
        self.visits.go(self.visit, number)

    def visit(self, number):
        session = self.sessions.recv()
        try:
            text = session.get(f"{self.site}/{number}").text
        finally:
            self.sessions.send(session)
        with self.lock:
            self.texts.append(text)
            self.threads = max(self.threads, runtime.stats()["machines"])
        for link in LINK.findall(text):
            self.crawl(int(link))

    def close(self):
        for _ in range(AT_ONCE):
            self.sessions.recv().close()


def visit_all(library, site, pages, how):
    started = time.monotonic()
    crawler = Crawler(library, site)
    crawler.crawl(1)
    crawler.visits.wait()
    took = time.monotonic() - started
    crawler.close()
    print(
        f"{how}: {len(crawler.texts)} pages, {AT_ONCE} at once, {crawler.threads} OS threads, {took:.1f} s", flush=True
    )
    if len(crawler.texts) != pages:
        sys.exit(f"there are {pages} pages")


def main(pages):
    command = [sys.executable, __file__, "serve", str(pages)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as program:
        try:
            site = f"http://127.0.0.1:{program.stdout.readline().strip()}"
            visit_all(patch.patched_import("requests"), site, pages, "on the proxies")
            visit_all(requests, site, pages, "as it is")
        finally:
            program.terminate()


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["serve", pages]:
            run(serve, int(pages))
        case [pages]:
            run(main, int(pages))
        case _:
            run(main, 2000)
