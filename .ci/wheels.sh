#!/usr/bin/env bash
# wheels.sh: builds a wheel for every CPython found, and tries each in a clean environment; stops at the first that fails.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

make="${MAKE:-make} --no-print-directory"
tested=$($make tag)
count=0
while IFS= read -r python <&3; do
  # The default interpreter has an environment already.
  if [ "$($make tag PYTHON="$python")" = "$tested" ]; then
    $make wheel-test
  else
    $make wheel-test PYTHON="$python"
  fi
  count=$((count + 1))
done 3< <(.ci/pythons.sh)
if [ "$count" -eq 0 ]; then
  echo "wheels: no CPython found" >&2
  exit 1
fi
printf '\nwheels: %d passed, 0 failed\n' "$count"
