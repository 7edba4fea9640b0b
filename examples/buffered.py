"""Buffered channels: a send blocks only while the buffer is full, so one goroutine can do both ends."""

from offset import makechan, run


def main():
    numbers = makechan(2)
    numbers.send(1)
    numbers.send(2)
    print(numbers.recv())
    print(numbers.recv())


if __name__ == "__main__":
    run(main)
