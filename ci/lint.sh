#!/usr/bin/env bash
# No warning from the compiler or from clippy, in any target.
source "$(dirname "$0")/require.sh"

require_component clippy cargo clippy --version
cargo clippy --workspace --all-targets -- -D warnings
