#!/usr/bin/env bash
# macos.sh PYTHON [CARGO ARGUMENTS]: checks that core and extension compile for macOS with PYTHON's headers, which differ there in what
# pyconfig.h says. Nothing is linked or run.
#
# Needed: rustup's target (rustup target add aarch64-apple-darwin), or a toolchain that compiles std itself, and zig (`ziglang` of PyPI), which
# has the system's C headers and is installed here.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
python=$PWD/$1
shift
target=aarch64-apple-darwin
directory=${TARGET_DIR:-target}/macos
say() { printf 'macos: %s\n' "$*" >&2; }

if [[ " $* " != *" -Zbuild-std"* ]] && ! rustup target list --installed 2>/dev/null | grep -qx "$target"; then
  say "rustup target add $target"
  exit 1
fi
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"$python" -m venv "$work/zig"
"$work/zig/bin/python" -m pip install --quiet --disable-pip-version-check ziglang

# Without flags that are for Apple's own compiler.
cat >"$work/cc" <<EOF
#!/usr/bin/env bash
arguments=()
for argument in "\$@"; do
  case \$argument in --target=* | -mmacosx-version-min=* | -isysroot | "$work") ;; *) arguments+=("\$argument") ;; esac
done
exec "$work/zig/bin/python" -m ziglang cc -target aarch64-macos "\${arguments[@]}"
EOF
printf '#!/bin/sh\nexec "%s" -m ziglang ar "$@"\n' "$work/zig/bin/python" >"$work/ar"
chmod +x "$work/cc" "$work/ar"

version=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
SDKROOT=$work CC_aarch64_apple_darwin=$work/cc AR_aarch64_apple_darwin=$work/ar \
  PYO3_CROSS=1 PYO3_CROSS_PYTHON_VERSION=$version PYO3_PYTHON=$python \
  "${CARGO:-cargo}" check --package offset-python --target "$target" --target-dir "$directory" "$@"
say "core and extension compile"
