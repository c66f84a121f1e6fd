#!/usr/bin/env bash
# Each fuzz target for SECONDS (10 by default) with debug assertions, overflow checks and AddressSanitizer, from the
# checked-in corpus, which stays as it is: what is found on the way goes to a scratch directory. It ends at the first
# finding. Usage: ci/fuzz.sh [SECONDS] [TARGET...]
source "$(dirname "$0")/require.sh"

seconds=${1:-10}
if ! [[ $seconds =~ ^[1-9][0-9]*$ ]]; then
    echo "usage: ci/fuzz.sh [SECONDS] [TARGET...], with a whole number of seconds; found '$seconds'" >&2
    exit 1
fi
if ! cargo +nightly --version >/dev/null 2>&1; then
    echo "Fuzzing needs a nightly toolchain. Install one (rustup toolchain install nightly) and try again." >&2
    exit 1
fi
if ! cargo +nightly fuzz --version >/dev/null 2>&1; then
    echo "installing cargo-fuzz"
    cargo install cargo-fuzz --locked
fi

targets=("${@:2}")
if [[ ${#targets[@]} -eq 0 ]]; then
    mapfile -t targets < <(cargo +nightly fuzz list)
fi
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
cargo +nightly fuzz build

# What runs on a thread of a program must fit the stack that Rust gives one, also under a sanitizer.
ulimit -s 2048
export LSAN_OPTIONS="suppressions=$PWD/fuzz/leaks.supp:print_suppressions=0"
# No input takes longer than 10 s, holds more than 2 GiB, or asks for more than 64 MiB at once: the largest payload that
# any target agrees on is far smaller.
limits=(-timeout=10 -rss_limit_mb=2048 -malloc_limit_mb=64 -max_len=4096 -len_control=20)
total=0
for target in "${targets[@]}"; do
    mkdir "$scratch/$target"
    printf '\n== %s, %s s\n' "$target" "$seconds"
    if ! cargo +nightly fuzz run "$target" "$scratch/$target" "fuzz/corpus/$target" -- \
        "${limits[@]}" -max_total_time="$seconds" -print_final_stats=1 -verbosity=1 >"$scratch/log" 2>&1; then
        cat "$scratch/log"
        echo "$target found something. Its input is in fuzz/artifacts/$target/, see above; to run it again:" >&2
        echo "  (ulimit -s 2048; cargo +nightly fuzz run $target fuzz/artifacts/$target/FILE -- ${limits[*]})" >&2
        echo "Mend it at its root, and put the input into fuzz/corpus/$target/, where cargo test replays it." >&2
        exit 1
    fi
    executions=$(sed -n 's/^stat::number_of_executed_units: *//p' "$scratch/log")
    echo "$executions executions, $(grep -c . < <(ls "fuzz/corpus/$target")) seeds, nothing found"
    total=$((total + executions))
done
printf '\n%s targets, %s executions, nothing found\n' "${#targets[@]}" "$total"
