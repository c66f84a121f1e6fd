#!/usr/bin/env bash
# Every crate is formatted as rustfmt would.
source "$(dirname "$0")/require.sh"

require_component rustfmt cargo fmt --version
cargo fmt --all --check
