# Sourced by the scripts beside it: goes to the root of the repository and makes sure that the tools a script names
# are there. A missing rustup component is installed; without rustup, or without a network, it says what to do.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

if ! command -v cargo >/dev/null; then
    echo "cargo was not found. Install Rust (stable) and put cargo on PATH." >&2
    exit 1
fi

# require_component COMPONENT COMMAND...: COMMAND shows that the rustup component COMPONENT works.
require_component() {
    local component=$1
    shift
    if "$@" >/dev/null 2>&1; then
        return
    fi
    echo "installing the $component component"
    if ! command -v rustup >/dev/null || ! rustup component add "$component"; then
        echo "'$*' does not run. Add $component to this toolchain (rustup component add $component) and try again." >&2
        exit 1
    fi
}
