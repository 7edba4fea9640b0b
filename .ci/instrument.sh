#!/usr/bin/env bash
# instrument.sh miri|address|thread|valgrind [CARGO TEST ARGUMENTS]: the core's tests under an instrument.
#
# The sanitizers are unstable options of the compiler whose runtimes every toolchain carries, so they are used with a nightly
# or, where there is none, with the stable one told to accept them. Where that carries no runtime either the script says so, and
# valgrind's memcheck, which finds bad accesses but no data races, stands in. Miri is a component of a nightly toolchain and has
# no stand-in.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
instrument=$1
shift
nightly=${NIGHTLY:-nightly}
target=${TARGET_DIR:-target}
host=$(rustc -vV | sed -n 's/^host: //p')
say() { printf 'instrument: %s\n' "$*" >&2; }

has_nightly() { cargo "+$nightly" --version >/dev/null 2>&1; }

# The toolchain for the sanitizers, as arguments of cargo and rustc.
toolchain=()
if has_nightly; then toolchain=("+$nightly"); else export RUSTC_BOOTSTRAP=1; fi
sysroot() { rustc "${toolchain[@]}" --print sysroot; }

has_sanitizer() { compgen -G "$(sysroot)/lib/rustlib/$host/lib/librustc*_rt.$1.a" >/dev/null; }

# sanitize NAME [RUSTFLAG...] -- [ARGUMENT OF CARGO TEST...]. Doctests are left out: rustdoc compiles them, without the flags.
sanitize() {
  local name=$1 flags=()
  shift
  while [ "$1" != -- ]; do
    flags+=("$1")
    shift
  done
  shift
  RUSTFLAGS="-Zsanitizer=$name ${flags[*]} ${RUSTFLAGS:-}" CARGO_TARGET_DIR="$target/$name" \
    cargo "${toolchain[@]}" test --package offset-runtime --target "$host" --lib --tests "$@"
}

memcheck() {
  command -v valgrind >/dev/null || { say "valgrind is not installed"; exit 1; }
  # A jump of the stack pointer that is longer than the largest frame is a switch to another stack; stacks
  # lie more than a megabyte apart.
  local runner="valgrind --error-exitcode=99 --quiet --fair-sched=yes --max-stackframe=524288"
  # Leaks are not what is looked for, and the search at the end would read gigabytes of reserved stacks into memory.
  runner="$runner --leak-check=no"
  export "CARGO_TARGET_$(tr 'a-z-' 'A-Z_' <<<"$host")_RUNNER=$runner"
  CARGO_TARGET_DIR="$target/valgrind" cargo test --package offset-runtime --lib --tests "$@"
}

case $instrument in
  miri)
    has_nightly && cargo "+$nightly" miri --version >/dev/null 2>&1 ||
      { say "Miri needs: rustup toolchain install nightly --component miri,rust-src"; exit 1; }
    MIRIFLAGS="-Zmiri-disable-isolation ${MIRIFLAGS:-}" cargo "+$nightly" miri test --package offset-runtime "$@" ;;
  address)
    if has_sanitizer asan; then
      # A goroutine that is still parked when the tests end owns memory on its stack, which no root refers to.
      ASAN_OPTIONS="detect_leaks=0 ${ASAN_OPTIONS:-}" sanitize address -- --features corosensei/sanitizer "$@"
    else
      say "no toolchain with an address sanitizer; valgrind's memcheck instead"
      memcheck "$@"
    fi ;;
  thread)
    # The switch tells the sanitizer of goroutines, which are threads to it (cfg tsan).
    export TSAN_OPTIONS="suppressions=$PWD/.ci/tsan.suppressions ${TSAN_OPTIONS:-}"
    if ! has_sanitizer tsan; then
      say "no toolchain with a thread sanitizer; valgrind's memcheck instead, which finds no data races"
      memcheck "$@"
    elif [ -d "$(sysroot)/lib/rustlib/src/rust/library" ]; then
      sanitize thread --cfg tsan -- -Zbuild-std "$@"
    else
      say "no rust-src, so the standard library is not instrumented: races inside it go unseen"
      sanitize thread --cfg tsan -Cunsafe-allow-abi-mismatch=sanitizer -- "$@"
    fi ;;
  valgrind) memcheck "$@" ;;
  *) say "unknown instrument $instrument"; exit 2 ;;
esac
