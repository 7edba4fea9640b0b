#!/usr/bin/env bash
# environment.sh PYTHON VENV GROUP...: makes the virtual environment anew where it does not belong to
# PYTHON, then installs the named dependency groups of pyproject.toml into it. Of a group whose name ends with a question
# mark each member is installed by itself, from wheels; one that has none for PYTHON is left out.
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
# The requirements of a group of pyproject.toml, one a line.
members() {
  "$venv/bin/python" -c 'import sys, tomllib
with open("pyproject.toml", "rb") as file: print(*tomllib.load(file)["dependency-groups"][sys.argv[1]], sep="\n")' "$1"
}

# Dependency groups are pip 25.1's.
"$venv/bin/python" -c 'import pip, sys; sys.exit(tuple(map(int, pip.__version__.split(".")[:2])) < (25, 1))' ||
  install --upgrade 'pip>=25.1'
groups=() optional=()
for group in "$@"; do
  case $group in
    *\?) mapfile -t -O "${#optional[@]}" optional < <(members "${group%\?}") ;;
    *) groups+=(--group "$group") ;;
  esac
done
install "${groups[@]}"
for member in "${optional[@]}"; do
  "$venv/bin/python" -m pip install --quiet --disable-pip-version-check --only-binary :all: "$member" >/dev/null 2>&1 ||
    printf 'environment: %s is left out of %s: no wheel for it\n' "$member" "$venv" >&2
done
