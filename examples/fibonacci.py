"""Select: a goroutine sends Fibonacci numbers for as long as somebody wants them, until told to quit."""

from offset import go, makechan, run, select


def fibonacci(numbers, quit):
    x, y = 0, 1
    while True:
        match select(numbers.if_send(x), quit.if_recv()).index:
            case 0:
                x, y = y, x + y
            case 1:
                print("quit")
                return


def main():
    numbers = makechan()
    quit = makechan()

    def reader():
        for _ in range(10):
            print(numbers.recv())
        quit.send(None)

    go(reader)
    fibonacci(numbers, quit)


if __name__ == "__main__":
    run(main)
