#!/usr/bin/env bash
# instrument.sh miri|address|thread|valgrind [CARGO TEST ARGUMENTS]: the core's tests under an instrument.
#
# The sanitizers and Miri are parts of a nightly toolchain. Where there is none the script says so: the two
# sanitizers then give way to valgrind's memcheck, which finds bad accesses but no data races; Miri has no
# stand-in, so its target fails.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
instrument=$1
shift
nightly=${NIGHTLY:-nightly}
target=${TARGET_DIR:-target}
host=$(rustc -vV | sed -n 's/^host: //p')
say() { printf 'instrument: %s\n' "$*" >&2; }

has_nightly() { cargo "+$nightly" --version >/dev/null 2>&1; }

# Doctests are left out: they are compiled by rustdoc, without the flags.
sanitize() {
  local name=$1
  shift
  RUSTFLAGS="-Zsanitizer=$name ${RUSTFLAGS:-}" CARGO_TARGET_DIR="$target/$name" \
    cargo "+$nightly" test --package offset-runtime --target "$host" --lib --tests "$@"
}

memcheck() {
  command -v valgrind >/dev/null || { say "valgrind is not installed"; exit 1; }
  # A jump of the stack pointer that is longer than the largest frame is a switch to another stack; stacks
  # lie more than a megabyte apart.
  local runner="valgrind --error-exitcode=99 --quiet --fair-sched=yes --max-stackframe=524288"
  runner="$runner --show-leak-kinds=definite --errors-for-leak-kinds=none"
  export "CARGO_TARGET_$(tr 'a-z-' 'A-Z_' <<<"$host")_RUNNER=$runner"
  CARGO_TARGET_DIR="$target/valgrind" cargo test --package offset-runtime --lib --tests "$@"
}

case $instrument in
  miri)
    has_nightly && cargo "+$nightly" miri --version >/dev/null 2>&1 ||
      { say "Miri needs: rustup toolchain install nightly --component miri,rust-src"; exit 1; }
    MIRIFLAGS="-Zmiri-disable-isolation ${MIRIFLAGS:-}" cargo "+$nightly" miri test --package offset-runtime "$@" ;;
  address)
    if has_nightly; then
      # A goroutine that is still parked when the tests end owns memory on its stack, which no root refers to.
      ASAN_OPTIONS="detect_leaks=0 ${ASAN_OPTIONS:-}" sanitize address --features corosensei/sanitizer "$@"
    else
      say "no $nightly toolchain, so no address sanitizer; valgrind's memcheck instead"
      memcheck "$@"
    fi ;;
  thread)
    if ! has_nightly; then
      say "no $nightly toolchain, so no thread sanitizer; valgrind's memcheck instead, which finds no data races"
      memcheck "$@"
    elif [ -d "$(rustc "+$nightly" --print sysroot)/lib/rustlib/src/rust/library" ]; then
      TSAN_OPTIONS="suppressions=$PWD/.ci/tsan.suppressions ${TSAN_OPTIONS:-}" sanitize thread -Zbuild-std "$@"
    else
      say "no rust-src, so the standard library is not instrumented: races inside it go unseen"
      TSAN_OPTIONS="suppressions=$PWD/.ci/tsan.suppressions ${TSAN_OPTIONS:-}" \
        RUSTFLAGS="-Cunsafe-allow-abi-mismatch=sanitizer" sanitize thread "$@"
    fi ;;
  valgrind) memcheck "$@" ;;
  *) say "unknown instrument $instrument"; exit 2 ;;
esac
