#!/usr/bin/env bash
# The API documentation builds without a warning, and no page of the book links to a file that is not there.
source "$(dirname "$0")/require.sh"

RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps

broken=0
for page in README.md CONTRIBUTING.md CHANGELOG.md docs/*.md docs/guide/*.md; do
    while read -r target; do
        if [[ ! -e "$(dirname "$page")/$target" ]]; then
            echo "$page links to $target, which does not exist" >&2
            broken=1
        fi
    done < <(grep -oE '\]\([^)#]+' "$page" | cut -c3- | grep -vE '^[a-z]+:' || true)
done
exit "$broken"
