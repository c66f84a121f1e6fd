#!/usr/bin/env bash
# The loom models: every interleaving, within the bound that each model prints, of small programs on the code of the ring
# (ringbuf/tests/loom_*.rs) and of the engine (engine/src/models/). In release mode, and in a target directory of their
# own, since `--cfg loom` changes what every crate is built from.
source "$(dirname "$0")/require.sh"

export RUSTFLAGS="--cfg loom"
# Optimized code matters here, the last few percent of it do not.
export CARGO_PROFILE_RELEASE_LTO=off CARGO_PROFILE_RELEASE_CODEGEN_UNITS=16
export CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-target}/loom"
# Some models are there to fail: where they did is of no interest.
export RUST_BACKTRACE=0

report=$(mktemp)
trap 'rm -f "$report"' EXIT

ring=()
for file in ringbuf/tests/loom_*.rs; do
    ring+=(--test "$(basename "$file" .rs)")
done
cargo test --release -p memit-ringbuf "${ring[@]}" -- --nocapture | tee "$report"
cargo test --release -p memit-engine --lib models:: -- --nocapture | tee -a "$report"

# A model that was not found, or says nothing of itself, is not one that passed.
models=$(grep -c '^model ' "$report" || true)
passed=$(grep -oE '[0-9]+ passed' "$report" | awk '{ sum += $1 } END { print sum + 0 }')
if [[ "$models" -eq 0 || "$models" -ne "$passed" ]]; then
    echo "$models models said what they explored, and $passed passed" >&2
    exit 1
fi
awk '/^model / { for (i = 1; i <= NF; i++) if ($i == "executions") sum += $(i - 1) }
    END { printf "models: %d passed, %d of them by failing without what they show is needed; %d executions explored\n",
        models, failing, sum }' models="$models" failing="$(grep -c '^model .* until one failed$' "$report")" "$report"
