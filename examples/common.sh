# What every example begins with; to be sourced with the example's name. Leaves $dhow, a folder $work for what is built,
# and the shell in the example's folder.
# DHOW names a dhow that is there already; DHOW_ROOT a folder for images and containers (target/examples otherwise).
set -euo pipefail
repository=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
target=${CARGO_TARGET_DIR:-$repository/target}
if [ -z "${DHOW:-}" ]; then
    (cd "$repository" && cargo build --release --package dhow --bin dhow)
    DHOW=$target/$(rustc -vV | sed -n 's/^host: //p')/release/dhow
fi
dhow=$DHOW
export DHOW_ROOT=${DHOW_ROOT:-$target/examples/root}
work=${EXAMPLES_WORK:-$target/examples}/$1
mkdir -p "$work" "$(dirname "$DHOW_ROOT")"
cd "$repository/examples/$1"

# A C program as a Wasm module (Debian packages clang, lld, wasi-libc and libclang-rt-dev-wasm32).
wasm() {
    clang-14 --target=wasm32-wasi -Oz -s -o "$2" "$1"
}
