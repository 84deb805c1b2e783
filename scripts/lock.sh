#!/bin/sh
# Renew requirements/*.txt from requirements/bootstrap.in and pyproject.toml: hashes, no index addresses,
# one lock for Python 3.11 to 3.13 and every platform.
set -eu
cd "$(dirname "$0")/.."
lock() { .venv/bin/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header "$@"; }
lock requirements/bootstrap.in -o requirements/bootstrap.txt
lock pyproject.toml -o requirements/core.txt
lock pyproject.toml --extra kubernetes --extra dev -c requirements/core.txt -o requirements/dev.txt
grep -c '==' requirements/*.txt
