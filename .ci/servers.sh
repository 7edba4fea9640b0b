#!/usr/bin/env bash
# servers.sh [--again]: sees to it that the servers which the tests of libraries talk to are there: redis-server, mariadbd, postgres.
#
# One that is installed is used as it is. The others are unpacked from Debian's packages, with those shared libraries that the
# system lacks, into .servers/NAME inside the checkout; nothing is installed, no root is needed. Where that cannot be done, without
# Debian or a network, .servers/NAME.missing says why, and the tests of that server say it in their summary; it is tried again after
# an hour, or with --again. The end is success in any case.
#
# Invariants: .servers/NAME is whole, as it gets its name when its program has been seen to start. One run at a time works here.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
mkdir -p .servers
home=$PWD/.servers
exec 9>"$home/lock"
flock 9
again=${1:-}
whoami=$(id -un)
private=()

apt() {
  # No lock of the system's is taken: nothing is installed.
  apt-get -qq -o Debug::NoLocking=1 -o APT::Sandbox::User="$whoami" -o Acquire::Retries=1 -o Acquire::http::Timeout=20 \
    -o Acquire::https::Timeout=20 "${private[@]}" "$@"
}

# The packages of a server that are not installed: its own and libraries. What sets up a system is not wanted, nor is a compiler.
packages() {
  apt -s install --no-install-recommends "$1" |
    awk '$1 == "Inst" { print $2 }' |
    grep -E '^(redis-|mariadb-(server|client)-core|postgresql-[0-9]+$|postgresql-client-[0-9]+$|lib)' |
    grep -vE '^libllvm|-perl$'
}

fetch() {
  local package=$1 names
  names=$(packages "$package") || return 1
  # shellcheck disable=SC2086 - a list
  (cd "$work/packages" && apt download $names)
}

# Lists of packages that the system has not, or whose packages are not there any more: lists of our own.
own_lists() {
  if [ ${#private[@]} -gt 0 ]; then return; fi
  mkdir -p "$home/apt/state/lists/partial" "$home/apt/cache/archives/partial"
  private=(-o Dir::State="$home/apt/state" -o Dir::State::status=/var/lib/dpkg/status -o Dir::Cache="$home/apt/cache")
  apt update || true
}

# Where an installed program is, on PATH or in one of the places where Debian puts servers.
installed() {
  local found
  found=$(PATH="$PATH:/usr/sbin:/usr/local/sbin" command -v "$1") || found=$(compgen -G "/usr/lib/postgresql/*/bin/$1" | sort -V | tail -n 1)
  [ -n "$found" ] && printf '%s\n' "$found"
}

unpack() {
  local name=$1 package=$2 program=$3 path libraries
  work=$home/$name.part
  rm -rf "$work"
  mkdir -p "$work/packages" "$work/root"
  if ! command -v apt-get >/dev/null || ! command -v dpkg >/dev/null; then
    echo "it is not installed, and this system has no packages of Debian's"
    return 1
  fi
  if ! fetch "$package" && ! { own_lists && fetch "$package"; }; then
    echo "it is not installed, and the package $package cannot be had"
    return 1
  fi
  for path in "$work"/packages/*.deb; do
    if ! dpkg -x "$path" "$work/root"; then
      echo "the package $package cannot be unpacked"
      return 1
    fi
  done
  rm -rf "$work/packages"
  path=$(compgen -G "$work/root/usr/*bin/$program" || compgen -G "$work/root/usr/lib/postgresql/*/bin/$program") || true
  libraries=$(printf '%s:' "$work"/root/usr/lib/*-linux-gnu*)
  if [ -z "$path" ] || ! LD_LIBRARY_PATH=$libraries "$path" --version; then
    echo "the program of the package $package does not start"
    return 1
  fi
  rm -rf "${home:?}/$name"
  mv "$work" "$home/$name"
}

provide() {
  local name=$1 package=$2 program=$3 reason log=$home/$1.log
  if [ -d "$home/$name" ] || installed "$program" >/dev/null; then
    rm -f "$home/$name.missing"
    return
  fi
  if [ "$again" != --again ] && [ -n "$(find "$home" -maxdepth 1 -name "$name.missing" -mmin -60)" ]; then return; fi
  printf 'servers: %s, from the package %s\n' "$name" "$package"
  if unpack "$name" "$package" "$program" >"$log" 2>&1; then
    rm -f "$home/$name.missing" "$log"
  else
    reason=$(tail -n 1 "$log")
    printf '%s: %s\n' "$program" "$reason" | tee "$home/$name.missing" >&2
  fi
  rm -rf "$home/$name.part"
}

provide redis redis-server redis-server
provide mariadb mariadb-server-core mariadbd
provide postgres postgresql postgres
rm -rf "$home/apt"
