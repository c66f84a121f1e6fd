#!/usr/bin/env bash
# Hostile peers against a main and against a renderer: each attack with a fixed seed and with a random one, or with the
# SEED that is given, to replay a run. See api/tests/hostile_peers/main.rs. In release mode, since it judges latencies;
# `cargo test` makes each attack with debug assertions.
# Usage: ci/hostile.sh [SEED]
source "$(dirname "$0")/require.sh"

export MEMIT_HOSTILE=full
# Optimized code matters here, the last few percent of it do not.
export CARGO_PROFILE_RELEASE_LTO=off CARGO_PROFILE_RELEASE_CODEGEN_UNITS=16
export CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-target}/hostile"
if (($# > 0)); then
    export MEMIT_HOSTILE_SEED=$1
fi
log=$(mktemp)
trap 'rm -f "$log"' EXIT

started=$SECONDS
status=0
cargo test --release -p memit --test hostile_peers -- --nocapture --test-threads=1 2>&1 |
    grep --line-buffered -av -e '^child says: ' -e '^$' | tee "$log" || status=$?

runs=$(grep -ac 'attack .* strikes, ' "$log" || true)
attacks=$(grep -ao 'attack [a-z_]* as [A-Z]' "$log" | cut -d' ' -f2 | sort -u | wc -l)
strikes=$(grep -ao '[0-9]* strikes, ' "$log" | awk '{ sum += $1 } END { print sum + 0 }')
if ((status != 0)); then
    echo "hostile: FAILED after $attacks attacks in $runs runs; replay one with MEMIT_HOSTILE_ATTACK=NAME $0 SEED"
    exit "$status"
fi
unmeasured=$(grep -ac "not measured" "$log" || true)
echo "hostile: $attacks attacks in $runs runs ($((runs - unmeasured)) of them measured), $strikes strikes or more, all withstood, $((SECONDS - started)) s"
