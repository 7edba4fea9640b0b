#!/usr/bin/env bash
# wheels.sh: builds a wheel for every CPython found, and tries each in a clean environment; stops at the first that fails.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

count=0
while IFS= read -r python <&3; do
  ${MAKE:-make} --no-print-directory wheel-test PYTHON="$python"
  count=$((count + 1))
done 3< <(.ci/pythons.sh)
printf '\nwheels: %d passed, 0 failed\n' "$count"
