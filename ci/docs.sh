#!/usr/bin/env bash
# The API documentation builds without a warning, no page of the book links to a file that is not there, and the memory
# model names every pair of orderings that the code names.
source "$(dirname "$0")/require.sh"

RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps

broken=0
for page in README.md CONTRIBUTING.md CHANGELOG.md docs/*.md docs/guide/*.md docs/benchmarks/*.md; do
    while read -r target; do
        if [[ ! -e "$(dirname "$page")/$target" ]]; then
            echo "$page links to $target, which does not exist" >&2
            broken=1
        fi
    done < <(grep -oE '\]\([^)#]+' "$page" | cut -c3- | grep -vE '^[a-z]+:' || true)
done

while read -r pair; do
    if ! grep -q "\`$pair\`" docs/MEMORY-MODEL.md; then
        echo "docs/MEMORY-MODEL.md does not name the pair $pair, which the code does" >&2
        broken=1
    fi
done < <(grep -rhoE '// SYNC [a-z-]+' --include='*.rs' ringbuf/src engine/src api/src | cut -d' ' -f3 | sort -u)
exit "$broken"
