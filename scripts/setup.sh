#!/usr/bin/env bash
# Makes .venv, installs ornstein with what it needs, and sees to a headless GL. A second run notices that all is there.
#
#   PYTHON                 the interpreter to use (3.11, 3.12 or 3.13); otherwise the newest of them that is found
#   ORNSTEIN_TORCH_INDEX   an extra package index to take torch from, e.g. PyTorch's CPU or CUDA index. Without it, torch comes
#                          from pip's own configuration: on Linux the default build brings CUDA libraries (several GB).
set -euo pipefail
cd "$(dirname "$0")/.."

started=$SECONDS
say() { printf '%s\n' "$*"; }
step() { printf '[%3ds] %s\n' "$((SECONDS - started))" "$*"; }
stop() {
    printf 'error: %s\n' "$1" >&2
    shift
    for line in "$@"; do printf '       %s\n' "$line" >&2; done
    exit 2
}

# as_root COMMAND…: run it as root where that needs no password; 1 if not possible.
as_root() {
    if [ "$(id -u)" = 0 ]; then
        "$@"
    elif command -v sudo >/dev/null && sudo -n true 2>/dev/null; then
        sudo -n env DEBIAN_FRONTEND=noninteractive "$@"
    else
        return 1
    fi
}

# apt_install WHY PACKAGE…: install Debian packages, or stop and say what to type.
apt_install() {
    local why=$1
    shift
    if ! command -v apt-get >/dev/null; then
        stop "$why, and this is not a Debian or Ubuntu machine" "install what corresponds to: $*" "then run the same make command again"
    fi
    export DEBIAN_FRONTEND=noninteractive
    if ! as_root true; then
        stop "$why, and installing it needs root" "type:  sudo apt-get update && sudo apt-get install -y $*" "then run the same make command again"
    fi
    step "installing $* (apt)"
    as_root apt-get update -qq >/dev/null 2>&1 || true
    if ! as_root apt-get install -y -qq --no-install-recommends "$@" >.setup-apt.log 2>&1; then
        tail -5 .setup-apt.log >&2
        rm -f .setup-apt.log
        stop "apt could not install $*" "type:  sudo apt-get update && sudo apt-get install -y $*" "then run the same make command again"
    fi
    rm -f .setup-apt.log
}

fits() { command -v "$1" >/dev/null && "$1" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' 2>/dev/null; }

find_python() {
    local candidate
    if [ -n "${PYTHON:-}" ]; then
        fits "$PYTHON" || stop "PYTHON=$PYTHON is not a Python 3.11, 3.12 or 3.13" "give the path of one, or unset PYTHON"
        command -v "$PYTHON"
        return
    fi
    for candidate in python3.13 python3.12 python3.11 python3 python; do
        if fits "$candidate"; then
            command -v "$candidate"
            return
        fi
    done
    stop "no Python 3.11, 3.12 or 3.13 was found" \
        "type:  sudo apt-get install -y python3 python3-venv   (Debian 12, Ubuntu 24.04)" "or set PYTHON=/path/to/python"
}

make_venv() {
    local python
    python=$(find_python)
    if ! "$python" -c 'import ensurepip, venv' 2>/dev/null; then
        apt_install "Python's venv module is missing" "python$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')-venv"
    fi
    step "making .venv with $("$python" --version)"
    rm -rf .venv
    "$python" -m venv .venv
}

install_packages() {
    local pip=(.venv/bin/python -m pip --disable-pip-version-check --quiet install --constraint constraints.txt)
    if [ -n "${ORNSTEIN_TORCH_INDEX:-}" ]; then
        pip+=(--extra-index-url "$ORNSTEIN_TORCH_INDEX")
    fi
    # torch first and by its exact version: asked for as a range it could come in another build.
    step "installing torch (the largest part; minutes on a slow line)"
    "${pip[@]}" "$(grep '^torch==' constraints.txt)" || stop "pip could not install torch" "check the network and the package index, then run the same make command again"
    step "installing the other packages"
    "${pip[@]}" --editable '.[dev]' || stop "pip could not install the packages" "check the network and the package index, then run the same make command again"
}

# What an installation depends on; when it changes, packages are installed again.
fingerprint() { cat pyproject.toml constraints.txt scripts/setup.sh | sha256sum | cut -c1-16; }

# An environment does not survive being moved or copied, nor its interpreter's removal: its scripts name the old place.
venv_works() { .venv/bin/python -c 'import pip, sys; sys.exit(sys.prefix != sys.argv[1])' "$PWD/.venv" 2>/dev/null && head -3 .venv/bin/pip | grep -qF "$PWD/.venv"; }

stamp=.venv/.ornstein-installed
if ! venv_works; then
    make_venv
fi
if [ ! -f "$stamp" ] || [ "$(cat "$stamp")" != "$(fingerprint)" ]; then
    install_packages
    fingerprint >"$stamp"
    step "packages installed"
fi

# One frame rendered off screen proves the GL; only then it is remembered.
gl_works() { timeout 120 .venv/bin/python -c 'from ornstein.simulation.tabletop import Replay; Replay(16).close()' >/dev/null 2>&1; }
gl_stamp=.venv/.ornstein-gl
if [ ! -f "$gl_stamp" ]; then
    step "looking for a headless GL"
    if ! gl_works; then
        apt_install "headless rendering needs EGL or OSMesa" libegl1 libopengl0 libgl1-mesa-dri libosmesa6
        gl_works || stop "neither EGL nor OSMesa renders, although both are installed" "see:  .venv/bin/ornstein doctor"
    fi
    touch "$gl_stamp"
    say "set-up finished in $((SECONDS - started)) s"
fi
