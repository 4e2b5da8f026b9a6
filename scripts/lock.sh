#!/bin/sh
# Resolve pyproject.toml into requirements/{runtime,dev,build,mutation}.txt: every version with the hashes of all its
# files, for all platforms and every Python from 3.11, and no download address. The resolver lives in a throw-away
# environment.
# Usage: PYTHON=python3 UPGRADE=1 sh scripts/lock.sh, from the repository root. Without UPGRADE versions already locked
# stay where pyproject.toml still allows them.
set -eu
uv_version=0.13.9

workshop=$(mktemp -d)
trap 'rm -rf "$workshop"' EXIT
"${PYTHON:-python3}" -m venv "$workshop/venv"
"$workshop/venv/bin/python" -m pip --disable-pip-version-check install --quiet "uv==$uv_version"

resolve() {
    "$workshop/venv/bin/uv" pip compile --quiet --universal --python-version 3.11 --generate-hashes \
        --no-header --no-annotate --no-emit-index-url ${UPGRADE:+--upgrade} "$@"
}

# Each later lock is held to the versions of the one before, so that all of them agree.
resolve pyproject.toml --extra all --output-file requirements/runtime.txt
resolve pyproject.toml --extra all --extra export --extra objectstore --group dev --constraints requirements/runtime.txt --output-file requirements/dev.txt
resolve --group pyproject.toml:build --constraints requirements/dev.txt --output-file requirements/build.txt
resolve --group pyproject.toml:mutation --constraints requirements/dev.txt --output-file requirements/mutation.txt
