"""Select with a default: a ticker ticks, and after half a second it goes off; a dot is time spent waiting."""

from offset import default, run, select, time


def main():
    tick = time.tick(100 * time.MILLISECOND)
    boom = time.after(500 * time.MILLISECOND)
    while True:
        chosen = select(tick.if_recv(), boom.if_recv(), default)
        if chosen is default:
            print("    .")
            time.sleep(50 * time.MILLISECOND)
            continue
        match chosen.index:
            case 0:
                print("tick.")
            case 1:
                print("BOOM!")
                return


if __name__ == "__main__":
    run(main)
