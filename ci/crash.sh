#!/usr/bin/env bash
# Processes killed with SIGKILL: at each named crash point, and KILLS times at random (1000 by default); and processes
# stopped for half a minute, which is no death. In release mode, and in a target directory of their own, since
# `--cfg crash_points` changes what every crate is built from.
#
#   ci/crash.sh [KILLS]       MEMIT_CRASH_SEED=N repeats the times of the random kills.
source "$(dirname "$0")/require.sh"

if ! [[ ${1:-1000} =~ ^[1-9][0-9]*$ ]]; then
    echo "usage: ci/crash.sh [KILLS], with a whole number of kills; found '$1'" >&2
    exit 1
fi
export MEMIT_CRASH_KILLS=${1:-1000} MEMIT_STOP_SECONDS=30
export RUSTFLAGS="--cfg crash_points"
# Optimized code matters here, the last few percent of it do not.
export CARGO_PROFILE_RELEASE_LTO=off CARGO_PROFILE_RELEASE_CODEGEN_UNITS=16
export CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-target}/crash"

log=$(mktemp)
trap 'rm -f "$log"' EXIT
# The crash tests look at what the process has open, so one at a time.
cargo test --release -p memit --test crash -- --nocapture --test-threads=1 | tee "$log"
cargo test --release -p memit --test stopped

sed -n 's/^\(crash points\|random kills\): \(.*\)$/\2/p' "$log" | awk -v stop="$MEMIT_STOP_SECONDS" '
    { for (i = 2; i <= NF; i++) { word = $i; sub(",", "", word); if (word ~ /^(points|kills|messages)$/) sum[word] += $(i - 1) } }
    END {
        if (!sum["points"] || !sum["kills"]) exit 1
        printf "crash: %d points, %d kills, %d messages, 2 stops of %d s\n", sum["points"], sum["kills"], sum["messages"], stop
    }'
