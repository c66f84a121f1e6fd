#!/usr/bin/env bash
# ci/soak.sh [SECONDS]: a main and renderers in processes of their own, in release mode, with random messages, kills,
# stops and restarts; every message is checked. 30 s by default. The last line has the verdict and the counts.
source "$(dirname "$0")/require.sh"

seconds=${1:-30}
if ! [[ $seconds =~ ^[1-9][0-9]*$ ]]; then
    echo "usage: ci/soak.sh [SECONDS], with a whole number of seconds; found '$seconds'" >&2
    exit 1
fi
# Optimized code matters here, the last few percent of it do not.
export CARGO_PROFILE_RELEASE_LTO=off CARGO_PROFILE_RELEASE_CODEGEN_UNITS=16
cargo build --release -p memit-cli
"${CARGO_TARGET_DIR:-target}/release/memit" soak --duration "${seconds}s"
