#!/usr/bin/env bash
# The test command of the README.
source "$(dirname "$0")/require.sh"

cargo test --workspace
