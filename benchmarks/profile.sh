#!/usr/bin/env bash
# profile.sh SCENARIO [N] [TOOL]: where the time of one scenario of offset goes.
#
# TOOL is perf (samples, with the call chains of native code), stat (counters of perf), or callgrind
# (every instruction counted, fifty times slower, needs no rights); the first that works unless told.
# PYTHON names the interpreter that has offset, python3 unless told; N is the size of the scenario.
#
# What is measured is the whole process: choose N so large that starting it does not show.
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
python=${PYTHON:-python3}
scenario=${1:?usage: profile.sh SCENARIO [N] [perf|stat|callgrind]}
size=${2:-}
tool=${3:-}

if [ -z "$tool" ]; then
  if perf record -q -o /dev/null -- true 2>/dev/null; then tool=perf; else tool=callgrind; fi
fi
if [ -z "$size" ]; then
  pace=fast divisor=1
  if [ "$tool" = callgrind ]; then divisor=50; fi
  size=$(cd "$here" && "$python" -c 'import sys; from scenarios import SCENARIOS
print(SCENARIOS[sys.argv[1]].size(sys.argv[2]) // int(sys.argv[3]))' "$scenario" "$pace" "$divisor")
fi
command=("$python" "$here/on_offset.py" "$scenario" "$size")
echo "$tool of ${command[*]}" >&2

case $tool in
  perf)
    # Frame pointers are not kept in CPython; DWARF unwinding stops where a goroutine's stack begins.
    perf record -o perf.data -F 2000 -g --call-graph dwarf,16384 -- "${command[@]}"
    perf report -i perf.data --no-children --percent-limit 0.7 --stdio -g none 2>/dev/null | sed '/^#/d; /^$/d'
    ;;
  stat)
    perf stat -d -- "${command[@]}"
    ;;
  callgrind)
    valgrind --tool=callgrind --callgrind-out-file=callgrind.out.offset --separate-threads=no \
      --cache-sim=no --smc-check=none "${command[@]}"
    callgrind_annotate --threshold=90 callgrind.out.offset
    ;;
  *)
    echo "unknown tool: $tool" >&2
    exit 2
    ;;
esac
