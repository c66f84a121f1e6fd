#!/usr/bin/env bash
# The loom models of the ring and of the doorbells: every interleaving of small programs. In release mode, and in a
# target directory of their own, since `--cfg loom` changes what every crate is built from.
source "$(dirname "$0")/require.sh"

export RUSTFLAGS="--cfg loom"
# Optimized code matters here, the last few percent of it do not.
export CARGO_PROFILE_RELEASE_LTO=off CARGO_PROFILE_RELEASE_CODEGEN_UNITS=16
export CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-target}/loom"
for package in ringbuf engine; do
    models=()
    for file in "$package"/tests/loom_*.rs; do
        models+=(--test "$(basename "$file" .rs)")
    done
    cargo test --release -p "memit-$package" "${models[@]}"
done
