"""Goroutines: two of them say their word in turn, five times each.

The program is over when main is, so the last "world" may be missing, as in Go.
"""

from offset import go, run, time


def say(words):
    for _ in range(5):
        time.sleep(100 * time.MILLISECOND)
        print(words)


def main():
    go(say, "world")
    say("hello")


if __name__ == "__main__":
    run(main)
