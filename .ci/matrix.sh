#!/usr/bin/env bash
# matrix.sh [VERSION...]: the tests of the shim and the package on every CPython found (or on those named, as "3.14t"),
# each in its own environment and build directory; stops at the first that fails.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

ran=()
while IFS= read -r python <&3; do
  tag=$("$python" -I -S -c 'import sys, sysconfig
print("%d.%d%s" % (*sys.version_info[:2], "t" if sysconfig.get_config_var("Py_GIL_DISABLED") else ""))')
  if [ $# -gt 0 ] && [[ " $* " != *" $tag "* ]]; then continue; fi
  printf '\n== tests on CPython %s (%s)\n' "$tag" "$python"
  ${MAKE:-make} --no-print-directory shim-test python-test PYTHON="$python"
  ran+=("$tag")
done 3< <(.ci/pythons.sh)

if [ ${#ran[@]} -eq 0 ]; then
  echo "matrix: no CPython found${*:+ of: $*}" >&2
  exit 1
fi
printf '\nmatrix: passed on %s\n' "${ran[*]}"
