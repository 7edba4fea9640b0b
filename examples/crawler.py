"""A crawler: follow every link of a site, a few pages at a time, each page once.

    python crawler.py [PAGES]

The site is made up, has PAGES pages (40 unless told), takes 50 ms over each, and is served on the
loopback interface by `http.server`. The crawler reads it with `urllib.request`. Neither knows of
goroutines: where one of them blocks, it blocks its own goroutine only.
"""

import re
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.error import HTTPError
from urllib.parse import urljoin
from urllib.request import ProxyHandler, build_opener

from offset import makechan, run, sync

AT_ONCE = 10
LINK = re.compile(r'href="([^"]*)"')

# The proxies of the environment have no way to the loopback interface.
browser = build_opener(ProxyHandler({}))


class Site(BaseHTTPRequestHandler):
    """Page N links to pages 2N and 2N + 1, back to page 1, and to page 0, which does not exist."""

    pages = 40

    def do_GET(self):
        time.sleep(0.05)
        number = int(self.path.strip("/"))
        if not 1 <= number <= self.pages:
            self.send_error(404)
            return
        targets = [target for target in (2 * number, 2 * number + 1) if target <= self.pages]
        links = "".join(f'<a href="/{target}">{target}</a>' for target in [*targets, 1, 0])
        body = f"<title>Page {number}</title>{links}".encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args):
        """Stay silent; the crawler prints what there is to see."""


class Server(ThreadingHTTPServer):
    # The number of connections that may wait to be accepted.
    request_queue_size = 128
    daemon_threads = True


class Crawler:
    """Goes through a site; `found` and `missing` hold the addresses it has visited."""

    def __init__(self):
        # Guards the sets and lists below, and what is printed.
        self.lock = sync.Mutex()
        self.seen, self.found, self.missing = set(), [], []
        self.pages = sync.WaitGroup()
        self.tokens = makechan(AT_ONCE)

    def crawl(self, url):
        with self.lock:
            if url in self.seen:
                return
            self.seen.add(url)
        self.pages.go(self.visit, url)

    def visit(self, url):
        self.tokens.send(None)
        try:
            with browser.open(url) as page:
                text = page.read().decode()
        except HTTPError as error:
            with self.lock:
                self.missing.append(url)
                print(f"{url}: {error.code}")
            return
        finally:
            self.tokens.recv()
        with self.lock:
            self.found.append(url)
            print(f"{url}: {len(text)} bytes")
        for link in LINK.findall(text):
            self.crawl(urljoin(url, link))


def main(pages):
    Site.pages = pages
    with Server(("127.0.0.1", 0), Site) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        started = time.monotonic()
        crawler = Crawler()
        crawler.crawl(f"http://127.0.0.1:{server.server_port}/1")
        crawler.pages.wait()
        took = time.monotonic() - started
        server.shutdown()

    print(f"{len(crawler.found)} pages and {len(crawler.missing)} dead link in {took:.2f} s, {AT_ONCE} at once")
    if len(crawler.found) != pages:
        sys.exit(f"there are {pages} pages")


if __name__ == "__main__":
    run(main, int(sys.argv[1]) if len(sys.argv) > 1 else 40)
