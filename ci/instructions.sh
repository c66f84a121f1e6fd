#!/usr/bin/env bash
# The instructions that one pass of each hot path takes, counted by callgrind, against ci/instructions.txt: more than 3 %
# above fails. It counts with the compiler that the file names, which rustup installs if it is not there; where only
# another one is to be had, it shows the counts and says that they were not compared.
#
#   ci/instructions.sh             compares
#   ci/instructions.sh --parts     shows where the instructions of each path are spent, by source file
#   ci/instructions.sh --update    writes the file anew, with the compiler that cargo uses here
source "$(dirname "$0")/require.sh"

readonly baseline=ci/instructions.txt
if [[ $# -gt 1 || ! ${1---parts} =~ ^--(parts|update)$ ]]; then
    echo "usage: ci/instructions.sh [--parts | --update]; found '$*'" >&2
    exit 1
fi
if [[ $(uname -m) != x86_64 ]]; then
    echo "Instructions are counted on x86_64 only; this is $(uname -m). Nothing was counted." >&2
    exit 1
fi
if ! command -v valgrind >/dev/null; then
    echo "installing valgrind"
    as_root=()
    [[ $EUID -eq 0 ]] || as_root=(sudo -n)
    if ! "${as_root[@]}" apt-get update -q || ! "${as_root[@]}" apt-get install -qy --no-install-recommends valgrind; then
        echo "valgrind was not found and could not be installed. Install it and put it on PATH." >&2
        exit 1
    fi
fi

# compiler: its version and target, as the file names them.
compiler() {
    rustc -vV | awk 'NR == 1 { version = $0 } /^host: / { print version, $2 }'
}

if [[ ${1-} != --update ]]; then
    expected=$(grep -m 1 '^rustc ' "$baseline")
    version=$(cut -d' ' -f2 <<<"$expected")
    if [[ $(compiler) != "$expected" ]] && command -v rustup >/dev/null; then
        echo "counting with $expected, by which the expected counts are"
        if rustup run "$version" rustc --version >/dev/null 2>&1 ||
            rustup toolchain install "$version" --profile minimal; then
            export RUSTUP_TOOLCHAIN=$version
        fi
    fi
fi

# The code is that of a release for any processor, whatever the machine's own settings are.
mapfile -t settings < <(compgen -v | grep -E '^CARGO_(PROFILE_RELEASE_|BUILD_|ENCODED_RUSTFLAGS)' || true)
unset CARGO_INCREMENTAL "${settings[@]}"
export RUSTFLAGS="-C target-cpu=x86-64"
CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-target}/instructions"
export CARGO_TARGET_DIR
cargo build --release -p memit-benches --bin instructions
"$CARGO_TARGET_DIR/release/instructions" "$baseline" "$(compiler)" "$@"
