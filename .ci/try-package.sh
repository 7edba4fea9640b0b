#!/usr/bin/env bash
# try-package.sh PYTHON FILE: installs a wheel or a source distribution into a clean environment of its own, away from the
# checkout, and runs programs there.
#
# Invariant: nothing of the checkout is seen there; what is tried is what users get.
set -euo pipefail
python=$1 file=$(realpath "$2")
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
"$python" -m venv clean
clean=$work/clean/bin
unset PYTHONPATH
if [ "${file##*.}" = whl ]; then
  "$clean/python" -m pip install --quiet --disable-pip-version-check --no-index "$file"
else
  "$clean/python" -m pip install --quiet --disable-pip-version-check "$file"
fi

cat >program.py <<'EOF'
import pathlib
import sys
import time

import offset
from offset import go, makechan, net, run, sync

assert pathlib.Path(offset.__file__).is_relative_to(sys.prefix), offset.__file__


def echo(listener):
    with listener.accept() as conn:
        conn.write(conn.read(100))


def main():
    numbers = makechan()
    go(lambda: [numbers.send(n) for n in range(10)] and numbers.close())
    group = sync.WaitGroup()
    group.go(time.sleep, 0.05)
    with net.listen("tcp", "127.0.0.1:0") as listener:
        go(echo, listener)
        with net.dial("tcp", listener.addr) as conn:
            conn.write(b"hello")
            answer = conn.read(100)
    group.wait()
    return sum(numbers), answer


print(run(main))
EOF
[ "$("$clean/python" program.py)" = "(45, b'hello')" ]
[ "$("$clean/offset" run program.py)" = "(45, b'hello')" ]

# A thread that wants the GIL while the interpreter ends is ended there, by an unwinding that must not meet frames of Rust
# (shim/internal.h). It crashes where the package was linked with another unwinder than glibc's own: LLVM's, as by zig.
cat >ends.py <<'EOF'
import time

from offset import go, run


def stubborn():
    while True:
        try:
            while True:
                pass
        except BaseException:
            pass


def main():
    go(stubborn)
    # It blocks: on builds without the GIL, too, another thread has to run the other one.
    time.sleep(0.2)


run(main, grace=0.05)
EOF
timeout 60 "$clean/python" ends.py 2>ends.log || {
  status=$?
  cat ends.log
  printf 'try-package: a program did not end well: status %d\n' "$status"
  exit 1
}
"$clean/offset" doctor
"$clean/python" -m pip check --disable-pip-version-check
printf 'try-package: %s works on %s\n' "$(basename "$file")" "$("$clean/python" -VV | head -n 1)"
