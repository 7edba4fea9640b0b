"""A group whose first error ends the others: a page is made of parts that are fetched at once, and one of them is down.

The parts are members of an `errgroup.Group`. When one fails, the context of the group is over, and that ends
whatever the others wait for: none of them looks at it. What `with` raises is the first error. Then the page is
made once more, with a part that may be missing.
"""

from offset import context, errgroup, run, time

# Seconds that each part takes; the reviews are down.
PARTS = {"title": 0.01, "prices": 0.02, "reviews": 0.05, "stock": 2.0, "advice": 5.0}


def fetch(name):
    """Get one part of the page, if the group waits for it that long."""
    try:
        time.sleep(PARTS[name])
        if name == "reviews":
            raise ConnectionError("the reviews are down")
    except context.Canceled as error:
        print(f"  {name} is given up: {error.__cause__}")
        raise
    print(f"  {name} is there")
    return name


def page(fetch):
    with errgroup.Group() as group:
        parts = [group.go(fetch, name) for name in PARTS]
    return [part.result() for part in parts]


def fetch_or_do_without(name):
    """The same, in 100 ms at most, and no error."""
    try:
        with context.timeout(100 * time.MILLISECOND):
            return fetch(name)
    except (ConnectionError, TimeoutError) as error:
        return f"no {name}: {error}"


def main():
    started = time.now()
    try:
        page(fetch)
    except ConnectionError as error:
        print(f"no page, as {error}; it took {time.now() - started:.2f} s")
    started = time.now()
    parts = page(fetch_or_do_without)
    print(f"a page of {', '.join(parts)}; it took {time.now() - started:.2f} s")


if __name__ == "__main__":
    run(main)
