# Read by scripts/demo and scripts/test, in the project's folder: an up-to-date .venv, or a clear
# reason why there is none. Needs nothing but Python 3.10 or newer with its venv module.
# PYTHON=python3.12 (a name or a path) selects an interpreter.

stop() {
    printf '%s\n' "$@" >&2
    exit 1
}

is_new_enough() {
    "$1" -c 'import sys; sys.exit(sys.version_info < (3, 10))' 2>/dev/null
}

has_venv() {
    "$1" -c 'import ensurepip, venv' 2>/dev/null
}

# Sets $python to the interpreter that makes .venv.
choose_python() {
    if [ -n "${PYTHON:-}" ]; then
        command -v "$PYTHON" >/dev/null 2>&1 || stop "PYTHON=$PYTHON: there is no such program."
        is_new_enough "$PYTHON" || stop "PYTHON=$PYTHON is older than Python 3.10: choose a newer one."
        has_venv "$PYTHON" || stop_without_venv "$PYTHON"
        python=$PYTHON
        return
    fi
    without_venv=
    for python in python3.13 python3.12 python3.11 python3.10 python3 python python3.14; do
        is_new_enough "$python" || continue
        has_venv "$python" && return
        without_venv=${without_venv:-$python}
    done
    [ -z "$without_venv" ] || stop_without_venv "$without_venv"
    stop "This needs Python 3.10 or newer, and finds $(python3 --version 2>/dev/null || echo none)." \
        "Install one, or name it: PYTHON=/path/to/python3.12 $0"
}

stop_without_venv() {
    package=$("$1" -c 'import sys; print("python%d.%d-venv" % sys.version_info[:2])')
    stop "$1 cannot make virtual environments: its venv module is a package of its own here." \
        "As root: apt-get install python3-venv    (or $package), then run $0 again."
}

# Makes .venv where there is none that works, and installs requirements-dev.txt where it changed.
prepare_venv() {
    if ! .venv/bin/python -m pip --version >/dev/null 2>&1 || ! is_new_enough .venv/bin/python ||
        { [ -n "${PYTHON:-}" ] && ! is_same_version "$PYTHON" .venv/bin/python; }; then
        choose_python
        echo "Making .venv with $("$python" --version) ..." >&2
        "$python" -m venv --clear .venv || stop "Cannot make .venv with $python."
    fi
    wanted=$(cat requirements.txt requirements-dev.txt constraints.txt | cksum)
    if [ "$(cat .venv/requirements.cksum 2>/dev/null)" != "$wanted" ]; then
        echo "Installing what requirements-dev.txt names (about a minute) ..." >&2
        if ! .venv/bin/python -m pip install --disable-pip-version-check --no-input \
            -r requirements-dev.txt >.venv/pip.log 2>&1; then
            grep -v WARNING .venv/pip.log | tail -n 8 | cut -c 1-300 >&2
            stop "" "Installing failed: see above, and .venv/pip.log. Is the network there?"
        fi
        printf '%s\n' "$wanted" >.venv/requirements.cksum
    fi
}

is_same_version() {
    what='import sys; print(sys.version_info[:2])'
    [ "$("$1" -c "$what" 2>/dev/null)" = "$("$2" -c "$what" 2>/dev/null)" ]
}
