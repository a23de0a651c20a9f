#!/usr/bin/env bash
# Makes or renews .venv: torch first, then the build backend, then this repository with its
# development tools, all pinned by constraints.txt. Called by make only, with
#   PYTHON  interpreter to build .venv with (empty: the first fitting one on PATH)
#   TORCH   empty: as last time, at first the pinned version; keep: whatever .venv already has;
#           else the arguments of a pip install, such as "torch==2.12.0 --index-url URL"
#   EXTRAS  extras to install (empty: as last time, at first dev)
# The stamp is removed before anything is touched and written last, so an interrupted run is
# taken up again by the next one. Output of pip goes to .venv/setup.log, shown on failure.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

readonly venv=.venv stamp=.venv/.installed log=.venv/setup.log

fail() {
  printf 'setup: %s\n' "$@" >&2
  exit 1
}

is_fitting() { # an interpreter of version 3.11 or newer
  "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1
}

find_python() {
  local candidate
  if [ -n "${PYTHON:-}" ]; then
    command -v "$PYTHON" >/dev/null || fail "PYTHON=$PYTHON is not a command on this machine"
    is_fitting "$PYTHON" || fail "PYTHON=$PYTHON is not Python 3.11 or newer"
    printf '%s\n' "$PYTHON"
    return
  fi
  for candidate in python3 python3.13 python3.12 python3.11 python3.14 python; do
    if is_fitting "$candidate"; then
      printf '%s\n' "$candidate"
      return
    fi
  done
  fail "no Python 3.11 or newer found on PATH (python3 is: $(python3 --version 2>/dev/null || echo missing))" \
    "install one (on Debian or Ubuntu: apt install python3.11 python3.11-venv), or name it:" \
    "  make setup PYTHON=/path/to/python3.11"
}

step() { # title, command...
  local title=$1 status=0 started=$SECONDS
  shift
  printf 'setup: %s ...\n' "$title"
  printf '\n== %s: %s\n' "$title" "$*" >>"$log"
  "$@" >>"$log" 2>&1 || status=$?
  if [ "$status" -ne 0 ]; then
    printf 'setup: %s failed; the end of %s:\n' "$title" "$PWD/$log" >&2
    tail -n 30 "$log" >&2
    exit "$status"
  fi
  printf 'setup: %s: %d s\n' "$title" $((SECONDS - started))
}

make_venv() {
  local python
  # A .venv without a stamp may be the user's own: it is used as it is where it works.
  if [ -f "$stamp" ] && [ "$(head -n 1 "$stamp")" != "$PWD" ]; then
    echo "setup: the repository was moved or copied; making .venv anew"
    rm -rf "$venv"
  fi
  if [ -x "$venv/bin/python" ] && "$venv/bin/python" -m pip --version >/dev/null 2>&1; then
    is_fitting "$venv/bin/python" || fail "$venv has a Python older than 3.11; remove it first"
    return
  fi
  if [ ! -f "$stamp" ] && "$venv/bin/python" -c '' >/dev/null 2>&1; then # such as uv's
    is_fitting "$venv/bin/python" || fail "$venv has a Python older than 3.11; remove it first"
    "$venv/bin/python" -m ensurepip >/dev/null 2>&1 || fail \
      "$venv has no pip and cannot get it (python -m ensurepip); remove $venv first"
    return
  fi
  python=$(find_python)
  "$python" -c 'import venv, ensurepip' 2>/dev/null || fail \
    "$python cannot make virtual environments: its venv or ensurepip module is missing" \
    "on Debian or Ubuntu: apt install python3-venv (or python3.11-venv, as the version is)"
  rm -rf "$venv"
  mkdir "$venv"
  step "virtual environment with $("$python" --version)" "$python" -m venv "$venv"
}

# Two makes at once: the second waits, then finds the work done.
if command -v flock >/dev/null; then
  exec 9<.
  flock 9
  if [ -z "${TORCH:-}${EXTRAS:-}" ] && [ "$stamp" -nt pyproject.toml ] &&
    [ "$stamp" -nt constraints.txt ] && [ "$(head -n 1 "$stamp")" = "$PWD" ]; then
    exit 0
  fi
fi

pinned_torch=$(grep '^torch==' constraints.txt)
torch=${TORCH:-$(cat "$venv/.torch" 2>/dev/null || true)}
extras=${EXTRAS:-$(cat "$venv/.extras" 2>/dev/null || true)}
torch=${torch:-$pinned_torch}
extras=${extras:-dev}

make_venv
rm -f "$stamp"
: >"$log"
if [ "$torch" = keep ] && ! "$venv/bin/python" -c 'import torch' >>"$log" 2>&1; then
  [ "${TORCH:-}" != keep ] || fail "TORCH=keep, but $venv has no torch that can be imported"
  torch=$pinned_torch # kept last time, but .venv was made anew since
fi
printf '%s\n' "$torch" >"$venv/.torch"
printf '%s\n' "$extras" >"$venv/.extras"
pip=("$venv/bin/python" -m pip --disable-pip-version-check --no-input install)

# Everything is pinned except torch itself where another one was chosen.
grep -v '^torch==' constraints.txt >"$venv/constraints.txt"
if [ "$torch" != keep ]; then
  read -r -a torch_arguments <<<"$torch"
  step "$torch" "${pip[@]}" -c "$venv/constraints.txt" "${torch_arguments[@]}"
fi
installed=$("$venv/bin/python" -c 'from importlib.metadata import version; print(version("torch"))')
printf 'torch==%s\n' "$installed" >>"$venv/constraints.txt"

step "build backend" "${pip[@]}" -c "$venv/constraints.txt" hatchling
step "impala-rl[$extras]" "${pip[@]}" -c "$venv/constraints.txt" --no-build-isolation \
  -e ".[$extras]"
printf '%s\n' "$PWD" >"$stamp.new"
mv "$stamp.new" "$stamp"
