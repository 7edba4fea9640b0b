#!/usr/bin/env bash
# aarch64.sh PYTHON [CARGO TEST ARGUMENTS]: builds the extension for aarch64 Linux with PYTHON's headers, which are the same there
# but for what pyconfig.h says of sizes, and those are equal; then runs the core's tests under qemu, if that is installed.
#
# Needed: rustup's target (rustup target add aarch64-unknown-linux-gnu) and a C cross compiler (Debian: gcc-aarch64-linux-gnu). Under
# qemu goroutines switch as on the real thing, but nothing is said about the order of memory operations.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
python=$1
shift
target=aarch64-unknown-linux-gnu
directory=${TARGET_DIR:-target}/aarch64
say() { printf 'aarch64: %s\n' "$*" >&2; }

rustup target list --installed 2>/dev/null | grep -qx "$target" || { say "rustup target add $target"; exit 1; }
command -v aarch64-linux-gnu-gcc >/dev/null || { say "there is no aarch64-linux-gnu-gcc"; exit 1; }
export CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER=aarch64-linux-gnu-gcc

version=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
PYO3_CROSS=1 PYO3_CROSS_PYTHON_VERSION=$version PYO3_PYTHON=$(realpath -s "$python") \
  cargo build --package offset-python --target "$target" --target-dir "$directory"

if command -v qemu-aarch64 >/dev/null; then
  export CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_RUNNER="qemu-aarch64 -L /usr/aarch64-linux-gnu"
  # The child of a fork in a program of many threads is more than qemu 7.2 takes ("cpu == current_cpu").
  RUST_TEST_THREADS=2 cargo test --no-fail-fast --package offset-runtime --lib --tests --target "$target" \
    --target-dir "$directory" "$@" -- --skip a_child_starts_empty_and_works
else
  say "there is no qemu-aarch64: built, and not run"
fi
