# SPDX-License-Identifier: Apache-2.0
# Sourced by docs/demo, tests/run and .ci/run, in the root of the repository.

# Puts this package, with the given extras and what constraints.txt pins, into .venv.
set_up() {
    local extras=$1 python
    python=$(find_python) || stop "needs Python 3.11 or later: apt-get install python3"
    add_missing "$python"
    # An interrupted run may have left it without pip.
    .venv/bin/python -m pip --version >/dev/null 2>&1 || "$python" -m venv .venv
    say "installing into .venv"
    # First what builds the package: pip would make another environment for that.
    pip_install setuptools numpy scipy-openblas32
    pip_install --no-build-isolation --editable ".[$extras]"
}

# Python compiles what it imports, which is a fifth of what is installed.
pip_install() {
    .venv/bin/python -m pip install -qq --disable-pip-version-check --no-compile \
        --constraint constraints.txt "$@"
}

# Compiles all that is installed, for those who start many processes, which may be told
# to write no bytecode.
compile_all() {
    # As pip would, which uses one core. What is no Python fails, and is not needed.
    .venv/bin/python -m compileall -qq -j 0 .venv/lib >/dev/null 2>&1 || true
}

find_python() {
    local name
    for name in "${PYTHON:-python3}" python3.14 python3.13 python3.12 python3.11; do
        if "$name" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
            echo "$name"
            return
        fi
    done
    return 1
}

# A compiler, Python's headers and the module venv come in packages of their own.
add_missing() {
    local python=$1 name missing=()
    name=$(basename "$python")
    command -v gcc >/dev/null || missing+=(gcc libc6-dev)
    "$python" -c 'import ensurepip, venv' 2>/dev/null || missing+=("$name-venv")
    "$python" - <<'END' || missing+=("$name-dev")
import os, sys, sysconfig
sys.exit(not os.path.exists(os.path.join(sysconfig.get_path("include"), "Python.h")))
END
    [ ${#missing[@]} -eq 0 ] || install_packages "${missing[@]}"
}

install_packages() {
    if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
        stop "missing $*; install it, e.g. sudo apt-get install $*"
    fi
    say "installing $*"
    apt-get update -qq
    DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends \
        "$@" >/dev/null
}

say() {
    echo "$*" >&2
}

stop() {
    say "$*"
    exit 3
}
