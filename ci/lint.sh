#!/usr/bin/env bash
# No warning from the compiler or from clippy, in any target, nor in what the feature of the benches adds.
source "$(dirname "$0")/require.sh"

require_component clippy cargo clippy --version
cargo clippy --workspace --all-targets -- -D warnings
cargo clippy -p memit-benches --features rivals --all-targets -- -D warnings
