"""Goroutines that are forgotten: `runtime.leaks()` names them, what they wait for, and the line that started them.

A name is looked up on three servers at once, and the first answer counts. The others have an answer, too, and
nobody to take it: they wait for ever. `runtime.leaks()` finds that nobody has their channel any more. With room
for every answer nothing is left.
"""

import sys

from offset import go, makechan, run, runtime, time

SERVERS = {"north": 0.01, "east": 0.02, "south": 0.03}


def ask(server, question, answers):
    time.sleep(SERVERS[server])
    answers.send(f"{question} is at 192.0.2.{len(server)}, says {server}")


def look_up(question, room):
    answers = makechan(room, label="answers")
    for server in SERVERS:
        go(ask, server, question, answers)
    return answers.recv()


def leaks_after(room):
    """Look a name up with room for so many answers, and see who is left when all have had their time."""
    print(look_up("example.org", room))
    time.sleep(100 * time.MILLISECOND)
    return runtime.leaks()


def main():
    leaks = leaks_after(room=0)
    print(leaks)
    if len(leaks) != len(SERVERS) - 1:
        sys.exit("all but one were to be found")
    leaks.cancel()
    print(f"with room for {len(SERVERS)} answers:")
    print(leaks_after(room=len(SERVERS)))


if __name__ == "__main__":
    run(main)
