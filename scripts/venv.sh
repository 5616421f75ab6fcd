# Read by scripts/demo and scripts/test, in the project's folder: makes the virtual environment
# $VENV (.venv) and keeps it up to date, or stops with the reason. Needs Python 3.10 or newer with
# its venv module. PYTHON=python3.12 (a name or a path) chooses the interpreter.

VENV=${VENV:-.venv}

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

# Sets $python to the interpreter that makes the virtual environment.
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
    stop "Python 3.10 or newer is needed, and $(python3 --version 2>/dev/null || echo none) was found." \
        "Install a newer one, or name it: PYTHON=/path/to/python3.12 $0"
}

stop_without_venv() {
    package=$("$1" -c 'import sys; print("python%d.%d-venv" % sys.version_info[:2])')
    stop "$1 cannot make virtual environments: its venv module is not installed." \
        "As root: apt-get install python3-venv    (or $package), then run $0 again."
}

# Makes the virtual environment where there is none that works, and installs requirements-dev.txt
# whenever the requirements have changed.
prepare_venv() {
    if ! "$VENV/bin/python" -m pip --version >/dev/null 2>&1 || ! is_new_enough "$VENV/bin/python" ||
        { [ -n "${PYTHON:-}" ] && ! is_same_version "$PYTHON" "$VENV/bin/python"; }; then
        choose_python
        echo "Making $VENV with $("$python" --version) ..." >&2
        "$python" -m venv --clear "$VENV" || stop "Cannot make $VENV with $python."
    fi
    wanted=$(cat requirements.txt requirements-dev.txt constraints.txt | cksum)
    if [ "$(cat "$VENV/requirements.cksum" 2>/dev/null)" != "$wanted" ]; then
        echo "Installing the packages of requirements-dev.txt (takes about a minute) ..." >&2
        if ! "$VENV/bin/python" -m pip install --disable-pip-version-check --no-input \
            -r requirements-dev.txt >"$VENV/pip.log" 2>&1; then
            grep -v WARNING "$VENV/pip.log" | tail -n 8 | cut -c 1-300 >&2
            stop "" "pip could not install them: see above, and $VENV/pip.log. Is the network up?"
        fi
        printf '%s\n' "$wanted" >"$VENV/requirements.cksum"
    fi
}

is_same_version() {
    what='import sys; print(sys.version_info[:2])'
    [ "$("$1" -c "$what" 2>/dev/null)" = "$("$2" -c "$what" 2>/dev/null)" ]
}
