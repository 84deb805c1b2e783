#!/bin/sh
# Make .venv with the locked packages and `ct` in it. Usage: scripts/install.sh core|dev   Safe to repeat.
# Python 3.11 to 3.13 is needed; on another one this stops and prints the command that mends it.
set -eu
cd "$(dirname "$0")/.."
want=${1:-core}
venv=.venv
lock=requirements/$want.txt
say() { printf '%s\n' "install: $*"; }
fits() { "$1" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null; }

# PYTHONDONTWRITEBYTECODE would make every process compile feast (16 s) and scikit-learn (8 s) again.
unset PYTHONDONTWRITEBYTECODE || true

digest=$(cat requirements/bootstrap.txt "$lock" pyproject.toml | cksum | tr ' ' '-')
[ "$want" = core ] && [ -f $venv/.dev ] && want=dev && digest=$(cat requirements/bootstrap.txt requirements/dev.txt pyproject.toml | cksum | tr ' ' '-')
if [ -f "$venv/.$want" ] && [ "$(cat "$venv/.$want")" = "$digest" ] && [ -x "$venv/bin/ct" ] && "$venv/bin/python" -c '' 2>/dev/null; then
  exit 0
fi

python=${PYTHON:-}
if [ -n "$python" ]; then
  fits "$python" || { say "PYTHON=$python is not Python 3.11 to 3.13" >&2; exit 2; }
else
  for candidate in python3 python3.12 python3.11 python3.13; do
    if command -v "$candidate" >/dev/null 2>&1 && fits "$candidate"; then python=$candidate; break; fi
  done
fi
if [ -z "$python" ]; then
  say "no Python 3.11 to 3.13 found (python3 is $(python3 --version 2>&1 || echo absent))" >&2
  say "Debian or Ubuntu: apt-get install python3 python3-venv    macOS: brew install python@3.12    then: make install PYTHON=python3.12" >&2
  exit 2
fi

if ! "$python" -c 'import ensurepip, venv' 2>/dev/null; then
  if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1; then
    say "$python lacks the venv module; installing Debian's python3-venv"
    apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq python3-venv >/dev/null
  else
    say "$python lacks the venv module: apt-get install python3-venv (or the python3.X-venv of your version)" >&2
    exit 2
  fi
fi

if [ ! -x $venv/bin/python ] || ! fits $venv/bin/python; then
  say "making $venv with $("$python" --version)"
  rm -rf $venv
  "$python" -m venv $venv
fi
say "packages of $lock ($(grep -c '^[a-z0-9].*==' "$lock") pinned with hashes); about 1.5 GB on disk"
$venv/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/bootstrap.txt
# --compile-bytecode: without .pyc files every start compiles again.
$venv/bin/uv pip install --quiet --python $venv/bin/python --require-hashes --compile-bytecode -r "requirements/$want.txt"
$venv/bin/uv pip install --quiet --python $venv/bin/python --no-deps --no-build-isolation --editable .
printf '%s' "$digest" > "$venv/.$want"
say "done: $venv/bin/ct"
