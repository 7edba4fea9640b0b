"""The prime sieve: each prime found adds a goroutine that lets only what it does not divide pass.

    python sieve.py [COUNT]

prints the first COUNT primes, 100 unless told. At the end COUNT + 1 goroutines stand in a row, and
every number that reaches the end has been through all of them.
"""

import sys
from itertools import count

from offset import go, makechan, run


def generate(numbers):
    """Send 2, 3, 4, ... for ever."""
    for number in count(2):
        numbers.send(number)


def keep_indivisible(source, sink, prime):
    """Pass on from `source` to `sink` what `prime` does not divide."""
    for number in source:
        if number % prime:
            sink.send(number)


def main(wanted):
    numbers = makechan()
    go(generate, numbers)
    for _ in range(wanted):
        prime = numbers.recv()
        print(prime, end=" ", flush=True)
        rest = makechan()
        go(keep_indivisible, numbers, rest, prime)
        numbers = rest
    print()


if __name__ == "__main__":
    run(main, int(sys.argv[1]) if len(sys.argv) > 1 else 100)
