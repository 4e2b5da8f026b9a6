#!/bin/sh
# Compare the gRPC contract with the last release: `buf breaking` against the newest tag v*. Nothing to do before the
# first release.
# Usage: sh scripts/check_breaking.sh BUF, from the repository root.
set -eu
buf=$1
tag=$(git describe --tags --abbrev=0 --match 'v[0-9]*' 2>/dev/null) || {
    echo 'buf breaking: no release tag to compare with yet'
    exit 0
}
exec "$buf" breaking --against ".git#tag=$tag"
