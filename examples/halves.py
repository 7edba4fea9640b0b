"""Channels: two goroutines add up one half of a list each, and main adds their sums."""

from offset import go, makechan, run


def add_up(numbers, sums):
    total = 0
    for number in numbers:
        total += number
    sums.send(total)


def main():
    numbers = [7, 2, 8, -9, 4, 0]
    middle = len(numbers) // 2

    sums = makechan()
    go(add_up, numbers[:middle], sums)
    go(add_up, numbers[middle:], sums)
    x, y = sums.recv(), sums.recv()

    print(x, y, x + y)


if __name__ == "__main__":
    run(main)
