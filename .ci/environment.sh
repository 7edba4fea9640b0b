#!/usr/bin/env bash
# environment.sh PYTHON VENV GROUP...: makes the virtual environment anew where it does not belong to
# PYTHON, then installs the named dependency groups of pyproject.toml into it.
set -euo pipefail
python=$1 venv=$2
shift 2

identify='import sys; print(sys.implementation.cache_tag, getattr(sys, "abiflags", ""), sys.version_info[:3])'
fail() { printf '\nenvironment: %s\n' "$*" >&2; exit 1; }

if [ ! -x "$venv/bin/python" ] || [ "$("$venv/bin/python" -c "$identify")" != "$("$python" -c "$identify")" ]; then
  rm -rf "$venv"
  "$python" -m venv "$venv" || fail "$python cannot make a virtual environment (on Debian and Ubuntu: apt install python3-venv)"
fi

install() {
  "$venv/bin/python" -m pip install --quiet --disable-pip-version-check "$@" ||
    fail "pip could not install $* into $venv; is the package index within reach?"
}
# Dependency groups are pip 25.1's.
"$venv/bin/python" -c 'import pip, sys; sys.exit(tuple(map(int, pip.__version__.split(".")[:2])) < (25, 1))' ||
  install --upgrade 'pip>=25.1'
groups=()
for group in "$@"; do groups+=(--group "$group"); done
install "${groups[@]}"
