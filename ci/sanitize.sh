#!/usr/bin/env bash
# The tests that touch unsafe code or several processes under AddressSanitizer, with leaks as errors, and those in which
# threads meet under ThreadSanitizer. Each has a target directory of its own.
#
# TSan cannot see across processes, nor that two addresses are one page: it watches what the threads of one process share
# besides the rings, and the rings themselves where they lie on the heap. Copies in assembly it does not see at all. What
# orders the words of a shared ring is the models' to prove (ci/models.sh).
source "$(dirname "$0")/require.sh"

readonly target=x86_64-unknown-linux-gnu
if ! cargo +nightly --version >/dev/null 2>&1; then
    echo "The sanitizers need a nightly toolchain: rustup toolchain install nightly --profile minimal" >&2
    exit 1
fi
if [[ $(rustc +nightly -vV | sed -n 's/^host: //p') != "$target" ]]; then
    echo "The sanitizers run on $target only." >&2
    exit 1
fi
for tool in cc nm; do
    if ! command -v "$tool" >/dev/null; then
        echo "$tool was not found. Install a C compiler and binutils." >&2
        exit 1
    fi
done

readonly root=$PWD targets="${CARGO_TARGET_DIR:-$PWD/target}"
export CARGO_INCREMENTAL=0 CARGO_PROFILE_DEV_DEBUG=line-tables-only
log=$(mktemp)
trap 'rm -f "$log"' EXIT

# sanitized NAME ARGUMENTS...: runs `cargo test` with RUSTFLAGS as they are, in a target directory NAME.
sanitized() {
    local name=$1
    shift
    echo "== $name: cargo +nightly test $*"
    CARGO_TARGET_DIR="$targets/$name" cargo +nightly test --target "$target" "$@" 2>&1 | tee -a "$log"
}

# passed: how many tests have passed since the log was last emptied, which it is.
passed() {
    awk '/^test result: ok/ { passed += $4 } END { print passed + 0 }' "$log"
    : >"$log"
}

# tests_of PACKAGE PATTERN: `--test` for each test file of a package but those whose names match.
tests_of() {
    local path
    for path in "$1"/tests/*.rs "$1"/tests/*/main.rs; do
        [[ -e $path ]] || continue
        path=${path%/main.rs}
        path=$(basename "$path" .rs)
        [[ $path =~ ^($2)$ ]] || printf -- '--test %s ' "$path"
    done
}

export RUSTFLAGS="-Zsanitizer=address"
export ASAN_OPTIONS="detect_leaks=1:detect_stack_use_after_return=1:strict_string_checks=1"
export LSAN_OPTIONS="suppressions=$root/ci/asan/leaks.txt:print_suppressions=0"
# Left out: the loom models, which are empty here.
sanitized asan -p memit-ringbuf --lib $(tests_of ringbuf 'loom_.*')
# Left out: scarcity and clock, which follow.
sanitized asan -p memit-engine --lib $(tests_of engine 'loom_.*|scarcity|clock')
# Left out: steady_state and payload_memory, which measure what a message costs (system calls, allocations, resident
# memory) and would measure the sanitizer; compile_fail, which runs nothing.
sanitized asan -p memit --lib $(tests_of api 'steady_state|payload_memory|compile_fail')
# Without a look for leaks, which takes descriptors, memory, threads and system calls that these processes do not have.
# Left out: the limits on address space, of which the sanitizer reserves terabytes, and on maps, of which it makes some for
# each thread.
ASAN_OPTIONS="$ASAN_OPTIONS:detect_leaks=0" sanitized asan -p memit-engine --test scarcity --test clock -- \
    --skip bind_and_connect_name_the_limit --skip a_main_at_a_limit --skip sockets_are_closed_where
under_asan=$(passed)

# What the toolchain's std does out of TSan's sight is told by ci/tsan/precompiled_std.c, through which the linker passes
# the calls of these functions. Their names have a hash in them that each toolchain chooses.
symbols=$(nm -D "$(rustc +nightly --print sysroot)"/lib/rustlib/$target/lib/libstd-*.so | awk '{ print $NF }')
symbol() {
    local found
    found=$(grep -E "^_R.*$1\$" <<<"$symbols" | head -n 1)
    if [[ -z $found ]]; then
        echo "This nightly's standard library has no function like $1; ci/tsan/precompiled_std.c must follow it." >&2
        exit 1
    fi
    echo "$found"
}
mutex_lock=$(symbol '5mutex5futex.*5Mutex14lock_contended')
rwlock_read=$(symbol '6rwlock5futex.*6RwLock14read_contended')
rwlock_write=$(symbol '6rwlock5futex.*6RwLock15write_contended')
scope_end=$(symbol '9ScopeData29decrement_num_running_threads')
mkdir -p "$targets/tsan"
readonly shim="$targets/tsan/precompiled_std.o"
cc -O1 -fPIC -Wall -Wextra -Werror -DMUTEX_LOCK="$mutex_lock" -DRWLOCK_READ="$rwlock_read" \
    -DRWLOCK_WRITE="$rwlock_write" -DSCOPE_END="$scope_end" -c ci/tsan/precompiled_std.c -o "$shim"
RUSTFLAGS="-Zsanitizer=thread -Cunsafe-allow-abi-mismatch=sanitizer -Clink-arg=$shim"
for wrapped in "$mutex_lock" "$rwlock_read" "$rwlock_write" "$scope_end" __tsan_atomic32_load __tsan_atomic64_load \
    __tsan_atomic64_fetch_sub __tsan_atomic_thread_fence; do
    RUSTFLAGS+=" -Clink-arg=-Wl,--wrap=$wrapped"
done
export RUSTFLAGS TSAN_OPTIONS="suppressions=$root/ci/tsan/suppressions.txt:history_size=7"
sanitized tsan -p memit-ringbuf --test stress
# Left out: payloads, which are read by plain loads where they are mapped. rustix maps and unmaps by system calls of its own,
# which TSan does not see, so that it takes two maps that had one address after the other for one.
sanitized tsan -p memit-engine --test doorbells --test calls --test dispatching_thread --test faults --test port
under_tsan=$(passed)

echo "sanitizers: $under_asan tests passed under AddressSanitizer, $under_tsan under ThreadSanitizer"
