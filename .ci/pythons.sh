#!/usr/bin/env bash
# Prints the path of one interpreter for each CPython from 3.11 on that this machine has, oldest first,
# free-threaded builds among them. Looked at, in this order, the first of a kind winning: the pinned builds
# beside the checkout, pyenv's, PATH. An interpreter without its headers is passed over.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

candidates() {
  if [ -f ../shared/pythons/install.sh ]; then bash ../shared/pythons/install.sh; fi
  local root=${PYENV_ROOT:-${HOME:-}/.pyenv} path name
  for path in "$root"/versions/3.1[1-9]*/bin/python3; do printf '%s\n' "$path"; done
  for name in python3.1{1..9}{,t} python3; do type -aP "$name" || true; done
}

probe='
import os, sys, sysconfig
free = bool(sysconfig.get_config_var("Py_GIL_DISABLED"))
header = os.path.join(sysconfig.get_path("include"), "Python.h")
if sys.version_info >= (3, 11) and sys.implementation.name == "cpython" and os.path.exists(header):
    print("%d.%d%s" % (*sys.version_info[:2], "t" * free))
'
candidates | while IFS= read -r path; do
  [ -x "$path" ] || continue
  tag=$("$path" -I -S -c "$probe" 2>/dev/null) || continue
  if [ -n "$tag" ]; then printf '%s %s\n' "$tag" "$path"; fi
done | awk '!seen[$1]++' | sort -V | cut -d ' ' -f 2-
