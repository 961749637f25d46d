#!/bin/sh
# Resolve pyproject.toml (with [tool.uv] overrides) into requirements.lock. Needs network and uv.
# What the lock holds stays as it is where it can: `scripts/lock.sh --upgrade` takes the newest.
set -eu
cd "$(dirname "$0")/.."
tmp=$(mktemp)
trap 'rm -f "$tmp"' EXIT
cp requirements.lock "$tmp"
uv pip compile pyproject.toml --extra dev --python-version 3.11 --universal \
    --no-annotate --no-header "$@" -o "$tmp" >/dev/null
{
    echo "# Every package of a working vsa, fully resolved. Made by scripts/lock.sh; do not edit."
    echo "# Install with: pip install --no-deps -r requirements.lock (see [tool.uv] in pyproject.toml)"
    grep -v "sys_platform == 'never'" "$tmp" | grep -vE '^torch=='
    echo "torch==2.13.0"
} > requirements.lock
